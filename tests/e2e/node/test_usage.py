"""What pods use: `kubectl top`, and the limits of local storage that cost a pod its place."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from typing import Any

from harness import Kubectl, eventually, shell


def test_top_shows_what_pods_and_nodes_use(kubectl: Kubectl) -> None:
    kubectl.run_pod("busy", "while :; do :; done")
    kubectl.run_pod("idle")

    def rows(what: str) -> dict[str, list[str]]:
        lines = kubectl(f"top {what} --no-headers").splitlines()
        return {line.split()[0]: line.split() for line in lines}

    def busy() -> bool:
        used = rows("pods")
        return int(used["busy"][1].removesuffix("m")) > 50 + int(used["idle"][1].removesuffix("m"))

    eventually(busy, "busy uses a processor")
    nodes = rows("nodes")
    assert len(nodes) == 2
    assert all(re.fullmatch(r"\d+m", row[1]) and re.fullmatch(r"\d+Mi", row[3]) for row in nodes.values())
    assert "busy" in kubectl("get pods.metrics.k8s.io")
    (container,) = kubectl.get("podmetrics/busy")["containers"]
    assert container["name"] == "main" and container["usage"]["memory"].endswith("Ki")


def test_a_pod_that_fills_its_volume_beyond_the_limit_is_evicted(kubectl: Kubectl) -> None:
    fill = "dd if=/dev/zero of=/data/file bs=1M count=8 2>/dev/null; sleep infinity"
    writes = shell(fill, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    volume = {"name": "data", "emptyDir": {"sizeLimit": "4Mi"}}
    kubectl.run_pod("full", {"containers": [writes], "volumes": [volume]})
    status = kubectl.phase("full", "Failed")["status"]
    assert status["reason"] == "Evicted"
    assert status["message"] == 'Usage of EmptyDir volume "data" exceeds the limit "4Mi". '
    assert any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in status["conditions"])
    assert "Evicted" in kubectl.events_of("full")


def test_a_container_that_writes_beyond_its_limit_is_evicted(kubectl: Kubectl) -> None:
    fill = "dd if=/dev/zero of=/tmp/file bs=1M count=8 2>/dev/null; sleep infinity"
    limits = {"limits": {"ephemeral-storage": "4Mi"}}
    kubectl.run_pod(
        "full", {"containers": [shell(fill, resources=limits), {"name": "x", **shell("sleep infinity")}]}
    )
    status = kubectl.phase("full", "Failed")["status"]
    assert status["message"] == 'Container main exceeded its local ephemeral storage limit "4Mi". '


def test_what_a_node_serves_through_the_server(kubectl: Kubectl) -> None:
    kubectl.run_pod("seen", {"nodeName": "node-1", "containers": [shell("echo words; sleep infinity")]})
    raw = "get --raw /api/v1/nodes/node-1/proxy"
    assert "node-1.log" in kubectl(f"{raw}/logs/")
    assert "node-1.log" not in kubectl("get --raw /api/v1/nodes/node-2/proxy/logs/")
    assert kubectl.namespace in kubectl(f"{raw}/logs/pods/")
    assert "node is up" in kubectl(f"{raw}/logs/?query=kubelet")
    summary = json.loads(kubectl(f"{raw}/stats/summary"))
    assert summary["node"]["fs"]["capacityBytes"] > summary["node"]["fs"]["availableBytes"] > 0
    assert summary["node"]["network"]["rxBytes"] > 0
    assert 'pod="seen"' in kubectl(f"{raw}/metrics/cadvisor")
    assert kubectl(f"{raw}/healthz") == "ok"


def test_a_pods_summary_tells_of_memory_disk_volumes_and_network(kubectl: Kubectl) -> None:
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}})
    writes = "head -c 3000000 /dev/zero >/tmp/own; head -c 2000000 /dev/zero >/data/file; echo words; sleep infinity"
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "map", "mountPath": "/map"}]
    main = shell(writes, volumeMounts=mounts, resources={"limits": {"memory": "64Mi"}})
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "map", "configMap": {"name": "c"}}]
    kubectl.run_pod("full", {"containers": [main], "volumes": volumes})
    node = kubectl.get("pod/full")["spec"]["nodeName"]

    def own() -> Any:
        summary = json.loads(kubectl(f"get --raw /api/v1/nodes/{node}/proxy/stats/summary"))
        found = [p for p in summary["pods"] if p["podRef"]["namespace"] == kubectl.namespace][0]
        assert found["ephemeral-storage"]["usedBytes"] > 5_000_000
        assert found["containers"][0]["logs"]["usedBytes"] > 0, "it has written all, and then said so"
        return found

    found = eventually(own)
    (container,) = found["containers"]
    assert 3_000_000 <= container["rootfs"]["usedBytes"] < 4_000_000
    assert container["logs"]["capacityBytes"] > 0
    for part in (container, found):
        assert 0 < part["memory"]["availableBytes"] < 64 << 20 and part["memory"]["pageFaults"] > 0
    by_name = {volume["name"]: volume for volume in found["volume"]}
    assert 2_000_000 <= by_name["data"]["usedBytes"] < 3_000_000
    assert by_name["map"]["inodesUsed"] > 0 and len(by_name) == 3, "the account's token is the third"
    assert found["network"]["name"] == "eth0" and found["network"]["txBytes"] > 0


def test_monitoring_reads_a_node_with_its_token(kubectl: Kubectl) -> None:
    """As Prometheus does: straight from the node's port, with rights on nodes/metrics."""
    address = kubectl.get("node/node-1")["status"]["addresses"][0]["address"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask(path: str, token: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"https://{address}:10250{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    name = kubectl.namespace
    kubectl("create serviceaccount prometheus")
    kubectl(f"create clusterrole {name} --verb=get --resource=nodes/metrics")
    kubectl(f"create clusterrolebinding {name} --clusterrole={name} --serviceaccount={name}:prometheus")
    try:
        token = kubectl("create token prometheus").strip()
        assert ask("/metrics/resource") == (401, "Unauthorized")
        status, page = ask("/metrics/resource", token)
        assert status == 200 and "node_cpu_usage_seconds_total" in page
        status, said = ask("/pods", token)
        who = f"system:serviceaccount:{name}:prometheus"
        assert status == 403 and said.startswith(f"Forbidden (user={who}, verb=get, resource=nodes, ")
    finally:
        kubectl(f"delete clusterrolebinding,clusterrole {name}")
