"""A node that stops: it turns NotReady, its pods come back elsewhere, and it returns clean.

The cluster of these tests misses a node after 4 s and moves its pods 2 s later (flags of `sampan up`).
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from harness import Cluster, Kubectl, deployment, eventually, server


@contextmanager
def stopped(cluster: Cluster, kubectl: Kubectl, node: str) -> Iterator[None]:
    """The node has lost its power within the block; it is Ready again afterwards."""
    cluster.sampan(f"node stop {node}")
    try:
        yield
    finally:
        cluster.sampan(f"node start {node}")
        kubectl.wait(f"node/{node}")
        eventually(lambda: "taints" not in kubectl.get(f"node {node}")["spec"], "no taint left")


def running_on(kubectl: Kubectl, node: str) -> list[str]:
    pods = kubectl.items(f"pods -l app=web --field-selector spec.nodeName={node}")
    return [p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"]]


def ready(kubectl: Kubectl) -> int:
    return kubectl.get("deployment web")["status"].get("readyReplicas", 0)


def test_pods_come_back_elsewhere(kubectl: Kubectl, cluster: Cluster) -> None:
    kubectl.apply(deployment("web", replicas=4))
    kubectl("rollout status deployment/web --timeout=60s")
    kubectl("expose deployment web --port=80 --target-port=8080")
    lost = running_on(kubectl, "node-2")
    assert len(lost) == 2
    with stopped(cluster, kubectl, "node-2"):
        kubectl.wait("node/node-2", "condition=Ready=Unknown")
        assert kubectl("get node node-2 --no-headers").split()[1] == "NotReady"
        assert "NodeStatusUnknown" in kubectl("describe node node-2")
        taints = eventually(lambda: kubectl.get("node node-2")["spec"].get("taints"), "its taints")
        assert ("node.kubernetes.io/unreachable", "NoExecute") in [(t["key"], t["effect"]) for t in taints]
        eventually(
            lambda: len(running_on(kubectl, "node-1")) == 4 and ready(kubectl) == 4, "four pods on node-1"
        )
        for name in lost:  # nobody can tell whether they still run
            assert kubectl(f"get pod {name} --no-headers").split()[2] == "Terminating"
        slices = "get endpointslices -l kubernetes.io/service-name=web -o json"
        eventually(lambda: kubectl(slices).count('"ready": true') == 4, "four endpoints")
        address = kubectl("get service web -o jsonpath={.spec.clusterIP}")
        ask = lambda: urllib.request.urlopen(f"http://{address}", timeout=5).status == 200  # noqa: E731
        eventually(lambda: all(ask() for _ in range(8)), "the Service leads to none that is lost")
        assert "NodeNotReady" in kubectl("get events -A --field-selector involvedObject.name=node-2")
    kubectl.wait(" ".join(f"pod/{name}" for name in lost), "delete")
    assert len(kubectl.items("pods -l app=web")) == 4


def test_the_node_comes_back_clean(kubectl: Kubectl, cluster: Cluster) -> None:
    """New pods run on it, with an address of its range; an old pod it still had is started anew, not doubled."""
    stays = {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "node-2"}}
    kubectl.run_pod("loyal", stays | {"containers": [server()]})
    uid = kubectl("get pod loyal -o jsonpath={.metadata.uid}")
    with stopped(cluster, kubectl, "node-2"):
        kubectl.wait("node/node-2", "condition=Ready=Unknown")
        kubectl.wait("pod/loyal", "condition=Ready=False")
    kubectl.wait("pod/loyal")
    loyal = kubectl.get("pod loyal")
    assert loyal["metadata"]["uid"] == uid and loyal["status"]["containerStatuses"][0]["restartCount"] >= 1
    address = loyal["status"]["podIP"]
    eventually(lambda: urllib.request.urlopen(f"http://{address}:8080", timeout=5).read() == b"loyal\n")
    kubectl.run_pod("guest", {"nodeName": "node-2", "containers": [server()]})
    prefix = kubectl("get node node-2 -o jsonpath={.spec.podCIDR}").rpartition(".")[0]
    assert kubectl("get pod guest -o jsonpath={.status.podIP}").startswith(prefix)


def test_a_short_absence_is_forgiven(kubectl: Kubectl, cluster: Cluster) -> None:
    """A node that is back before its pods' patience with it ends keeps them."""
    patience = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    patient = [{"key": f"node.kubernetes.io/{state}", **patience} for state in ("unreachable", "not-ready")]
    kubectl.apply(deployment("web", replicas=2, pod={"tolerations": patient}))
    kubectl("rollout status deployment/web --timeout=60s")
    before = {p["metadata"]["name"]: p["metadata"]["uid"] for p in kubectl.items("pods -l app=web")}
    cluster.sampan("node stop node-2")
    cluster.sampan("node start node-2")
    eventually(lambda: ready(kubectl) == 2 and running_on(kubectl, "node-2"))
    assert {p["metadata"]["name"]: p["metadata"]["uid"] for p in kubectl.items("pods -l app=web")} == before


def test_nodes_are_added_and_deleted(kubectl: Kubectl, cluster: Cluster) -> None:
    cluster.sampan("node add extra")
    try:
        assert "already has a node" in cluster.run("node add extra").stderr
        kubectl.wait("node/extra", "create")
        kubectl.wait("node/extra")
        kubectl.run_pod("guest", {"nodeName": "extra", "containers": [server()]})
        address = kubectl("get pod guest -o jsonpath={.status.podIP}")
        kubectl.run_pod("client", {"nodeName": "node-1", "containers": [server()]})
        assert kubectl(f"exec client -- curl -sS --max-time 5 {address}:8080") == "guest\n"
    finally:
        cluster.sampan("node delete extra")
    assert "not found" in kubectl.refused("get node extra")
    kubectl.wait("pod/guest", "delete")
    assert "has no node 'extra'" in cluster.run("node stop extra").stderr
