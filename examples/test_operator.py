"""A rollout, an hour and a lost node, in a test that takes a fraction of a second."""

import pytest

from sampan.api.status import ApiError
from sampan.testing import Cluster

WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "example.org/web:1"}]},
        },
    },
}


async def test_pods_of_a_lost_node_come_back_elsewhere():
    async with Cluster(nodes=2) as cluster:
        await cluster.client.create("deployments.apps", WEB, "default")
        await cluster.advance(5)  # virtual seconds: scheduled, "started", ready
        web = await cluster.client.get("deployments.apps", "web", "default")
        assert web["status"]["readyReplicas"] == 3

        await cluster.nodes["node-2"].stop()
        await cluster.advance(3600)  # an hour: lease runs out, taint, eviction, new pods
        pods = (await cluster.client.list("pods", "default"))["items"]
        alive = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
        assert {p["spec"]["nodeName"] for p in alive} == {"node-1"} and len(alive) == 3


async def test_the_api_refuses_what_kubernetes_refuses():
    async with Cluster(nodes=0) as cluster:
        with pytest.raises(ApiError) as refusal:
            await cluster.client.create("deployments.apps", {**WEB, "metadata": {"name": "Web!"}}, "default")
        assert refusal.value.code == 422 and refusal.value.reason == "Invalid"
