"""Who is seen as the caller, and where traffic may go: traffic policies, masquerading, health checks of load balancers."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Kubectl, eventually
from traffic import INSIDE, SILENT, TCP, UDP, Net, Outside, balancer, node_ip, node_port, server_pod

Make = Callable[..., dict[str, Any]]
BRIEF = 0.4  # seconds after which silence is taken for an answer


def nodes(kubectl: Kubectl) -> dict[str, str]:
    return {node["metadata"]["name"]: node_ip(node) for node in kubectl.items("nodes")}


def machine_ip(kubectl: Kubectl) -> str:
    """Of the machine among the nodes: what the Service `kubernetes` leads to."""
    return kubectl("get endpoints kubernetes -n default -o jsonpath={.subsets[0].addresses[0].ip}")


@pytest.fixture
def web_on_1(net: Net, kubectl: Kubectl) -> str:
    """A server on node-1 alone; its label app."""
    kubectl.apply(server_pod("single", "node-1", {"app": "single"}))
    kubectl.wait("pod/single")
    net.learn()
    return "single"


def test_pods_see_each_others_addresses(net: Net) -> None:
    for source in ("client-1", "client-2"):
        for target in ("web-1", "web-2", "web-3"):
            for protocol, port in (("TCP", TCP), ("UDP", UDP)):
                assert net.prober(source).ask(net.ip(target), port, protocol) == f"{target} {net.ip(source)}"


def test_nodes_and_machine_reach_pods_and_pods_reach_them(
    net: Net, kubectl: Kubectl, machine_server: int
) -> None:
    addresses = nodes(kubectl)
    assert net.prober("host").ask(net.ip("web-3"), TCP) == f"web-3 {machine_ip(kubectl)}"
    for number in (1, 3):
        assert (
            net.prober(f"host-{number}").ask(net.ip("web-3"), TCP) == f"web-3 {addresses[f'node-{number}']}"
        )
    assert net.prober("client-2").ask(machine_ip(kubectl), machine_server) == f"machine {net.ip('client-2')}"


def test_cluster_ip_keeps_the_source(net: Net, service: Make) -> None:
    address = service()["spec"]["clusterIP"]
    prober = net.prober("client-1")
    prober.reaches(address, 80, ("web-1", "web-2", "web-3"))
    for _ in range(6):
        assert prober.ask(address, 80).split()[1] == net.ip("client-1")


def test_node_ports_of_policy_cluster_masquerade(
    net: Net, kubectl: Kubectl, service: Make, web_on_1: str
) -> None:
    port = node_port(service(type="NodePort", selector={"app": web_on_1}))
    addresses = nodes(kubectl)
    prober = net.prober("host")
    prober.reaches(addresses["node-2"], port, ["single"])
    assert prober.ask(addresses["node-2"], port) == f"single {addresses['node-2']}"


def test_external_policy_local(net: Net, kubectl: Kubectl, service: Make, web_on_1: str) -> None:
    made = service(type="LoadBalancer", externalTrafficPolicy="Local", selector={"app": web_on_1})
    port, addresses, machine = node_port(made), nodes(kubectl), machine_ip(kubectl)
    prober = net.prober("host")
    prober.reaches(addresses["node-1"], port, ["single"])
    assert prober.ask(addresses["node-1"], port) == f"single {machine}"
    prober.settles(addresses["node-2"], port, SILENT, timeout=BRIEF)
    prober.reaches(balancer(made), 80, ["single"])
    assert prober.ask(balancer(made), 80) == f"single {machine}"
    # Inside the cluster the policy does not bind.
    for name in ("client-2", "host-2"):
        net.prober(name).settles(addresses["node-2"], port, "single")
        net.prober(name).settles(balancer(made), 80, "single")
        net.prober(name).settles(made["spec"]["clusterIP"], 80, "single")


def test_external_policy_local_follows_the_pod(net: Net, kubectl: Kubectl, service: Make) -> None:
    made = service(type="NodePort", externalTrafficPolicy="Local", selector={"app": "wanderer"})
    port, addresses = node_port(made), nodes(kubectl)
    for number in (1, 2):
        kubectl.apply(server_pod("wanderer", f"node-{number}", {"app": "wanderer"}))
        kubectl.wait("pod/wanderer")
        net.prober("host").reaches(addresses[f"node-{number}"], port, ["wanderer"])
        net.prober("host").settles(addresses[f"node-{3 - number}"], port, SILENT, timeout=BRIEF)
        kubectl("delete pod wanderer --now")


def test_internal_policy_local(net: Net, kubectl: Kubectl, service: Make, web_on_1: str) -> None:
    everywhere = service(internalTrafficPolicy="Local")["spec"]["clusterIP"]
    for number in (1, 2, 3):
        for name in (f"client-{number}", f"host-{number}"):
            net.prober(name).reaches(everywhere, 80, [f"web-{number}"])
    one = net.service("only-on-1", internalTrafficPolicy="Local", selector={"app": web_on_1})["spec"][
        "clusterIP"
    ]
    net.prober("client-1").reaches(one, 80, ["single"])
    net.prober("client-2").settles(one, 80, SILENT, timeout=BRIEF)


def test_health_check_node_port(net: Net, kubectl: Kubectl, service: Make, web_on_1: str) -> None:
    """What a load balancer asks every node: are there endpoints of this Service on you?"""
    made = service(type="LoadBalancer", externalTrafficPolicy="Local", selector={"app": web_on_1})
    port, addresses = made["spec"]["healthCheckNodePort"], nodes(kubectl)

    def check(node: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://{addresses[node]}:{port}/", timeout=2) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError as error:
            return 0, str(error)

    name = {"namespace": "net", "name": made["metadata"]["name"]}
    eventually(lambda: check("node-1")[0] == 200, "node-1 is healthy")
    assert check("node-1")[1] == {"service": name, "localEndpoints": 1, "serviceProxyHealthy": True}
    none = (503, {"service": name, "localEndpoints": 0, "serviceProxyHealthy": True})
    eventually(lambda: check("node-2") == none, "node-2 has none")
    kubectl("delete pod single --now")
    eventually(lambda: check("node-1")[0] == 503, "node-1 has none left")
    kubectl(f"delete service {name['name']}")
    eventually(lambda: check("node-1")[0] == 0, "nobody listens any more")


# Out of the cluster


@pytest.fixture
def machine_server() -> Iterator[int]:
    """A server on the machine; its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", INSIDE, "serve", "machine", "0", "0"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    yield int(process.stdout.readline().split()[1])
    process.kill()
    process.wait()


def test_pods_reach_the_world_when_the_machine_does(net: Net, outside: Outside) -> None:
    for name in ("client-1", "client-3", "host-2", "host"):
        for protocol, port in (("TCP", 8080), ("UDP", 8053)):
            assert net.prober(name).ask(outside.ip, port, protocol) == f"world {outside.machine}", name


def test_the_world_reaches_services_through_the_machine(
    net: Net, service: Make, outside: Outside, web_on_1: str
) -> None:
    """At the machine's own address by node port, and at a load balancer's if it has a way there."""
    made = service(type="LoadBalancer")
    for address, port in ((outside.machine, node_port(made)), (balancer(made), 80)):
        outside.prober.reaches(address, port, ("web-1", "web-2", "web-3"))
    local = {"externalTrafficPolicy": "Local", "selector": {"app": web_on_1}}
    made = net.service("kept", type="LoadBalancer", **local)
    for address, port in ((outside.machine, node_port(made)), (balancer(made), 80)):
        outside.prober.reaches(address, port, ["single"])
        assert outside.prober.ask(address, port) == f"single {outside.ip}"
    made = net.service("shut", type="LoadBalancer", loadBalancerSourceRanges=["203.0.113.0/24"])
    outside.prober.settles(balancer(made), 80, SILENT, timeout=BRIEF)
    made = net.service("ranged", type="LoadBalancer", loadBalancerSourceRanges=[f"{outside.ip}/32"])
    outside.prober.reaches(balancer(made), 80, ("web-1", "web-2", "web-3"))


def test_big_packets_pass_between_nodes(net: Net) -> None:
    for source, target in (("client-1", "web-1"), ("client-1", "web-2"), ("host", "web-3")):
        assert (
            net.prober(source).order("send_big", address=net.ip(target), port=TCP, size=5_000_000)
            == 5_000_000
        )
