"""A rolling update under load, over every type of Service and from everywhere: no request is lost."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Kubectl, eventually
from traffic import Net, balancer, node_ip, node_port, server_pod, service_object

KINDS = ["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer Local", "headless", "UDP"]


def deployment(version: str) -> dict[str, Any]:
    container = server_pod("x")["spec"]["containers"][0]
    container["command"][5] = version
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "rolled"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "rolled"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {"app": "rolled"}},
                "spec": {
                    "terminationGracePeriodSeconds": 10,
                    "containers": [container],
                },
            },
        },
    }


def target(net: Net, kubectl: Kubectl, kind: str) -> dict[str, Any]:
    """Where the load goes."""
    spec: dict[str, Any] = {"selector": {"app": "rolled"}}
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    if kind == "headless":
        kubectl.apply(service_object("rolled", [{"name": "http", "port": 8080}], clusterIP="None", **spec))
        return {"name": "rolled.net.svc.cluster.local", "port": 8080}
    if kind == "UDP":
        ports = [{"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"}]
        made = net.service("rolled", ports, **spec)
        return {"address": made["spec"]["clusterIP"], "port": 53, "protocol": "UDP"}
    kind, _, policy = kind.partition(" ")
    made = net.service(
        "rolled", ports, type=kind, **spec, **({"externalTrafficPolicy": policy} if policy else {})
    )
    if kind == "NodePort":
        return {"address": node_ip(kubectl.items("nodes")[0]), "port": node_port(made)}
    return {"address": balancer(made) if kind == "LoadBalancer" else made["spec"]["clusterIP"], "port": 80}


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_is_lost(net: Net, kubectl: Kubectl, kind: str) -> None:
    kubectl.apply(deployment("v1"))
    kubectl("rollout status deployment/rolled --timeout=60s")
    where = target(net, kubectl, kind)
    # Only pods resolve the cluster's names.
    names = ("client-1", "client-2") if kind == "headless" else ("client-1", "host-2", "host")
    probers = [net.prober(name) for name in names]
    for prober in probers:
        if "address" in where:
            prober.settles(**where, answer="v1")
        else:
            eventually(lambda prober=prober: len(prober.order("resolve", name=where["name"])) == 4, "names")
        prober.order("load", key="roll", timeout=5, pause=0.01, **where)
    kubectl.apply(deployment("v2"))
    kubectl("rollout status deployment/rolled --timeout=90s")
    if "address" in where:
        for prober in probers:
            prober.reaches(where["address"], where["port"], ["v2"], where.get("protocol", "TCP"))
    for prober in probers:
        result = prober.order("loaded", key="roll")
        assert result["errors"] == [], (prober.name, result)
        assert {answer.split()[0] for answer in result["answers"]} == {"v1", "v2"}
        assert sum(result["answers"].values()) > 20
