"""Every kind of Service with real packets: from pods, from nodes, from the machine."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from harness import Cluster, Kubectl, eventually
from traffic import (
    ADMIN,
    INSIDE,
    REFUSED,
    SILENT,
    UDP,
    Net,
    balancer,
    client_pod,
    node_ip,
    node_port,
    server_pod,
    service_object,
)

Make = Callable[..., dict[str, Any]]
ALL = ("web-1", "web-2", "web-3")
HTTP = {"name": "http", "port": 80, "targetPort": "http"}
AT_ONCE = 1  # second: what takes longer was not refused, but left waiting


def node_ips(kubectl: Kubectl) -> list[str]:
    return [node_ip(node) for node in kubectl.items("nodes")]


def test_cluster_ip(net: Net, service: Make) -> None:
    made = service()
    for prober in net.everywhere:
        prober.reaches(made["spec"]["clusterIP"], 80, ALL)


def test_several_ports_by_number_and_by_name(net: Net, service: Make) -> None:
    made = service(
        HTTP,
        {"name": "admin", "port": 81, "targetPort": ADMIN},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
    )
    address = made["spec"]["clusterIP"]
    for prober in net.everywhere:
        prober.reaches(address, 80, ALL)
        prober.reaches(address, 81, ALL)
        prober.reaches(address, 53, ALL, "UDP")
        assert prober.ask(address, 82) in (REFUSED, SILENT)


def test_a_named_port_is_another_number_in_another_pod(net: Net, kubectl: Kubectl, service: Make) -> None:
    """During an upgrade old and new pods may call different numbers by one name."""
    new = server_pod("moved", "node-2", {"app": "moving"})
    old = server_pod("original", "node-1", {"app": "moving"})
    new["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": ADMIN}]
    kubectl.apply(old, new)
    kubectl.wait("pod/moved pod/original")
    made = service(selector={"app": "moving"})
    net.prober("client-3").reaches(made["spec"]["clusterIP"], 80, ("moved", "original"))


def test_node_port(net: Net, kubectl: Kubectl, service: Make) -> None:
    made = service(type="NodePort")
    port = node_port(made)
    assert 30000 <= port <= 32767
    for address in node_ips(kubectl):
        for prober in net.everywhere:
            prober.reaches(address, port, ALL)
    net.prober("host").reaches("127.0.0.1", port, ALL)


def test_a_chosen_node_port_and_udp(net: Net, kubectl: Kubectl, service: Make) -> None:
    dns = {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": UDP, "nodePort": 30353}
    service(dns, type="NodePort")
    for prober in net.everywhere:
        prober.reaches(node_ips(kubectl)[1], 30353, ALL, "UDP")
    text = kubectl.refused("create -f -", input=json.dumps(service_object("second", [dns], type="NodePort")))
    assert "provided port is already allocated" in text


def test_load_balancer(net: Net, service: Make) -> None:
    made = service(type="LoadBalancer")
    for prober in net.everywhere:
        prober.reaches(balancer(made), 80, ALL)


def test_the_command_that_says_where_a_service_is(net: Net, cluster: Cluster, service: Make) -> None:
    for kind in ("LoadBalancer", "NodePort", "ClusterIP"):
        name = service(type=kind)["metadata"]["name"]
        url = urllib.parse.urlsplit(cluster.sampan(f"service {name} -n net --url").strip())
        assert url.scheme == "http" and url.hostname and url.port
        net.prober("host").reaches(url.hostname, url.port, ALL)
    done = cluster.run("service nothing")
    assert done.returncode == 1 and 'services "nothing" not found' in done.stderr


def test_load_balancer_source_ranges(net: Net, kubectl: Kubectl, service: Make) -> None:
    machine = kubectl("get endpoints kubernetes -n default -o jsonpath={.subsets[0].addresses[0].ip}")
    made = service(type="LoadBalancer", loadBalancerSourceRanges=[f"{machine}/32"])
    net.prober("host").reaches(balancer(made), 80, ALL)
    for name in ("client-1", "host-2"):
        net.prober(name).settles(balancer(made), 80, SILENT, timeout=0.4)
        net.prober(name).reaches(made["spec"]["clusterIP"], 80, ALL)
    made = service(type="LoadBalancer", loadBalancerSourceRanges=["203.0.113.0/24"])
    net.prober("host").settles(balancer(made), 80, SILENT, timeout=0.4)


def test_external_ips(net: Net, service: Make) -> None:
    service(externalIPs=["203.0.113.77"])
    for name in ("client-1", "client-2", "host-3"):
        net.prober(name).reaches("203.0.113.77", 80, ALL)


def test_no_endpoint_is_a_refusal_at_once(net: Net, kubectl: Kubectl, service: Make) -> None:
    made = service(
        HTTP,
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
        type="LoadBalancer",
        selector={"app": "nobody"},
    )
    node = node_ips(kubectl)[0]
    for prober in net.everywhere:
        for address, port in (
            (made["spec"]["clusterIP"], 80),
            (balancer(made), 80),
            (node, node_port(made)),
        ):
            prober.settles(address, port, REFUSED, timeout=AT_ONCE)
        # Where the refusing rule is in the sender's own network, the kernel says EPERM.
        answer = prober.ask(made["spec"]["clusterIP"], 53, "UDP", timeout=AT_ONCE)
        assert answer in (REFUSED, "PermissionError")


def test_endpoints_by_hand(net: Net, kubectl: Kubectl, service: Make) -> None:
    """A Service without a selector: somebody else writes its EndpointSlice."""
    made = service(selector={})
    net.prober("client-1").settles(made["spec"]["clusterIP"], 80, REFUSED)
    kubectl.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "by-hand",
                "labels": {"kubernetes.io/service-name": made["metadata"]["name"]},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": [net.ip("web-2")]}],
        }
    )
    net.prober("client-1").reaches(made["spec"]["clusterIP"], 80, ["web-2"])
    kubectl("delete endpointslice by-hand")
    net.prober("client-1").settles(made["spec"]["clusterIP"], 80, REFUSED)


def test_a_pod_reaches_itself_through_its_service(net: Net, kubectl: Kubectl, service: Make) -> None:
    kubectl.apply(server_pod("alone", "node-2", {"app": "alone"}))
    kubectl.wait("pod/alone")
    made = service(type="LoadBalancer", selector={"app": "alone"})
    prober = net.prober("alone")
    for address, port in (
        (made["spec"]["clusterIP"], 80),
        (balancer(made), 80),
        (node_ips(kubectl)[1], node_port(made)),
        (node_ips(kubectl)[0], node_port(made)),
    ):
        prober.reaches(address, port, ["alone"])
    net.forget("alone")


@pytest.mark.parametrize("kind", ["ClusterIP", "LoadBalancer"])
def test_session_affinity(net: Net, kind: str, service: Make) -> None:
    made = service(type=kind, sessionAffinity="ClientIP")
    address = made["spec"]["clusterIP"] if kind == "ClusterIP" else balancer(made)
    for name in ("client-1", "client-2", "host-3", "host"):
        prober = net.prober(name)
        eventually(lambda prober=prober: prober.ask(address, 80).startswith("web-"), "programmed")
        assert len(prober.asks(address, 80, times=40)) == 1, name


def test_session_affinity_ends_after_its_timeout(net: Net, service: Make) -> None:
    made = service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 1}})
    address, prober = made["spec"]["clusterIP"], net.prober("client-1")
    seen: set[str] = set()

    def another() -> bool:
        seen.update(prober.asks(address, 80, times=1))
        time.sleep(1.3)  # the kernel's clock: it forgets who has not asked for a second
        return len(seen & set(ALL)) > 1

    eventually(another, "somebody else answers")


def test_affinity_moves_on_when_the_endpoint_goes(net: Net, kubectl: Kubectl, service: Make) -> None:
    made = service(sessionAffinity="ClientIP", selector={"app": "sticky"})
    kubectl.apply(*(server_pod(f"sticky-{i}", f"node-{i}", {"app": "sticky"}) for i in (1, 2)))
    kubectl.wait("pod/sticky-1 pod/sticky-2")
    address, prober = made["spec"]["clusterIP"], net.prober("client-3")
    first = eventually(
        lambda: next((n for n in prober.asks(address, 80) if n.startswith("sticky")), ""), "one"
    )
    kubectl(f"delete pod {first} --wait=false")
    other = "sticky-2" if first == "sticky-1" else "sticky-1"
    prober.reaches(address, 80, [other])


def test_endpoints_in_the_nodes_network(net: Net, kubectl: Kubectl, service: Make) -> None:
    """Servers that use their node's address, with every kind of way to them."""
    container = {"command": ["python3", "-u", "-c", INSIDE, "serve", "NAME", "18180", "18153"], "ports": []}
    for number in (1, 2):
        own = container | {"command": [w.replace("NAME", f"native-{number}") for w in container["command"]]}
        own["readinessProbe"] = {"tcpSocket": {"port": 18180}, "periodSeconds": 1}
        kubectl.apply(
            server_pod(
                f"native-{number}", f"node-{number}", {"app": "native"}, container=own, hostNetwork=True
            )
        )
    kubectl.wait("pod/native-1 pod/native-2")
    names = ("native-1", "native-2")
    ports = [
        {"name": "http", "port": 80, "targetPort": 18180},
        {"name": "dns", "port": 53, "targetPort": 18153, "protocol": "UDP"},
    ]
    made = service(*ports, type="LoadBalancer", selector={"app": "native"})
    places = [
        (made["spec"]["clusterIP"], 80),
        (balancer(made), 80),
        *((ip, node_port(made)) for ip in node_ips(kubectl)),
    ]
    for prober in (*net.everywhere, net.prober("host-1")):
        for address, port in places:
            prober.reaches(address, port, names)
        prober.reaches(made["spec"]["clusterIP"], 53, names, "UDP")
    local = net.service("local", ports[:1], selector={"app": "native"}, internalTrafficPolicy="Local")[
        "spec"
    ]["clusterIP"]
    for number in (1, 2):
        for name in (f"client-{number}", f"host-{number}"):
            net.prober(name).reaches(local, 80, [f"native-{number}"])


def test_traffic_distribution(net: Net, kubectl: Kubectl, service: Make) -> None:
    """Endpoints of the own node or zone are preferred, and others serve where there is none."""
    for node, zone in (("node-1", "a"), ("node-2", "b"), ("node-3", "b")):
        kubectl(f"label node {node} topology.kubernetes.io/zone={zone} --overwrite")
    try:
        near = service(trafficDistribution="PreferSameZone")["spec"]["clusterIP"]
        net.prober("client-1").reaches(near, 80, ["web-1"])
        net.prober("client-2").reaches(near, 80, ["web-2", "web-3"])
        own = net.service("own-node", trafficDistribution="PreferSameNode")["spec"]["clusterIP"]
        for number in (1, 2, 3):
            net.prober(f"client-{number}").reaches(own, 80, [f"web-{number}"])
        only = net.service("far", trafficDistribution="PreferSameNode", selector={"number": "3"})
        net.prober("client-1").reaches(only["spec"]["clusterIP"], 80, ["web-3"])
        kubectl("label node node-2 topology.kubernetes.io/zone=a --overwrite")
        net.prober("client-1").reaches(near, 80, ["web-1", "web-2"])
        net.prober("client-3").reaches(near, 80, ["web-3"])
    finally:
        kubectl("label nodes --all topology.kubernetes.io/zone-")


def test_external_name_and_headless_have_no_rules(net: Net, service: Make) -> None:
    made = service(clusterIP="None")
    wanted, prober = sorted(net.ip(name) for name in ALL), net.prober("client-1")
    eventually(lambda: prober.order("resolve", name=made["metadata"]["name"]) == wanted, "all addresses")


def test_changes_of_a_service_are_followed(net: Net, kubectl: Kubectl, service: Make) -> None:
    made = service(type="NodePort")
    name, address, first = made["metadata"]["name"], made["spec"]["clusterIP"], node_port(made)
    prober = net.prober("client-1")
    prober.reaches(address, 80, ALL)
    kubectl(
        f"""patch service {name} --type=json -p '[{{"op":"replace","path":"/spec/ports/0/port","value":8000}}]'"""
    )
    prober.reaches(address, 8000, ALL)
    prober.settles(address, 80, REFUSED)
    kubectl(f"""patch service {name} -p '{{"spec":{{"selector":{{"number":"2"}}}}}}'""")
    prober.reaches(address, 8000, ["web-2"])
    kubectl(f"""patch service {name} -p '{{"spec":{{"type":"ClusterIP"}}}}'""")
    net.prober("host").settles(node_ips(kubectl)[0], first, REFUSED)
    kubectl(f"delete service {name}")
    prober.settles(address, 8000, REFUSED)


def test_much_data_through_a_service(net: Net, service: Make) -> None:
    address = service()["spec"]["clusterIP"]
    net.prober("client-1").reaches(address, 80, ALL)
    for name in ("client-1", "client-2", "host"):
        assert net.prober(name).order("send_big", address=address, port=80, size=20_000_000) == 20_000_000


def test_a_client_that_keeps_its_port_is_still_spread(net: Net, service: Make) -> None:
    """Different clients may use the same source port (none that the kernel gives) through one node's masquerading."""
    address = service(type="NodePort")["spec"]["clusterIP"]
    net.prober("client-1").reaches(address, 80, ALL)
    for name in ("client-1", "client-2", "client-3"):
        assert net.prober(name).ask(address, 80, from_port=23456).startswith("web-")


def test_clients_come_and_go(net: Net, kubectl: Kubectl, service: Make) -> None:
    """A pod that starts can use a Service from its first packet."""
    address = service()["spec"]["clusterIP"]
    net.prober("client-1").reaches(address, 80, ALL)
    pod = client_pod("hasty", "node-3", restartPolicy="Never")
    code = f"import socket; print(socket.create_connection(('{address}', 80), 2).recv(99).decode())"
    pod["spec"]["containers"][0]["command"] = ["python3", "-c", code]
    kubectl.apply(pod)
    kubectl.phase("hasty", "Succeeded")
    assert kubectl("logs hasty").startswith("web-")
