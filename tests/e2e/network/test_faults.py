"""What goes wrong with a network is reported, repaired, and leaves nothing behind."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Cluster, Kubectl, Traces, eventually
from traffic import (
    TCP,
    Api,
    Net,
    Prober,
    agent_of,
    balancer,
    client_pod,
    in_node,
    node_ip,
    node_port,
    server_pod,
    service_object,
)

Make = Callable[..., dict[str, Any]]
ALL = ("web-1", "web-2", "web-3")


@pytest.fixture
def everyone(kubectl: Kubectl) -> Api:
    """Other clients than kubectl, which sends five requests a second."""
    return Api(kubectl.environment["KUBECONFIG"])


def test_deleted_tables_are_written_anew(net: Net, cluster: Cluster, service: Make) -> None:
    address = service()["spec"]["clusterIP"]
    prober = net.prober("client-1")
    prober.reaches(address, 80, ALL)
    for damage in (
        "nft delete table ip sampan",
        "nft flush table ip sampan",
        "nft flush chain ip sampan services",
        "nft flush map ip sampan vips",
        "nft flush ruleset",
    ):
        in_node(cluster, "node-1", damage)
        prober.reaches(address, 80, ALL)


def test_deleted_policy_tables_are_written_anew(net: Net, cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "closed"},
            "spec": {"podSelector": {"matchLabels": {"number": "1"}}, "policyTypes": ["Ingress"]},
        }
    )
    prober = net.prober("client-2")
    prober.settles(net.ip("web-1"), TCP, "TimeoutError", timeout=0.3)
    for damage in ("nft delete table ip sampan-policy", "nft flush ruleset"):
        in_node(cluster, "node-1", damage)
        prober.settles(net.ip("web-1"), TCP, "TimeoutError", timeout=0.3)


def test_a_pods_interface_that_was_deleted_comes_back(net: Net, cluster: Cluster) -> None:
    pod = net.ip("web-1")
    link = in_node(cluster, "node-1", f"ip -o route get {pod}").split(" dev ")[1].split()[0]
    assert net.prober("client-2").ask(pod, TCP).startswith("web-1")
    in_node(cluster, "node-1", f"ip link del {link}")
    net.prober("client-2").settles(pod, TCP, "web-1", timeout=0.3)
    net.prober("client-1").settles(pod, TCP, "web-1", timeout=0.3)


def test_routes_that_were_deleted_come_back(net: Net, cluster: Cluster, kubectl: Kubectl) -> None:
    pod, prober = net.ip("web-2"), net.prober("client-1")
    assert prober.ask(pod, TCP).startswith("web-2")
    for node, route in (("node-1", f"{pod.rsplit('.', 1)[0]}.0/24"), ("node-2", f"{pod}/32")):
        in_node(cluster, node, f"ip route del {route}")
        prober.settles(pod, TCP, "web-2", timeout=0.3)


def test_a_nodes_own_interface_that_was_deleted_comes_back(net: Net, cluster: Cluster) -> None:
    in_node(cluster, "node-3", "ip link del eth0")
    net.prober("host").settles(net.ip("web-3"), TCP, "web-3", timeout=0.3)
    net.prober("client-1").settles(net.ip("web-3"), TCP, "web-3", timeout=0.3)


def test_the_agent_is_killed_while_it_programs(
    net: Net, cluster: Cluster, kubectl: Kubectl, service: Make
) -> None:
    """Services change all the time, the agent dies again and again: what is allowed works, at the end all is right."""
    stable = service()["spec"]["clusterIP"]
    changing = net.service("changing", selector={"number": "1"})["spec"]["clusterIP"]
    prober = Prober(None, netns=f"/proc/{agent_of(cluster, 'node-1')}/ns/net")
    prober.reaches(stable, 80, ALL)
    prober.order("load", key="stable", address=stable, port=80, timeout=3)
    for attempt in range(6):
        for number in (1, 2, 3):
            kubectl(f"""patch service changing -p '{{"spec":{{"selector":{{"number":"{number}"}}}}}}'""")
        pid = eventually(lambda: agent_of(cluster, "node-1"), "an agent")
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.15 * attempt)
    prober.reaches(changing, 80, ["web-3"])
    result = prober.order("loaded", key="stable")
    prober.close()
    assert result["errors"] == []
    in_node(cluster, "node-1", "nft list table ip sampan")
    net.forget("client-1")
    net.forget("host-1")


def test_two_services_want_one_address(net: Net, kubectl: Kubectl) -> None:
    """The first by name has it; the other is told, and takes over when that one goes."""
    net.service("first", externalIPs=["203.0.113.9"], selector={"number": "1"})
    net.service("second", externalIPs=["203.0.113.9"], selector={"number": "2"})
    eventually(lambda: "AddressConflict" in kubectl.events_of("second"), "an event")
    assert "203.0.113.9:80/TCP is taken by net/first" in kubectl.events_of("second")
    net.prober("client-1").reaches("203.0.113.9", 80, ["web-1"])
    kubectl("delete service first")
    net.prober("client-1").reaches("203.0.113.9", 80, ["web-2"])


def test_ports_and_addresses_that_are_taken_are_refused(net: Net, kubectl: Kubectl, service: Make) -> None:
    made = service(type="NodePort")
    spec = {"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port(made)}]}
    again = json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "again"}, "spec": spec})
    assert "provided port is already allocated" in kubectl.refused("create -f -", input=again)
    outside = json.dumps(service_object("outside", type="NodePort", ports=[{"port": 80, "nodePort": 80}]))
    assert "provided port is not in the valid range" in kubectl.refused("create -f -", input=outside)
    address = json.dumps(service_object("twin", clusterIP=made["spec"]["clusterIP"]))
    assert "provided IP is already allocated" in kubectl.refused("create -f -", input=address)
    foreign = json.dumps(service_object("foreign", clusterIP="192.0.2.1"))
    assert "not in the valid range" in kubectl.refused("create -f -", input=foreign)


def test_nodes_with_overlapping_pod_ranges_are_told(net: Net, kubectl: Kubectl) -> None:
    admin = Kubectl(kubectl.environment["KUBECONFIG"], "default")
    range_ = ipaddress.ip_network(kubectl("get node node-1 -o jsonpath={.spec.podCIDR}"))
    half = str(next(range_.subnets()))
    admin.apply(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "impostor"},
            "spec": {"podCIDR": half, "podCIDRs": [half]},
        }
    )
    try:
        eventually(lambda: "CIDRConflict" in admin.events_of("impostor"), "an event")
        assert f"{half} overlaps {range_} of node node-1" in admin.events_of("impostor")
        net.prober("client-2").reaches(net.ip("web-1"), TCP, ["web-1"])
    finally:
        admin("delete node impostor")


def test_load_balancers_beyond_the_pool_wait_and_say_so(kubectl: Kubectl, everyone: Api) -> None:
    names = [f"lb-{number}" for number in range(258)]
    path = "/api/v1/namespaces/net/services"
    everyone.all("POST", [(path, service_object(name, type="LoadBalancer")) for name in names])

    def counted() -> tuple[int, int]:
        found = [s for s in kubectl.items("services") if s["metadata"]["name"] in names]
        having = sum(bool(s["status"]["loadBalancer"].get("ingress")) for s in found)
        return having, len(found) - having

    eventually(lambda: sum(counted()) == 258 and counted()[0] >= 253, "the pool is used up")
    having, waiting = counted()
    assert having >= 253 and waiting >= 1
    given = [balancer(s) for s in kubectl.items("services") if s["status"]["loadBalancer"].get("ingress")]
    assert len(given) == len(set(given)), "no address is given twice"
    pending = next(
        s["metadata"]["name"]
        for s in kubectl.items("services")
        if s["metadata"]["name"] in names and not s["status"]["loadBalancer"].get("ingress")
    )
    assert "Warning" in eventually(lambda: kubectl.events_of(pending), "an event")
    everyone.all("DELETE", [(f"{path}/{name}", None) for name in names[:20] if name != pending])
    kubectl.wait(f"service/{pending}", "jsonpath={.status.loadBalancer.ingress[0].ip}")
    everyone.all("DELETE", [(f"{path}/{name}", None) for name in {*names[20:], pending}])


def test_no_two_pods_have_one_address(net: Net, kubectl: Kubectl) -> None:
    pods = [client_pod(f"many-{i}", "node-3") for i in range(4)]
    kubectl.apply(*pods)
    kubectl.wait("pods --all")
    addresses = [p["status"]["podIP"] for p in kubectl.items("pods") if not p["spec"].get("hostNetwork")]
    assert len(addresses) == len(set(addresses))


def refusals(cluster: Cluster) -> int:
    """How many addresses node-1 refuses because there is no endpoint behind them."""
    return in_node(cluster, "node-1", "nft list set ip sampan rejected").count(" . tcp . ")


@pytest.mark.slow
def test_thousands_of_services_come_and_go(
    net: Net, cluster: Cluster, kubectl: Kubectl, service: Make, everyone: Api
) -> None:
    count = int(os.environ.get("SAMPAN_SERVICES", "1000"))
    address = service()["spec"]["clusterIP"]
    prober = net.prober("client-1")
    prober.reaches(address, 80, ALL)
    prober.order("load", key="beside", address=address, port=80, timeout=3, threads=1, pause=0.05)
    kubectl("create namespace thousands")
    path = "/api/v1/namespaces/thousands/services"
    try:
        made = everyone.all("POST", [(path, service_object(f"s{n}", selector={})) for n in range(count)])
        prober.settles(made[-1]["spec"]["clusterIP"], 80, "ConnectionRefusedError")
        assert len(everyone("GET", path)["items"]) == count
        eventually(lambda: refusals(cluster) >= count, "all are programmed")
        everyone.all("DELETE", [(f"{path}/s{n}", None) for n in range(count)])
    finally:
        kubectl("delete namespace thousands --timeout=300s", timeout=310)
    eventually(lambda: refusals(cluster) < 50, "none is left")
    assert prober.order("loaded", key="beside")["errors"] == []


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(f"crash-{os.getpid()}", tmp_path)
    yield made
    made.run("down")


def test_down_after_a_crash_leaves_nothing(another: Cluster) -> None:
    traces = Traces(another)
    another.up("--nodes=2 --ip-family=dual --pod-network=vxlan")
    kubectl = another.kubectl()
    kubectl.apply(
        server_pod("survivor", "node-1", {"app": "s"}),
        service_object("s", type="LoadBalancer", selector={"app": "s"}),
    )
    kubectl.wait("pod/survivor")
    kubectl.wait("service/s", "jsonpath={.status.loadBalancer.ingress[0].ip}")
    host = Prober(None)
    host.reaches(kubectl.get("service/s")["status"]["loadBalancer"]["ingress"][0]["ip"], 80, ["survivor"])
    host.close()
    for pid in another.processes("sampan."):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    another.sampan("down")
    assert traces.found() == {}


def test_up_after_a_crash_works(another: Cluster) -> None:
    another.up("--nodes=2")
    kubectl = another.kubectl()
    kubectl.apply(server_pod("survivor", "node-1"))
    kubectl.wait("pod/survivor")
    for pid in another.processes("sampan."):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    another.up()
    kubectl("delete pod survivor --grace-period=0 --force")
    kubectl.apply(server_pod("second", "node-2"))
    kubectl.wait("pod/second")
    host = Prober(None)
    host.reaches(kubectl.get("pod/second")["status"]["podIP"], TCP, ["second"])
    host.close()
    assert node_ip(kubectl.items("nodes")[0])
