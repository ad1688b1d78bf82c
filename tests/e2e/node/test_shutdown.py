"""`sampan node stop --grace`: pods end in order and say why, then the node does."""

from __future__ import annotations

from harness import Cluster, Kubectl, eventually, pod, shell


def test_pods_end_before_their_node(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.sampan("node add brief")
    kubectl.wait("node/brief", "create")
    kubectl.wait("node/brief")
    try:
        slow = shell("trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done")
        stays = [{"operator": "Exists"}]  # else the taint of a node that is not ready ends it
        spec = {"nodeName": "brief", "containers": [slow], "tolerations": stays}
        kubectl.apply(pod("slow", spec | {"terminationGracePeriodSeconds": 20}))
        kubectl.wait("pod/slow")
        cluster.sampan("node stop brief --grace=20")
        status = kubectl.get("pod/slow")["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
        assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0, "it had its time"

        def not_ready() -> bool:
            (ready,) = [c for c in kubectl.get("node/brief")["status"]["conditions"] if c["type"] == "Ready"]
            return ready["status"] != "True"

        eventually(not_ready, "the node says so")
    finally:
        cluster.sampan("node delete brief")
