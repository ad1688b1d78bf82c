"""The DNS specification of Kubernetes (version 1.1), asked with real questions from pods, nodes and with resolv.conf."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import IO, Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from harness import PATIENCE, Cluster, Kubectl, eventually
from traffic import ADMIN, UDP, Net, client_pod, server_pod

Make = Callable[..., dict[str, Any]]
Dig = Callable[..., dns.message.Message]
NXDOMAIN, NOERROR = dns.rcode.NXDOMAIN, dns.rcode.NOERROR
HTTP = {"name": "http", "port": 80, "targetPort": "http"}
PORTS = (
    HTTP,
    {"name": "admin", "port": 81, "targetPort": ADMIN},
    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": UDP},
)
HEADLESS = ({"name": "http", "port": 8080}, {"name": "dns", "port": UDP, "protocol": "UDP"})


@pytest.fixture
def server(kubectl: Kubectl) -> str:
    return kubectl("get service kube-dns -n kube-system -o jsonpath={.spec.clusterIP}")


@pytest.fixture
def dig(net: Net, server: str) -> Dig:
    """`dig(name, kind)`, asked in a pod of node-2."""
    return lambda name, kind="A", **more: net.prober("client-2").dns(server, name, kind, **more)


def rdata(message: dns.message.Message, kind: str = "") -> list[str]:
    """The answer section, sorted."""
    return sorted(
        item.to_text()
        for rrset in message.answer
        for item in rrset
        if not kind or rrset.rdtype == dns.rdatatype.from_text(kind)
    )


def knows(dig: Dig, name: str, kind: str = "A") -> None:
    eventually(lambda: rdata(dig(name, kind)), f"{name} {kind} is known")


def test_every_node_answers_by_itself(net: Net, server: str) -> None:
    for name in ("client-1", "client-2", "client-3", "host-1", "host-3"):
        answer = net.prober(name).dns(server, "kubernetes.default.svc.cluster.local")
        assert rdata(answer) == ["10.96.0.1"] or rdata(answer)[0].endswith(".0.1")
        assert answer.flags & dns.flags.AA


def test_schema_version(dig: Dig) -> None:
    assert rdata(dig("dns-version.cluster.local", "TXT")) == ['"1.1.0"']


def test_a_service_with_ports(service: Make, dig: Dig) -> None:
    made = service(*PORTS)
    name, address = f"{made['metadata']['name']}.net.svc.cluster.local", made["spec"]["clusterIP"]
    knows(dig, name)
    answer = dig(name)
    assert rdata(answer) == [address]
    assert 0 < answer.answer[0].ttl <= 30
    assert rdata(dig(f"_http._tcp.{name}", "SRV")) == [f"0 100 80 {name}."]
    assert rdata(dig(f"_dns._udp.{name}", "SRV")) == [f"0 100 53 {name}."]
    extra = dig(f"_http._tcp.{name}", "SRV").additional
    assert [item.to_text() for rrset in extra for item in rrset] == [address]
    assert rdata(dig(dns.reversename.from_address(address).to_text(), "PTR")) == [f"{name}."]


def test_what_does_not_exist_and_what_has_no_such_record(service: Make, dig: Dig) -> None:
    made = service(*PORTS)
    name = f"{made['metadata']['name']}.net.svc.cluster.local"
    knows(dig, name)
    for absent, kind in (
        ("nobody.net.svc.cluster.local", "A"),
        ("web.nowhere.svc.cluster.local", "A"),
        (f"_other._tcp.{name}", "SRV"),
        (f"_http._udp.{name}", "SRV"),
        (f"web-1.{name}", "A"),
        ("cluster.cluster.local", "A"),
    ):
        answer = dig(absent, kind)
        assert answer.rcode() == NXDOMAIN, absent
        assert [rrset.rdtype for rrset in answer.authority] == [dns.rdatatype.SOA], absent
        assert answer.authority[0][0].minimum <= 30
    for present, kind in (
        (name, "AAAA"),
        (name, "MX"),
        ("net.svc.cluster.local", "A"),
        ("svc.cluster.local", "A"),
        (f"_http._tcp.{name}", "A"),
    ):
        answer = dig(present, kind)
        assert (answer.rcode(), answer.answer) == (NOERROR, []), present
        assert [rrset.rdtype for rrset in answer.authority] == [dns.rdatatype.SOA], present


def test_negative_answers_are_forgotten_when_the_service_comes(
    net: Net, service: Make, dig: Dig, kubectl: Kubectl
) -> None:
    assert dig("late.net.svc.cluster.local").rcode() == NXDOMAIN
    net.service("late")
    knows(dig, "late.net.svc.cluster.local")
    kubectl("delete service late")
    eventually(lambda: dig("late.net.svc.cluster.local").rcode() == NXDOMAIN, "it is gone")


def test_the_name_of_a_headless_service_stands_for_all_its_pods(net: Net, service: Make, dig: Dig) -> None:
    made = service(*HEADLESS, clusterIP="None")
    name = f"{made['metadata']['name']}.net.svc.cluster.local"
    addresses = sorted(net.ip(f"web-{i}") for i in (1, 2, 3))
    eventually(lambda: rdata(dig(name)) == addresses, "all three")
    found = rdata(dig(f"_http._tcp.{name}", "SRV"))
    assert len(found) == 3
    for line in found:
        _, _, port, target = line.split()
        assert port == "8080"
        assert rdata(dig(target))[0] in addresses
    firsts = {dig(name).answer[0][0].to_text() for _ in range(12)}
    assert len(firsts) > 1, "answers take turns"


def test_pods_with_hostnames_and_stateful_sets(net: Net, kubectl: Kubectl, service: Make, dig: Dig) -> None:
    pod = server_pod("named", "node-1", {"app": "family"}, hostname="elder", subdomain="family")
    kubectl.apply(pod)
    net.service("family", HEADLESS, clusterIP="None", selector={"app": "family"})
    container = server_pod("x", container={})["spec"]["containers"][0]
    kubectl.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "child"},
            "spec": {
                "serviceName": "family",
                "replicas": 2,
                "selector": {"matchLabels": {"app": "family", "set": "child"}},
                "template": {
                    "metadata": {"labels": {"app": "family", "set": "child"}},
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
                },
            },
        }
    )
    kubectl.wait("statefulset/child", "jsonpath={.status.readyReplicas}=2")
    net.learn()
    base = "family.net.svc.cluster.local"
    for host, owner in (("elder", "named"), ("child-0", "child-0"), ("child-1", "child-1")):
        knows(dig, f"{host}.{base}")
        assert rdata(dig(f"{host}.{base}")) == [net.ip(owner)]
        reverse = dns.reversename.from_address(net.ip(owner)).to_text()
        assert rdata(dig(reverse, "PTR")) == [f"{host}.{base}."]
    targets = {line.split()[3] for line in rdata(dig(f"_http._tcp.{base}", "SRV"))}
    assert targets == {f"{host}.{base}." for host in ("elder", "child-0", "child-1")}
    assert kubectl("exec child-1 -- hostname -f").strip() == f"child-1.{base}"
    other = net.prober("client-3")  # its node hears of the pods by itself
    eventually(lambda: other.order("resolve", name="child-0.family") == [net.ip("child-0")], "child-0")


def test_publish_not_ready_addresses(net: Net, kubectl: Kubectl, service: Make, dig: Dig) -> None:
    never = {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}
    kubectl.apply(server_pod("never", "node-1", {"app": "never"}, container=never))
    kubectl.wait("pod/never", "jsonpath={.status.phase}=Running")
    net.service("open", HEADLESS, clusterIP="None", publishNotReadyAddresses=True, selector={"app": "never"})
    net.service("strict", HEADLESS, clusterIP="None", selector={"app": "never"})
    net.learn()
    knows(dig, "open.net.svc.cluster.local")
    assert rdata(dig("open.net.svc.cluster.local")) == [net.ip("never")]
    assert rdata(dig("strict.net.svc.cluster.local")) == []


def test_external_name(net: Net, kubectl: Kubectl, service: Make, dig: Dig) -> None:
    made = service(*PORTS)
    target = f"{made['metadata']['name']}.net.svc.cluster.local"
    for name, to in (
        ("alias", target),
        ("alias-of-alias", "alias.net.svc.cluster.local"),
        ("loop", "loop.net.svc.cluster.local"),
    ):
        kubectl(f"create service externalname {name} --external-name {to}")
    for name in ("alias-of-alias", "loop"):
        eventually(lambda n=name: dig(f"{n}.net.svc.cluster.local").rcode() != NXDOMAIN, name)
    assert rdata(dig("alias.net.svc.cluster.local", "CNAME")) == [f"{target}."]
    answer = dig("alias-of-alias.net.svc.cluster.local")
    assert rdata(answer, "CNAME") == sorted([f"{target}.", "alias.net.svc.cluster.local."])
    assert rdata(answer, "A") == [made["spec"]["clusterIP"]]
    assert dig("loop.net.svc.cluster.local").rcode() == dns.rcode.SERVFAIL
    prober, wanted = net.prober("client-1"), [made["spec"]["clusterIP"]]
    eventually(lambda: prober.order("resolve", name="alias") == wanted, "alias")


def test_pod_names(net: Net, dig: Dig) -> None:
    address = net.ip("web-1")
    assert rdata(dig(f"{address.replace('.', '-')}.net.pod.cluster.local")) == [address]
    assert dig("not-an-address.net.pod.cluster.local").rcode() == NXDOMAIN
    assert dig(f"{address.replace('.', '-')}.nowhere.pod.cluster.local").rcode() == NXDOMAIN


def test_search_list_and_policies(net: Net, kubectl: Kubectl, service: Make) -> None:
    made = service(*PORTS)
    name, address = made["metadata"]["name"], made["spec"]["clusterIP"]
    prober = net.prober("client-1")
    for asked in (name, f"{name}.net", f"{name}.net.svc", f"{name}.net.svc.cluster.local"):
        eventually(lambda asked=asked: prober.order("resolve", name=asked) == [address], asked)
    kubectl.apply(
        client_pod(
            "own-dns",
            "node-1",
            dnsPolicy="None",
            dnsConfig={
                "nameservers": ["10.1.2.3"],
                "searches": ["a.example"],
                "options": [{"name": "ndots", "value": "2"}],
            },
        ),
        client_pod("on-host", "node-2", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
    )
    kubectl.wait("pod/own-dns pod/on-host")
    text = kubectl("exec own-dns -- cat /etc/resolv.conf")
    assert ("nameserver 10.1.2.3" in text, "search a.example" in text, "ndots:2" in text) == (
        True,
        True,
        True,
    )
    eventually(lambda: address in kubectl(f"exec on-host -- getent hosts {name}"), "on the host")


def test_big_answers_are_cut_and_given_whole_by_tcp_or_edns(net: Net, kubectl: Kubectl, dig: Dig) -> None:
    net.service("crowd", [{"name": "http", "port": 80}], clusterIP="None", selector={})
    addresses = [f"10.250.{n // 200}.{n % 200 + 1}" for n in range(60)]
    kubectl.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "crowd", "labels": {"kubernetes.io/service-name": "crowd"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": [a]} for a in addresses],
        }
    )
    name = "crowd.net.svc.cluster.local"
    eventually(lambda: len(rdata(dig(name, tcp=True))) == 60, "all are known")
    short = dig(name)
    assert short.flags & dns.flags.TC
    assert len(short.to_wire()) <= 512
    assert rdata(dig(name, tcp=True)) == sorted(addresses)
    whole = dig(name, edns=4096)
    assert not whole.flags & dns.flags.TC
    assert rdata(whole) == sorted(addresses)
    prober = net.prober("client-1")
    eventually(lambda: len(prober.order("resolve", name="crowd")) == 60, "all are known there")
    kubectl("delete endpointslice crowd")


def test_names_of_the_world_and_bad_questions(net: Net, server: str, dig: Dig) -> None:
    assert dig("example.invalid").rcode() in (NXDOMAIN, dns.rcode.SERVFAIL)
    chaos = dns.message.make_query("version.bind", "TXT", "CH")
    answer = net.prober("client-1").order("dns", address=server, query=chaos.to_wire().hex())
    assert dns.message.from_wire(bytes.fromhex(answer)).rcode() == dns.rcode.REFUSED
    assert net.prober("client-1").dns(server, "kubernetes.default.svc.CLUSTER.local".swapcase()).answer


def test_answers_go_on_while_the_server_is_down(
    net: Net, cluster: Cluster, service: Make, dig: Dig, server: str
) -> None:
    made = service(*PORTS)
    name = f"{made['metadata']['name']}.net.svc.cluster.local"
    knows(dig, name)
    query = dns.message.make_query(name, "A").to_wire().hex()
    places = ("host-1", "client-2", "host-3", "client-1")
    # What `kubectl exec` asks of pods goes through the server; these take orders from the machine as well.
    with contextlib.ExitStack() as stack:
        lines = {place: stack.enter_context(straight(net, place)) for place in places}
        (plane,) = cluster.processes("sampan.cluster.control_plane")
        os.kill(plane, signal.SIGSTOP)
        stack.callback(os.kill, plane, signal.SIGCONT)
        for place in places[:3]:
            answer = order(lines[place], op="dns", address=server, query=query)
            assert rdata(dns.message.from_wire(bytes.fromhex(answer))) == [made["spec"]["clusterIP"]], place
        answers = order(lines["client-1"], op="ask", address=made["spec"]["clusterIP"], port=80, times=10)
        assert {answer.split("-")[0] for answer in answers} == {"web"}


@contextlib.contextmanager
def straight(net: Net, pod: str) -> Iterator[IO[str]]:
    """A way to a prober that does not go through the server."""
    port = net.prober(pod).order("offer")
    with socket.create_connection((net.ip(pod), port), PATIENCE) as channel, channel.makefile("rw") as file:
        yield file


def order(line: IO[str], **order: Any) -> Any:
    line.write(json.dumps(order) + "\n")
    line.flush()
    return json.loads(line.readline())


def test_stub_domains(net: Net, kubectl: Kubectl, service: Make, dig: Dig) -> None:
    """ConfigMap kube-system/kube-dns, as kube-dns has it: `stubDomains` and `upstreamNameservers` in JSON."""
    resolver = {
        "name": "resolver",
        "image": "localhost/host",
        "command": ["python3", "-u", "-c", STUB],
    }
    pod = client_pod("resolver", "node-3")
    kubectl.apply(pod | {"spec": pod["spec"] | {"containers": [resolver]}})
    kubectl.wait("pod/resolver")
    net.learn()
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "data": {"stubDomains": json.dumps({"acme.example": [net.ip("resolver")]})},
    }
    system = Kubectl(kubectl.environment["KUBECONFIG"], "kube-system")
    try:
        system.apply(settings)
        eventually(lambda: rdata(dig("shop.acme.example")) == ["192.0.2.77"], "the stub is asked")
        server = system.get("service/kube-dns")["spec"]["clusterIP"]
        other = net.prober("host-1")
        eventually(lambda: other.dns(server, "deep.shop.acme.example").answer, "by other nodes as well")
        settings["data"] = {"upstreamNameservers": json.dumps([net.ip("resolver")])}
        system.apply(settings)
        eventually(lambda: rdata(dig("elsewhere.example")) == ["192.0.2.77"], "the resolver is asked")
    finally:
        system("delete configmap kube-dns --ignore-not-found")
    eventually(lambda: rdata(dig("another.acme.example")) == [], "the stub is not asked any more")


STUB = """
import socket
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.bind(("", 53))
while True:
    query, peer = channel.recvfrom(4096)
    end = query.index(0, 12) + 5
    answer = query[:2] + bytes.fromhex("8180 0001 0001 0000 0000") + query[12:end]
    answer += bytes.fromhex("c00c 0001 0001 0000003c 0004") + socket.inet_aton("192.0.2.77")
    channel.sendto(answer, peer)
"""
