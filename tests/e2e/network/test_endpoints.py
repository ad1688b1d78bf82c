"""Endpoints come and go while clients talk: readiness, termination, UDP clients that never hang up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import Kubectl, eventually
from traffic import REFUSED, UDP, Net, server_pod

Make = Callable[..., dict[str, Any]]
DNS = {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": UDP}
HTTP = {"name": "http", "port": 80, "targetPort": "http"}
UNREADY = {
    "readinessProbe": {"exec": {"command": ["sh", "-c", "! test -e /tmp/unready"]}, "periodSeconds": 1}
}


def test_only_ready_pods_are_called(net: Net, kubectl: Kubectl, service: Make) -> None:
    kubectl.apply(
        *(server_pod(f"ready-{i}", f"node-{i}", {"app": "ready"}, container=UNREADY) for i in (1, 2))
    )
    kubectl.wait("pod/ready-1 pod/ready-2")
    address = service(selector={"app": "ready"})["spec"]["clusterIP"]
    prober = net.prober("client-3")
    prober.reaches(address, 80, ("ready-1", "ready-2"))
    kubectl("exec ready-1 -- touch /tmp/unready")
    prober.reaches(address, 80, ["ready-2"])
    kubectl("exec ready-2 -- touch /tmp/unready")
    prober.settles(address, 80, REFUSED)
    kubectl("exec ready-1 -- rm /tmp/unready")
    prober.reaches(address, 80, ["ready-1"])


def test_publish_not_ready_addresses(net: Net, kubectl: Kubectl, service: Make) -> None:
    never = {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}
    kubectl.apply(server_pod("never", "node-1", {"app": "never"}, container=never))
    kubectl.wait("pod/never", "jsonpath={.status.phase}=Running")
    address = service(selector={"app": "never"}, publishNotReadyAddresses=True)["spec"]["clusterIP"]
    net.prober("client-2").reaches(address, 80, ["never"])
    strict = net.service("strict", selector={"app": "never"})["spec"]["clusterIP"]
    net.prober("client-2").settles(strict, 80, REFUSED)


def test_a_terminating_pod_serves_while_it_is_the_last(net: Net, kubectl: Kubectl, service: Make) -> None:
    """KEP-1669: with no ready endpoint left, those that terminate but still serve are used."""
    linger = {"env": [{"name": "LINGER", "value": "300"}]}
    kubectl.apply(
        *(
            server_pod(
                f"last-{i}", f"node-{i}", {"app": "last"}, container=linger, terminationGracePeriodSeconds=300
            )
            for i in (1, 2)
        )
    )
    kubectl.wait("pod/last-1 pod/last-2")
    address = service(selector={"app": "last"})["spec"]["clusterIP"]
    prober = net.prober("client-3")
    prober.reaches(address, 80, ("last-1", "last-2"))
    kubectl("delete pod last-1 --wait=false")
    prober.reaches(address, 80, ["last-2"])
    prober.order("load", key="last", address=address, port=80)
    kubectl("delete pod last-2 --wait=false")
    eventually(lambda: "last-2" in prober.asks(address, 80, times=10), "still served")
    result = prober.order("loaded", key="last")
    assert result["errors"] == []
    kubectl("delete pod last-1 last-2 --now --wait=false")
    prober.settles(address, 80, REFUSED)


def test_open_connections_outlive_their_endpoint(net: Net, kubectl: Kubectl, service: Make) -> None:
    """A pod that leaves the Service (its label goes) gets no new connections and keeps those it has."""
    kubectl.apply(server_pod("leaver", "node-2", {"app": "leaver"}))
    kubectl.wait("pod/leaver")
    address = service(selector={"app": "leaver"})["spec"]["clusterIP"]
    prober = net.prober("client-1")
    prober.reaches(address, 80, ["leaver"])
    assert prober.order("open", key="kept", address=address, port=80).startswith("leaver")
    kubectl("label pod leaver app-")
    prober.settles(address, 80, REFUSED)
    assert prober.order("say", key="kept") == "hello"
    prober.order("close", key="kept")


def test_udp_clients_are_moved_from_endpoints_that_go(net: Net, kubectl: Kubectl, service: Make) -> None:
    kubectl.apply(server_pod("udp-1", "node-1", {"app": "udp"}))
    kubectl.wait("pod/udp-1")
    address = service(DNS, selector={"app": "udp"})["spec"]["clusterIP"]
    places = [net.prober(name) for name in ("client-1", "client-2", "host-3", "host")]
    for prober in places:
        prober.reaches(address, 53, ["udp-1"], "UDP")
        prober.order("open", key="udp", address=address, port=53, protocol="UDP")
        assert prober.order("say", key="udp").startswith("udp-1")
    kubectl.apply(server_pod("udp-2", "node-2", {"app": "udp"}))
    kubectl.wait("pod/udp-2")
    kubectl("delete pod udp-1 --wait=false")
    for prober in places:
        eventually(lambda prober=prober: prober.order("say", key="udp").startswith("udp-2"), prober.name)
    kubectl("delete pod udp-2 --now")
    for prober in places:
        eventually(
            lambda prober=prober: not prober.order("say", key="udp", timeout=0.3).startswith("udp"),
            prober.name,
        )
    kubectl.apply(server_pod("udp-3", "node-3", {"app": "udp"}))
    kubectl.wait("pod/udp-3")
    for prober in places:
        eventually(lambda prober=prober: prober.order("say", key="udp").startswith("udp-3"), prober.name)
        prober.order("close", key="udp")


def test_scaling_up_and_down(net: Net, kubectl: Kubectl, service: Make) -> None:
    address = service(HTTP, selector={"app": "scaled"})["spec"]["clusterIP"]
    prober = net.prober("client-2")
    for wanted in (1, 4, 2, 0):
        present = {name.removeprefix("pod/") for name in kubectl("get pods -l app=scaled -o name").split()}
        names = {f"scaled-{i}" for i in range(wanted)}
        for name in sorted(present - names):
            kubectl(f"delete pod {name} --wait=false --ignore-not-found")  # it may be ending
        if names - present:
            kubectl.apply(
                *(
                    server_pod(n, f"node-{int(n[-1]) % 3 + 1}", {"app": "scaled"})
                    for n in sorted(names - present)
                )
            )
            kubectl.wait("pods -l app=scaled")
        if names:
            prober.reaches(address, 80, sorted(names), times=40)
        else:
            prober.settles(address, 80, REFUSED)
