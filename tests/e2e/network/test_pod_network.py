"""Pods' own addresses and ports: everybody reaches everybody, host ports, addresses that are never given twice."""

from __future__ import annotations

import os
import signal
from typing import Any

from harness import Cluster, Kubectl, eventually
from traffic import ADMIN, REFUSED, TCP, UDP, Net, client_pod, node_ip, server_pod

NODES = ("node-1", "node-2", "node-3")


def nodes(kubectl: Kubectl) -> dict[str, str]:
    return {node["metadata"]["name"]: node_ip(node) for node in kubectl.items("nodes")}


def host_port(name: str, node: str, *ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return server_pod(name, node, {"app": name}, container={"ports": list(ports)}, **spec)


def test_every_pod_reaches_every_pod(net: Net) -> None:
    for source in ("client-1", "client-2", "client-3", "web-1", "host-1", "host"):
        prober = net.prober(source)
        targets = [
            {"address": net.ip(f"web-{i}"), "port": port, "protocol": protocol}
            for i in (1, 2, 3)
            for protocol, port in (("TCP", TCP), ("UDP", UDP))
        ]
        answers = [answer.split()[0] for answer in prober.order("matrix", targets=targets)]
        assert answers == ["web-1", "web-1", "web-2", "web-2", "web-3", "web-3"], source
    net.forget("web-1")


def test_pods_see_one_interface_with_their_own_address(net: Net, kubectl: Kubectl) -> None:
    text = kubectl("exec client-1 -- ip -o -4 addr show")
    assert f"{net.ip('client-1')}/32" in text
    assert "mtu 1500" in kubectl("exec client-1 -- ip link show eth0")


def test_host_ports(net: Net, kubectl: Kubectl) -> None:
    ports = (
        {"name": "http", "containerPort": TCP, "hostPort": 18099},
        {"name": "dns", "containerPort": UDP, "hostPort": 18053, "protocol": "UDP"},
    )
    kubectl.apply(host_port("doorman", "node-2", *ports))
    kubectl.wait("pod/doorman")
    addresses = nodes(kubectl)
    net.learn()
    assert kubectl("get pod doorman -o jsonpath={.status.podIP}") != addresses["node-2"]
    for name in ("client-1", "client-2", "host-2", "host-3", "host", "doorman"):
        net.prober(name).reaches(addresses["node-2"], 18099, ["doorman"])
        net.prober(name).reaches(addresses["node-2"], 18053, ["doorman"], "UDP")
    machine = kubectl("get endpoints kubernetes -n default -o jsonpath={.subsets[0].addresses[0].ip}")
    assert net.prober("host").ask(addresses["node-2"], 18099) == f"doorman {machine}"
    assert net.prober("client-1").ask(addresses["node-2"], 18099) == f"doorman {net.ip('client-1')}"
    assert net.prober("host").ask(addresses["node-1"], 18099) == REFUSED
    net.forget("doorman")
    kubectl("delete pod doorman --now")
    net.prober("host").settles(addresses["node-2"], 18099, REFUSED)


def test_host_ip_of_a_host_port(net: Net, kubectl: Kubectl) -> None:
    addresses = nodes(kubectl)
    port = {"name": "http", "containerPort": TCP, "hostPort": 18100, "hostIP": addresses["node-1"]}
    elsewhere = {"name": "admin", "containerPort": ADMIN, "hostPort": 18101, "hostIP": "192.0.2.250"}
    kubectl.apply(host_port("picky", "node-1", port, elsewhere))
    kubectl.wait("pod/picky")
    net.prober("host").reaches(addresses["node-1"], 18100, ["picky"])
    assert net.prober("host").ask(addresses["node-1"], 18101) == REFUSED


def test_a_host_port_of_loopback(net: Net, kubectl: Kubectl) -> None:
    """From the node itself, and from nowhere else."""
    port = {"name": "http", "containerPort": TCP, "hostPort": 18104, "hostIP": "127.0.0.1"}
    kubectl.apply(host_port("private", "node-1", port))
    kubectl.wait("pod/private")
    net.prober("host-1").reaches("127.0.0.1", 18104, ["private"])
    assert net.prober("host").ask(nodes(kubectl)["node-1"], 18104) == REFUSED
    assert net.prober("client-1").ask(nodes(kubectl)["node-1"], 18104) == REFUSED


def test_a_host_port_is_had_by_one_pod_of_a_node(net: Net, kubectl: Kubectl) -> None:
    port = {"containerPort": TCP, "hostPort": 18102}
    template = host_port("x", "", port)
    kubectl.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "crowded"},
            "spec": {
                "replicas": 4,
                "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": {"app": "x"}}, "spec": template["spec"]},
            },
        }
    )
    kubectl.wait("deployment/crowded", "jsonpath={.status.readyReplicas}=3")
    pods = kubectl.items("pods -l app=x")
    placed = [pod["spec"].get("nodeName", "") for pod in pods]
    assert sorted(placed) == ["", *NODES]
    (pending,) = [pod for pod in pods if not pod["spec"].get("nodeName")]
    eventually(
        lambda: "free ports" in kubectl.events_of(pending["metadata"]["name"]), "the scheduler says why"
    )


def test_addresses_are_not_doubled_when_the_agent_is_killed(
    net: Net, kubectl: Kubectl, cluster: Cluster
) -> None:
    port = {"name": "http", "containerPort": TCP, "hostPort": 18103}
    kubectl.apply(host_port("veteran", "node-1", port))
    kubectl.wait("pod/veteran")
    address = nodes(kubectl)["node-1"]
    prober = net.prober("client-2")
    prober.reaches(address, 18103, ["veteran"])
    prober.order("load", key="veteran", address=address, port=18103)
    before = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in kubectl.items("pods")}
    for attempt in range(3):
        names = [f"recruit-{attempt}-{i}" for i in range(4)]
        kubectl.apply(*(client_pod(name, "node-1") for name in names))
        (agent,) = [pid for pid in cluster.processes("sampan.cluster.agent") if is_of(pid, "node-1")]
        os.kill(agent, signal.SIGKILL)
        kubectl.wait("pods --all")
    pods = kubectl.items("pods")
    after = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}
    own = [ip for pod in pods if not pod["spec"].get("hostNetwork") for ip in [pod["status"]["podIP"]]]
    assert len(own) == len(set(own))
    assert {name: after[name] for name in before} == before
    net.forget("client-1")
    net.forget("host-1")
    result = prober.order("loaded", key="veteran")
    assert result["errors"] == [], "the host port was open all the time"


def is_of(pid: int, node: str) -> bool:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().rstrip(b"\0").split(b"\0")[-1] == node.encode()
