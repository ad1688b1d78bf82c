"""Clusters of two IP versions, and of IPv6 alone, with real packets on three nodes; pods through vxlan, and by plain routes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.reversename
import pytest
from harness import Cluster, Kubectl, Traces, eventually
from traffic import (
    ADMIN,
    REFUSED,
    SILENT,
    TCP,
    UDP,
    Net,
    Outside,
    agent_of,
    balancers,
    client_pod,
    in_node,
    node_ips,
    node_port,
    server_pod,
)

ALL = ("web-1", "web-2", "web-3")
BRIEF = 0.4
SETUPS = {
    "dual": ("--ip-family=dual --pod-network=vxlan", ("IPv4", "IPv6")),
    "ipv6": ("--ip-family=ipv6", ("IPv6",)),
}
HTTP = {"name": "http", "port": 80, "targetPort": "http"}
DNS = {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"}


@pytest.fixture(scope="module", params=list(SETUPS))
def families(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return SETUPS[request.param][1]


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, families: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    name, (flags, _) = next(item for item in SETUPS.items() if item[1][1] == families)
    cluster = Cluster(f"{name}-{os.getpid()}", tmp_path_factory.mktemp(name))
    traces = Traces(cluster)
    assert traces.found() == {}
    try:
        cluster.up("--nodes=3", flags)
        yield cluster
        complaints = cluster.complaints()
    finally:
        cluster.sampan("down")
    assert traces.found() == {}, "left behind by `sampan down`"
    assert complaints == "", "the cluster's processes met something they did not expect"


@pytest.fixture(scope="module")
def inhabitants(cluster: Cluster) -> Iterator[Net]:
    net = Net(cluster.kubectl("net"))
    net.build()
    yield net
    net.close()


def family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def both(made: dict[str, Any], families: tuple[str, ...]) -> list[str]:
    """A Service's addresses, which are of these families."""
    found = made["spec"]["clusterIPs"]
    assert [family(address) for address in found] == made["spec"]["ipFamilies"] == list(families)
    return found


def test_addresses_of_nodes_and_pods(net: Net, kubectl: Kubectl, families: tuple[str, ...]) -> None:
    wanted = list(families)
    for node in kubectl.items("nodes"):
        assert [family(ip) for ip in node_ips(node)] == wanted
        assert [family(cidr) for cidr in node["spec"]["podCIDRs"]] == wanted
    for pod in kubectl.items("pods"):
        for field in ("podIPs", "hostIPs"):
            assert [family(entry["ip"]) for entry in pod["status"][field]] == wanted
        assert pod["status"]["podIP"] == pod["status"]["podIPs"][0]["ip"]
    text = kubectl("exec client-1 -- ip -o addr show dev eth0")
    assert all(f" {ip}/" in text for ip in net.ips["client-1"])


def test_every_pod_reaches_every_pod(net: Net) -> None:
    for source in ("client-1", "client-2", "host-1", "host-3", "host"):
        for web in ALL:
            for version, address in enumerate(net.ips[web]):
                for protocol, port in (("TCP", TCP), ("UDP", UDP)):
                    answer = net.prober(source).ask(address, port, protocol)
                    assert answer.split()[0] == web, f"{source} -> {web} {address} {protocol}: {answer}"
                    if source.startswith("client"):
                        assert answer.split()[1] == net.ips[source][version]


def test_big_packets_pass(net: Net) -> None:
    for source in ("client-1", "host-2", "host"):
        for address in net.ips["web-3"]:
            order = {"address": address, "port": TCP, "size": 5_000_000}
            assert net.prober(source).order("send_big", **order) == 5_000_000


def test_cluster_ips(net: Net, service: Any, families: tuple[str, ...]) -> None:
    made = service(HTTP, DNS, ipFamilyPolicy="PreferDualStack")
    for address in both(made, families):
        for prober in net.everywhere:
            prober.reaches(address, 80, ALL)
            prober.reaches(address, 53, ALL, "UDP")
            assert prober.ask(address, 82) == REFUSED


def test_a_service_of_the_second_family(net: Net, service: Any, families: tuple[str, ...]) -> None:
    made = service(ipFamilies=[families[-1]])
    assert made["spec"]["ipFamilyPolicy"] == "SingleStack"
    (address,) = both(made, families[-1:])
    for prober in net.everywhere:
        prober.reaches(address, 80, ALL)


def test_slices_of_each_family(net: Net, kubectl: Kubectl, service: Any, families: tuple[str, ...]) -> None:
    name = service(ipFamilyPolicy="PreferDualStack")["metadata"]["name"]
    query = f"endpointslices -l kubernetes.io/service-name={name}"
    eventually(lambda: sorted(s["addressType"] for s in kubectl.items(query)) == sorted(families), "slices")
    for item in kubectl.items(query):
        position = families.index(item["addressType"])
        found = sorted(endpoint["addresses"][0] for endpoint in item["endpoints"])
        assert found == sorted(net.ips[web][position] for web in ALL)


def test_a_service_that_becomes_dual_and_single_again(
    net: Net, kubectl: Kubectl, service: Any, families: tuple[str, ...]
) -> None:
    if len(families) == 1:
        made = service()
        patch = """-p '{"spec":{"ipFamilyPolicy":"RequireDualStack"}}'"""
        text = kubectl.refused(f"patch service {made['metadata']['name']} {patch}")
        assert "this cluster is not configured for dual-stack services" in text
        return
    name = service(type="NodePort")["metadata"]["name"]
    kubectl(f"""patch service {name} -p '{{"spec":{{"ipFamilyPolicy":"RequireDualStack"}}}}'""")
    made = kubectl.get(f"service/{name}")
    first, second = both(made, families)
    net.prober("client-1").reaches(second, 80, ALL)
    kubectl(f"""patch service {name} -p '{{"spec":{{"ipFamilyPolicy":"SingleStack"}}}}'""")
    assert both(kubectl.get(f"service/{name}"), families[:1]) == [first]
    net.prober("client-1").settles(second, 80, REFUSED)
    net.prober("client-1").reaches(first, 80, ALL)


def test_node_ports_and_load_balancers(
    net: Net, kubectl: Kubectl, service: Any, families: tuple[str, ...]
) -> None:
    made = service(type="LoadBalancer", ipFamilyPolicy="PreferDualStack")
    assert [family(address) for address in balancers(made)] == list(families)
    second = node_ips(kubectl.items("nodes")[1])
    for prober in net.everywhere:
        for address in balancers(made):
            prober.reaches(address, 80, ALL)
        for address in second:
            prober.reaches(address, node_port(made), ALL)


def test_local_policy_keeps_the_source(
    net: Net, kubectl: Kubectl, service: Any, families: tuple[str, ...]
) -> None:
    kubectl.apply(server_pod("single", "node-1", {"app": "single"}))
    kubectl.wait("pod/single")
    made = service(
        type="NodePort",
        externalTrafficPolicy="Local",
        ipFamilyPolicy="PreferDualStack",
        selector={"app": "single"},
    )
    nodes = {node["metadata"]["name"]: node_ips(node) for node in kubectl.items("nodes")}
    host = net.prober("host")
    for version in range(len(families)):
        here, elsewhere = nodes["node-1"][version], nodes["node-2"][version]
        host.reaches(here, node_port(made), ["single"])
        source = host.ask(here, node_port(made)).split()[1]
        assert source not in nodes["node-1"] and source not in nodes["node-2"]
        host.settles(elsewhere, node_port(made), SILENT, timeout=BRIEF)


def test_affinity_hairpin_and_refusal(
    net: Net, kubectl: Kubectl, service: Any, families: tuple[str, ...]
) -> None:
    kubectl.apply(server_pod("alone", "node-2", {"app": "alone"}))
    kubectl.wait("pod/alone")
    spec = {"ipFamilyPolicy": "PreferDualStack"}
    for address in both(service(sessionAffinity="ClientIP", **spec), families):
        net.prober("client-2").reaches(address, 80, [net.prober("client-2").ask(address, 80).split()[0]])
    for address in both(net.service("alone", selector={"app": "alone"}, **spec), families):
        net.prober("alone").reaches(address, 80, ["alone"])
    for address in both(net.service("nobody", selector={"app": "nobody"}, **spec), families):
        for prober in net.everywhere:
            prober.settles(address, 80, REFUSED)
    net.forget("alone")


def test_udp_clients_are_moved(net: Net, kubectl: Kubectl, service: Any, families: tuple[str, ...]) -> None:
    kubectl.apply(server_pod("udp-1", "node-1", {"app": "udp"}))
    kubectl.wait("pod/udp-1")
    made = service(DNS, ipFamilyPolicy="PreferDualStack", selector={"app": "udp"})
    prober = net.prober("client-2")
    for address in both(made, families):
        prober.reaches(address, 53, ["udp-1"], "UDP")
        prober.order("open", key=address, address=address, port=53, protocol="UDP")
        assert prober.order("say", key=address).startswith("udp-1")
    kubectl.apply(server_pod("udp-2", "node-2", {"app": "udp"}))
    kubectl.wait("pod/udp-2")
    kubectl("delete pod udp-1 --wait=false")
    for address in made["spec"]["clusterIPs"]:
        eventually(lambda a=address: prober.order("say", key=a).startswith("udp-2"), address)
        prober.order("close", key=address)


def test_host_ports(net: Net, kubectl: Kubectl) -> None:
    ports = [{"name": "http", "containerPort": TCP, "hostPort": 18120}]
    kubectl.apply(server_pod("doorman", "node-2", container={"ports": ports}))
    kubectl.wait("pod/doorman")
    for address in node_ips(kubectl.items("nodes")[1]):
        for name in ("client-1", "client-2", "host-3", "host"):
            net.prober(name).reaches(address, 18120, ["doorman"])


def test_names_resolve_to_addresses_of_every_family(
    net: Net, kubectl: Kubectl, service: Any, families: tuple[str, ...]
) -> None:
    made = service(ipFamilyPolicy="PreferDualStack")
    full = f"{made['metadata']['name']}.net.svc.cluster.local"
    headless = net.service("headless", clusterIP="None", ipFamilyPolicy="PreferDualStack")
    assert headless["spec"]["ipFamilies"] == list(families)
    servers = kubectl.get("service/kube-dns -n kube-system")["spec"]["clusterIPs"]
    assert [family(server) for server in servers] == list(families)

    def found(prober: Any, server: str, name: str, kind: str) -> list[str]:
        return sorted(str(r) for rrset in prober.dns(server, name, kind).answer for r in rrset)

    for prober in (net.prober("client-1"), net.prober("host-3"), net.prober("host")):
        for server in servers:
            for kind, version in (("A", "IPv4"), ("AAAA", "IPv6")):
                own = [a for a in made["spec"]["clusterIPs"] if family(a) == version]
                ends = sorted(ip for web in ALL for ip in net.ips[web] if family(ip) == version)
                eventually(
                    lambda p=prober, s=server, k=kind, o=own: found(p, s, full, k) == o, f"{full} {kind}"
                )
                name = "headless.net.svc.cluster.local"
                eventually(lambda p=prober, s=server, n=name, k=kind, e=ends: found(p, s, n, k) == e, name)
            for address in made["spec"]["clusterIPs"]:
                assert found(prober, server, str(dns.reversename.from_address(address)), "PTR") == [
                    f"{full}."
                ]
    wanted, short = sorted(made["spec"]["clusterIPs"]), made["metadata"]["name"]
    other = net.prober("client-2")  # its node hears of the Service by itself
    eventually(lambda: other.order("resolve", name=short) == wanted, "through resolv.conf")


def test_policies_hold_for_every_family(net: Net, kubectl: Kubectl) -> None:
    """Nobody but client-1, by label and then by address."""
    blocks = [{"ipBlock": {"cidr": f"{ip}/{128 if ':' in ip else 32}"}} for ip in net.ips["client-1"]]
    rule = {"ports": [{"port": TCP}]}
    for peers in ([{"podSelector": {"matchLabels": {"only": "me"}}}], blocks):
        kubectl("label pod client-1 only=me --overwrite")
        kubectl.apply(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "closed"},
                "spec": {
                    "podSelector": {"matchLabels": {"app": "web"}},
                    "ingress": [{**rule, "from": peers}],
                },
            }
        )
        for address in (*net.ips["web-1"], *net.ips["web-2"]):
            net.prober("client-2").settles(address, TCP, SILENT, timeout=BRIEF)
            net.prober("client-1").settles(address, TCP, "web-1" if address in net.ips["web-1"] else "web-2")
            assert net.prober("client-1").ask(address, ADMIN, timeout=BRIEF) == SILENT
    kubectl("delete networkpolicy closed")
    kubectl("label pod client-1 only-")
    for address in net.ips["web-1"]:
        net.prober("client-2").settles(address, TCP, "web-1")


def test_the_api_from_a_pod_and_its_certificate(kubectl: Kubectl, families: tuple[str, ...]) -> None:
    made = kubectl.get("service/kubernetes -n default")
    address = both(made, families[:1])[0]
    code = f"""
import ssl, socket
context = ssl.create_default_context(cafile="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
with socket.create_connection(("{address}", 443), 3) as plain:
    with context.wrap_socket(plain, server_hostname="{address}") as channel:
        channel.sendall(b"GET /version HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        print(channel.recv(12).decode())
"""
    assert kubectl("exec client-2 -i -- python3 -", input=code).startswith("HTTP/1.1 ")


def test_agents_answer_at_every_address_of_the_node(kubectl: Kubectl, cluster: Cluster) -> None:
    """And their certificates are good for it."""
    import socket
    import ssl

    pki = Path(cluster.data) / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key")
    for address in node_ips(kubectl.items("nodes")[0]):
        with (
            socket.create_connection((address, 10250), 3) as plain,
            context.wrap_socket(plain, server_hostname=address) as channel,
        ):
            assert channel.getpeercert()


def test_the_way_to_other_nodes(kubectl: Kubectl, cluster: Cluster, families: tuple[str, ...]) -> None:
    """vxlan: a tunnel, and pods that leave room for its header; else plain routes."""
    tunnelled = len(families) == 2
    text = kubectl("exec host-1 -- ip -o link show")
    assert ("vxlan:" in text) == tunnelled
    assert f"mtu {1450 if tunnelled else 1500}" in kubectl("exec client-1 -- ip link show eth0")
    other = next(n for n in kubectl.items("nodes") if n["metadata"]["name"] == "node-2")
    for cidr in other["spec"]["podCIDRs"]:
        version = "-6" if ":" in cidr else "-4"
        route = kubectl(f"exec host-1 -- ip {version} route show {cidr}")
        assert ("dev vxlan" if tunnelled else "dev eth0") in route


def test_pods_reach_the_world_by_ipv6(net: Net, outside: Outside) -> None:
    for name in ("client-1", "client-3", "host-2", "host"):
        for protocol, port in (("TCP", 8080), ("UDP", 8053)):
            assert net.prober(name).ask(outside.ip6, port, protocol) == f"world {outside.machine6}", name


def test_addresses_outlive_the_agent(net: Net, kubectl: Kubectl, cluster: Cluster) -> None:
    before = dict(net.ips)
    os.kill(agent_of(cluster, "node-1"), signal.SIGKILL)
    kubectl.apply(client_pod("recruit", "node-1"))
    kubectl.wait("pod/recruit")
    net.learn()
    recruit = net.ips.pop("recruit")
    assert net.ips == before
    assert not set(recruit) & {address for own in before.values() for address in own}
    for address in net.ips["web-1"]:
        net.prober("client-2").settles(address, TCP, "web-1")


def test_a_deleted_way_to_other_nodes_comes_back(
    net: Net, cluster: Cluster, families: tuple[str, ...]
) -> None:
    in_node(cluster, "node-1", f"ip link del {'vxlan' if len(families) == 2 else 'eth0'}")
    for address in net.ips["web-2"]:
        net.prober("client-1").settles(address, TCP, "web-2", timeout=BRIEF)
