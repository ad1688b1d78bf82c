"""Static pods: a file in a node's manifest directory runs there, the API only shows it."""

from __future__ import annotations

import json

from harness import Cluster, Kubectl, eventually, pod


def test_a_file_becomes_a_pod_and_its_mirror(cluster: Cluster, kubectl: Kubectl) -> None:
    directory = cluster.data / "nodes" / "node-1" / "manifests"
    manifest = pod("agent", "echo from a file; sleep infinity", namespace=kubectl.namespace)
    file = directory / "agent.json"
    file.write_text(json.dumps(manifest))
    try:
        kubectl.wait("pod/agent-node-1", "create")
        kubectl.wait("pod/agent-node-1")
        eventually(lambda: "from a file" in kubectl("logs agent-node-1"))
        assert "agent-node-1" in kubectl("exec agent-node-1 -- hostname")
        first = kubectl.get("pod/agent-node-1")
        kubectl("delete pod agent-node-1 --grace-period=0 --force")

        def again() -> bool:
            found = kubectl.run("get pod agent-node-1 -o json")
            return (
                found.returncode == 0
                and json.loads(found.stdout)["metadata"]["uid"] != first["metadata"]["uid"]
            )

        eventually(again, "another mirror")
        kubectl.wait("pod/agent-node-1")
        container = kubectl.get("pod/agent-node-1")["status"]["containerStatuses"][0]["containerID"]
        assert container == first["status"]["containerStatuses"][0]["containerID"], "it ran on"
    finally:
        file.unlink()
    kubectl.wait("pod/agent-node-1", "delete")


def test_a_node_refuses_what_it_has_no_room_for(kubectl: Kubectl) -> None:
    spec = {"nodeName": "node-1", "containers": [{"resources": {"requests": {"cpu": "1000"}}}]}
    kubectl.apply(pod("large", spec))
    status = kubectl.phase("large", "Failed")["status"]
    assert status["reason"] == "OutOfcpu"
    assert "Node didn't have enough resource: cpu, requested: 1000000" in status["message"]
    assert kubectl("get pod large --no-headers").split()[2] == "OutOfcpu"
