"""Machines' clocks differ and are set while they run: whether a node lives is told by what it does, not by what it writes."""

import pytest

from sampan.api import meta
from sampan.client.messages import User
from sampan.cluster.planks import ControlPlane
from sampan.node.simulated_node import SimulatedNode
from sampan.testing.cluster import Cluster


class Beside:
    """The same passing of time, on a machine whose clock is wrong by `error` seconds."""

    def __init__(self, clock, error):
        self._clock, self._error = clock, error

    def now(self):
        return self._clock.now() + self._error

    def __getattr__(self, name):
        return getattr(self._clock, name)


async def join(cluster, name, clock_error):
    user = User(f"system:node:{name}", ("system:nodes", "system:authenticated"))
    client = cluster.plane.client(user, "kubelet")
    clock = Beside(cluster.clock, clock_error)
    node = SimulatedNode(client, name, clock, cluster.ids, pod_cidr="10.244.99.0/24")
    cluster.nodes[name] = node
    await node.start()
    return node


async def state(cluster, name):
    return meta.condition(await cluster.client.get("nodes", name), "Ready")["status"]


async def states(cluster):
    return {n: await state(cluster, n) for n in cluster.nodes}


@pytest.mark.parametrize("error", [-120, 120, -86_400])
async def test_a_node_with_a_wrong_clock_is_ready_while_it_reports_and_found_when_it_stops(error):
    async with Cluster(nodes=1) as cluster:
        node = await join(cluster, "wrong", error)
        for _ in range(20):
            await cluster.advance(20)
            assert await states(cluster) == {"node-1": "True", "wrong": "True"}
        await node.stop()
        await cluster.advance(38)
        assert await state(cluster, "wrong") == "True"
        await cluster.advance(13)
        assert await states(cluster) == {"node-1": "True", "wrong": "Unknown"}
        await node.start()
        await cluster.advance(10)
        assert await state(cluster, "wrong") == "True"


@pytest.mark.parametrize("jump", [3600, -3600])
async def test_the_clock_of_the_control_plane_is_set(jump):
    async with Cluster(nodes=1) as cluster:
        for name in ("one", "two"):
            await join(cluster, name, 0)
        await cluster.advance(35)
        cluster.clock.set_wall(cluster.now + jump)
        for name in cluster.nodes:  # everybody is looked at
            await cluster.client.patch("nodes", name, {"metadata": {"labels": {"looked": "at"}}})
        for _ in range(20):
            await cluster.advance(5)
            assert set((await states(cluster)).values()) == {"True"}
        await cluster.nodes["one"].stop()
        await cluster.advance(51)
        assert await states(cluster) == {"node-1": "True", "one": "Unknown", "two": "True"}
        await cluster.nodes["two"].stop()
        await cluster.advance(51)
        taints = (await cluster.client.get("nodes", "two"))["spec"]["taints"]
        assert "NoExecute" in [t["effect"] for t in taints]


async def test_a_silent_node_is_found_after_the_clock_was_set_back():
    async with Cluster(nodes=2) as cluster:
        await cluster.nodes["node-2"].stop()
        cluster.clock.set_wall(cluster.now - 3600)
        await cluster.advance(51)
        assert await states(cluster) == {"node-1": "True", "node-2": "Unknown"}


async def test_after_a_restart_of_the_control_plane_the_grace_starts_anew():
    async with Cluster(nodes=2) as cluster:
        await cluster.nodes["node-2"].stop()
        await cluster.advance(30)
        await cluster.plane.stop()
        await cluster.advance(1000)
        before = cluster.plane
        cluster.plane = ControlPlane(cluster.store, cluster.clock, cluster.ids, before.options)
        await cluster.plane.start()
        await cluster.advance(48)
        assert await state(cluster, "node-2") == "True"
        await cluster.advance(3)
        assert await state(cluster, "node-2") == "Unknown"


async def test_others_who_write_a_silent_node_do_not_keep_it_alive():
    async with Cluster(nodes=2) as cluster:
        await cluster.nodes["node-2"].stop()
        for count in range(6):
            note = {"metadata": {"annotations": {"seen": str(count)}}}
            await cluster.client.patch("nodes", "node-2", note)
            await cluster.client.patch("leases.coordination.k8s.io", "node-2", note, "kube-node-lease")
            await cluster.advance(10)
        assert await state(cluster, "node-2") == "Unknown"


async def test_a_node_that_reports_its_status_alone_is_alive():
    async with Cluster(nodes=1) as cluster:
        node = {"metadata": {"name": "plain"}, "status": {}}
        await cluster.client.create("nodes", {"apiVersion": "v1", "kind": "Node", **node})
        for count in range(8):
            at = f"2020-01-01T00:00:{count:02}Z"
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": at}
            await cluster.client.patch(
                "nodes", "plain", {"status": {"conditions": [ready]}}, subresource="status"
            )
            await cluster.advance(10)
            assert meta.condition(await cluster.client.get("nodes", "plain"), "Ready")["status"] == "True"
        await cluster.advance(41)
        assert meta.condition(await cluster.client.get("nodes", "plain"), "Ready")["status"] == "Unknown"
