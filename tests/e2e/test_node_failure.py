"""A stopped node counts as lost, its pods come back elsewhere; when it returns it is clean."""

from __future__ import annotations

from typing import Any

from harness import Cluster, Kubectl, deployment, eventually


def pods_on(kubectl: Kubectl, node: str) -> list[Any]:
    return [p for p in kubectl.items("pods") if p["spec"].get("nodeName") == node]


def is_ready(pod: Any) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def taints(kubectl: Kubectl, node: str) -> set[tuple[str, str]]:
    return {(t["key"], t["effect"]) for t in kubectl.get(f"node/{node}")["spec"].get("taints", [])}


def test_a_lost_node(cluster: Cluster, kubectl: Kubectl) -> None:
    spread = [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}]
    for constraint in spread:
        constraint["labelSelector"] = {"matchLabels": {"app": "web"}}
    kubectl.apply(deployment("web", replicas=4, pod={"topologySpreadConstraints": spread}))
    kubectl("rollout status deployment/web --timeout=60s")
    assert pods_on(kubectl, "node-1") and pods_on(kubectl, "node-2")
    cluster.sampan("node stop node-2")
    try:
        kubectl("wait node/node-2 --for=condition=Ready=Unknown --timeout=60s")
        unreachable = "node.kubernetes.io/unreachable"
        eventually(
            lambda: {(unreachable, "NoExecute"), (unreachable, "NoSchedule")} <= taints(kubectl, "node-2"),
            "the node is tainted",
        )
        assert "NotReady" in kubectl("get node node-2")
        eventually(
            lambda: len([p for p in pods_on(kubectl, "node-1") if is_ready(p)]) == 4,
            "four ready pods on node-1",
        )
        assert all(p["metadata"].get("deletionTimestamp") for p in pods_on(kubectl, "node-2"))
    finally:
        cluster.sampan("node start node-2")
    kubectl("wait node/node-2 --for=condition=Ready --timeout=60s")
    eventually(lambda: not taints(kubectl, "node-2"), "the taints are gone")
    eventually(lambda: not pods_on(kubectl, "node-2"), "the old pods are gone")
    kubectl.apply(deployment("back", replicas=1, pod={"nodeName": "node-2"}))
    kubectl("rollout status deployment/back --timeout=60s")


def test_a_node_comes_and_goes(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.sampan("node add extra")
    kubectl.wait("node/extra", "create", 30)
    kubectl.wait("node/extra", "condition=Ready", 30)
    assert "already has a node" in cluster.run("node add extra").stderr
    cluster.sampan("node delete extra")
    assert "not found" in kubectl.refused("get node extra")
    assert "has no node" in cluster.run("node stop extra").stderr
