"""What is sent of a pod's status, and how often."""

from __future__ import annotations

import orjson

from sampan.api import meta
from sampan.node.statuses import status_patch
from sampan.testing import Cluster

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "t"}


def test_the_same_status_sends_nothing():
    status = {
        "phase": "Running",
        "conditions": [READY],
        "containerStatuses": [{"name": "c", "lastState": {}}],
    }
    stored = {
        "phase": "Running",
        "conditions": [{**READY, "lastProbeTime": None}],
        "containerStatuses": [{"name": "c"}],
    }
    assert status_patch(stored, status) == {}


def test_only_what_changed_is_sent_and_what_is_gone_is_cleared():
    old = {"phase": "Running", "reason": "X", "conditions": [{**READY, "status": "False", "message": "m"}]}
    new = {"phase": "Running", "conditions": [READY]}
    assert status_patch(old, new) == {
        "reason": None,
        "$setElementOrder/conditions": [{"type": "Ready"}],
        "conditions": [{**READY, "message": None}],
    }


def patches(world):
    return [r for r in world.api.requests if r.method == "PATCH" and r.path.endswith("/pods/p/status")]


async def test_a_pod_that_starts_at_once_costs_one_patch(world):
    world.pod()
    await world.clock.advance(0)
    assert [orjson.loads(r.body)["status"]["phase"] for r in patches(world)] == ["Running"]


async def test_that_a_pod_is_being_started_is_told_when_it_takes_a_moment(world):
    world.pod(annotations={"sampan.dev/simulate": "start=1s"})
    await world.clock.advance(0.04)
    assert not patches(world)
    await world.clock.advance(0.04)
    told = orjson.loads(patches(world)[0].body)["status"]["containerStatuses"][0]["state"]
    assert told["waiting"]["reason"] == "ContainerCreating"


async def test_what_others_said_of_a_pod_is_put_right():
    """As the node lifecycle controller does when it has not heard of a node, which then comes back."""
    async with Cluster(nodes=1) as cluster:
        spec = {"containers": [{"name": "c", "image": "i"}]}
        await cluster.client.create("pods", {"metadata": {"name": "p"}, "spec": spec}, "default")
        await cluster.advance(5)
        assert meta.is_true(await cluster.client.get("pods", "p", "default"), "Ready")
        change = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        await cluster.client.patch("pods", "p", change, "default", kind="strategic", subresource="status")
        await cluster.advance(1)
        assert meta.is_true(await cluster.client.get("pods", "p", "default"), "Ready")
