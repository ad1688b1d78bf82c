import asyncio

import orjson
import pytest

from sampan.api.status import ApiError
from sampan.base.clock import RealClock, VirtualClock
from sampan.cli import story as cli
from sampan.client.client import read_body
from sampan.client.messages import Request, User
from sampan.cluster import debug
from sampan.testing import Cluster

WEB = {
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web"}]},
        },
    },
}


async def ask(cluster, path, query="", user=None):
    request = Request("GET", path, query, {"accept": "application/json"}, user=user or cluster.client._user)
    response = await cluster.plane.server.handle(request)
    return response.status, await read_body(response)


async def test_a_deployments_story_tells_who_made_its_replicaset():
    async with Cluster(nodes=1) as cluster:
        await cluster.client.create("deployments.apps", WEB, "default")
        await cluster.settle()
        status, body = await ask(cluster, debug.STORY, "resource=deploy&namespace=default&name=web")
        told = orjson.loads(body)
        assert status == 200 and told["resource"] == "deployments.apps"
        first = next(e for e in told["entries"] if e["controller"] == "deployment-controller")
        assert first["cause"] == "deployments.apps default/web created"
        assert any(action.startswith("create replicasets.apps default/web-") for action in first["actions"])
        text = "\n".join(line for entry in told["entries"] for line in cli.lines(entry, told))
        assert "deployment-controller: creates web-" in text and "-> create replicasets.apps" in text


async def test_a_pods_story_tells_which_nodes_refused_it():
    async with Cluster(nodes=2) as cluster:
        node = await cluster.client.get("nodes", "node-1")
        await cluster.client.patch("nodes", node["metadata"]["name"], {"spec": {"unschedulable": True}})
        await cluster.settle()
        pod = {"metadata": {"name": "one"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
        await cluster.client.create("pods", pod, "default")
        await cluster.settle()
        _, body = await ask(cluster, debug.STORY, "resource=pod&namespace=default&name=one")
        [decision] = [e for e in orjson.loads(body)["entries"] if e["controller"] == "default-scheduler"]
        assert decision["actions"] == ["bind pods default/one to node-2"]
        assert decision["refused"] == {"node-1": ["node(s) were unschedulable"]}


async def test_only_masters_may_read_it_and_mistakes_are_named():
    async with Cluster(nodes=0) as cluster:
        nobody = User("eve", ("system:authenticated",))
        status, _ = await ask(cluster, debug.STORY, "resource=pods&name=x", user=nobody)
        assert status == 403
        status, body = await ask(cluster, debug.STORY, "resource=nonsense&name=x")
        assert (status, orjson.loads(body)["message"]) == (
            400,
            'the server doesn\'t have a resource type "nonsense"',
        )
        status, _ = await ask(cluster, debug.STORY)
        assert status == 400


@pytest.mark.parametrize("word", ["deploy", "deployment", "Deployment", "deployments", "deployments.apps"])
def test_resources_are_found_by_what_people_call_them(word):
    from sampan.api.resources import BUILTIN

    assert debug.find(BUILTIN, word).name == "deployments.apps"
    with pytest.raises(ApiError):
        debug.find(BUILTIN, word + "x")


async def test_metrics_tell_of_controllers_and_of_the_loop():
    clock = RealClock()
    fired = asyncio.Event()
    clock.call_later(0.0, fired.set)
    await fired.wait()
    text = debug.Figures(None, None, clock)()
    assert "sampan_loop_lag_seconds_count 1.0" in text
    assert "process_resident_memory_bytes" in text
    async with Cluster(nodes=1) as cluster:
        status, body = await ask(cluster, "/metrics")
        assert status == 200
        assert 'workqueue_adds_total{name="deployment-controller"}' in body.decode()
        assert "sampan_loop_lag" not in debug.Figures(None, None, VirtualClock())()


async def test_late_timers_are_counted():
    clock = RealClock()
    fired = asyncio.Event()
    clock.call_later(0.0, fired.set)
    end = clock.monotonic() + 0.02
    while clock.monotonic() < end:
        pass
    await fired.wait()
    assert clock.lag.late == 1
    assert clock.lag.take_worst() > 0.015
    assert clock.lag.take_worst() == 0.0
