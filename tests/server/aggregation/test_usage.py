"""metrics.k8s.io: what `kubectl top` and autoscalers ask, over the memory cluster."""

from __future__ import annotations

import orjson
import pytest

from sampan.api.status import ApiError
from sampan.client.client import read_body
from sampan.client.messages import Request
from sampan.testing import Cluster
from sampan.testing.cluster import ADMIN

PODS, NODES = "pods.metrics.k8s.io", "nodes.metrics.k8s.io"


def pod(name: str, words: str = "cpu=250m memory=64Mi", **labels: str) -> dict:
    meta = {"name": name, "labels": labels, "annotations": {"sampan.dev/simulate": words}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


async def test_pods_and_nodes_are_measured():
    async with Cluster() as cluster:
        await cluster.client.create("pods", pod("a", app="web"), "default")
        await cluster.client.create("pods", pod("b", "cpu=1 memory=1Gi"), "default")
        await cluster.settle()
        await cluster.advance(10)
        one = await cluster.client.get(PODS, "a", "default")
        assert (one["kind"], one["apiVersion"]) == ("PodMetrics", "metrics.k8s.io/v1beta1")
        assert one["containers"] == [{"name": "c", "usage": {"cpu": "250000000n", "memory": "65536Ki"}}]
        assert one["window"] == "10s" and one["timestamp"] and one["metadata"]["labels"] == {"app": "web"}
        listed = await cluster.client.list(PODS, "default", labels="app=web")
        assert [i["metadata"]["name"] for i in listed["items"]] == ["a"]
        assert listed["kind"] == "PodMetricsList"
        (node,) = (await cluster.client.list(NODES))["items"]
        assert node["usage"] == {"cpu": "1250000000n", "memory": f"{65536 + 1048576}Ki"}


async def test_what_is_not_there_is_not_found():
    async with Cluster() as cluster:
        for resource, name, namespace in ((PODS, "none", "default"), (NODES, "none", "")):
            with pytest.raises(ApiError) as refused:
                await cluster.client.get(resource, name, namespace)
            assert refused.value.code == 404
            assert refused.value.message == f'{resource} "none" not found'


async def test_a_node_that_does_not_answer_is_left_out():
    async with Cluster(nodes=2) as cluster:
        await cluster.nodes["node-1"].stop()
        listed = await cluster.client.list(NODES)
        assert [i["metadata"]["name"] for i in listed["items"]] == ["node-2"]


async def test_it_is_found_by_discovery_and_shown_as_a_table():
    async with Cluster() as cluster:
        await cluster.client.create("pods", pod("a"), "default")
        await cluster.settle()
        found = await cluster.client.request("GET", "/apis/metrics.k8s.io/v1beta1")
        assert b'"PodMetrics"' in await read_body(found)
        row = cluster.client.row(PODS)
        table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        request = Request("GET", row.path("default"), "", table, user=ADMIN)
        body = orjson.loads(await read_body(await cluster.plane.server.handle(request)))
        assert [c["name"] for c in body["columnDefinitions"]] == ["Name", "cpu", "memory", "Window"]
        assert body["rows"][0]["cells"][:3] == ["a", "250m", "64Mi"]


async def test_an_autoscaler_follows_what_pods_use():
    async with Cluster(nodes=2) as cluster:
        template = {"metadata": {"labels": {"app": "w"}}, "spec": pod("x")["spec"]}
        template["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"}}
        template["metadata"]["annotations"] = {"sampan.dev/simulate": "cpu=200m"}
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": "w"}}, "template": template}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}, "spec": spec}
        await cluster.client.create("deployments.apps", deployment, "default")
        target = {"type": "Utilization", "averageUtilization": 50}
        hpa = {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "w"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"},
                "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
        }
        await cluster.client.create("horizontalpodautoscalers.autoscaling", hpa, "default")
        await cluster.settle()
        await cluster.advance(120)
        found = await cluster.client.get("deployments.apps", "w", "default")
        assert found["spec"]["replicas"] == 3
