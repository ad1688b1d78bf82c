"""A cluster of two machines: the second one joins, takes its part in everything, is cut off and comes back, and leaves."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import Cluster, Kubectl, Traces, deployment, eventually
from lan import lan, on
from test_policy import policy
from traffic import HTTP, REFUSED, SILENT, Net, Prober, client_pod, server_pod, service_object

from sampan.base import pki

FIRST, SECOND = "192.0.2.1", "198.51.100.1"
ROUTERS = {FIRST: "192.0.2.254", SECOND: "198.51.100.254"}
NODES = {"a": "node-1", "b": "second"}


def asked(netns: str, address: str, port: int) -> str:
    """What somebody in a namespace is answered, or the error's name."""
    prober = Prober(None, netns=netns)
    try:
        return prober.ask(address, port)
    finally:
        prober.close()


def state(netns: str) -> list[str]:
    """What a cluster could leave in a machine."""
    links = [line.split()[0] for line in on(netns, "ip -br link").splitlines()]
    return [*links, on(netns, "ip route"), on(netns, "ip rule"), on(netns, "nft list tables")]


@dataclass
class Machines:
    first: Cluster
    second: Cluster
    router: str

    def join(self, *more: str, command: str = "") -> subprocess.CompletedProcess[str]:
        """Type on the second machine what the first one printed."""
        words = command or self.first.sampan("token create").strip()
        return self.second.run(" ".join([words.removeprefix("sampan "), "--node-name=second", *more]))

    def refused(self, *more: str, command: str = "") -> str:
        done = self.join(*more, command=command)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr + done.stdout
        assert not self.second.data.exists()
        return done.stderr

    def cable(self, way: str) -> None:
        """Of the second machine, "down" or "up"."""
        on(self.router, f"ip link set second {way}")

    def ready(self, status: str = "True") -> None:
        self.first.kubectl().wait("node/second", f"condition=Ready={status}")


@pytest.fixture(scope="module")
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of the router and both machines."""
    machines = {name: (address, ROUTERS[address]) for name, address in (("first", FIRST), ("second", SECOND))}
    with lan(tmp_path_factory.mktemp("lan"), machines, 24) as paths:
        yield paths


@pytest.fixture(scope="module")
def machines(namespaces: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Both, joined. At the end nothing is left on either."""
    before = {name: state(namespaces[name]) for name in ("first", "second")}
    first, second = (
        Cluster(f"{name}-{os.getpid()}", tmp_path_factory.mktemp(name), netns=namespaces[name])
        for name in ("first", "second")
    )
    both = Machines(first, second, namespaces["router"])
    try:
        first.up(f"--advertise={FIRST}", "--node-monitor-grace-period=6", "--node-status-update-frequency=1")
        done = both.join()
        assert done.returncode == 0, done.stderr + done.stdout
        assert "packets between the machines get through" in done.stdout
        yield both
        complaints = first.complaints() + second.complaints()
    finally:
        second.run("down")
        first.run("down")
    assert complaints == ""
    for cluster, name in ((first, "first"), (second, "second")):
        assert Traces(cluster).found() == {}
        assert state(namespaces[name]) == before[name]


@pytest.fixture(scope="module")
def net(machines: Machines) -> Iterator[Net]:
    """Servers web-a, web-b (app=web) and clients client-a, client-b on the two machines."""
    net = Net(machines.first.kubectl("net"))
    net.kubectl("create namespace net")
    net.kubectl.wait("serviceaccount/default", "create")
    for name, node in NODES.items():
        net.kubectl.apply(server_pod(f"web-{name}", node, {"app": "web"}))
        net.kubectl.apply(client_pod(f"client-{name}", node, {"app": "client"}))
    net.kubectl.apply(service_object("web"), service_object("node-port", type="NodePort"))
    net.kubectl.wait("pods --all", seconds=90)
    net.learn()
    yield net
    net.close()


@pytest.fixture
def kubectl(net: Net) -> Kubectl:
    return net.kubectl


def test_pods_reach_each_other_both_ways(net: Net) -> None:
    for here, there in (("a", "b"), ("b", "a")):
        prober = net.prober(f"client-{here}")
        prober.settles(net.ip(f"web-{there}"), 8080, f"web-{there}")
        prober.settles(net.ip(f"web-{there}"), 5353, f"web-{there}", "UDP")
        answer = prober.ask(net.ip(f"web-{there}"), 8080)
        assert answer.split()[1].startswith(net.ip(f"client-{here}")), "the source address is kept"


def test_services_have_endpoints_on_both(net: Net, kubectl: Kubectl, machines: Machines) -> None:
    address = kubectl.get("service/web")["spec"]["clusterIP"]
    for name in ("client-a", "client-b"):
        net.prober(name).reaches(address, 80, ["web-a", "web-b"])
    port = kubectl.get("service/node-port")["spec"]["ports"][0]["nodePort"]
    for machine in (FIRST, SECOND):
        assert asked(machines.router, machine, port).startswith("web-"), machine


def test_names_resolve_on_the_second_machine(net: Net, kubectl: Kubectl) -> None:
    address = kubectl.get("service/web")["spec"]["clusterIP"]
    assert net.prober("client-b").order("resolve", name="web.net.svc.cluster.local") == [address]
    api = (
        "import socket; print(socket.create_connection(('kubernetes.default.svc', 443), 5).getpeername()[1])"
    )
    assert kubectl(f'exec client-b -- python3 -c "{api}"') == "443\n", "pods there reach the API"


def test_large_answers_pass(net: Net) -> None:
    """The tunnel is narrower than the network around it, and pods know."""
    for here, there in (("a", "b"), ("b", "a")):
        sent = net.prober(f"client-{here}").order(
            "send_big", address=net.ip(f"web-{there}"), port=8080, size=5_000_000
        )
        assert sent == 5_000_000


def test_policies_hold_across(net: Net, kubectl: Kubectl) -> None:
    allowed = {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}
    kubectl.apply(policy("only-web", "net", policyTypes=["Ingress"], **allowed))
    try:
        for here, there in (("a", "b"), ("b", "a")):
            net.prober(f"client-{here}").settles(net.ip(f"web-{there}"), 8080, SILENT, timeout=1)
    finally:
        kubectl("delete networkpolicy only-web")
    net.prober("client-a").settles(net.ip("web-b"), 8080, "web-b")


def test_logs_exec_and_port_forward(kubectl: Kubectl) -> None:
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker"}, "spec": talker()})
    kubectl.wait("pod/talker")
    assert "said on the second" in eventually(lambda: kubectl("logs talker"), "a log")
    assert kubectl("exec -i talker -- cat", input="through the tunnel") == "through the tunnel"
    with kubectl.stream("port-forward pod/web-b :8080") as forward:
        port = forward.until(r"127.0.0.1:(\d+)")[1]
        assert asked(kubectl.netns, "127.0.0.1", int(port)).startswith("web-b")
    kubectl("delete pod talker --now")


def talker() -> dict[str, Any]:
    container = {"name": "main", "image": "localhost/host"}
    return {
        "nodeName": "second",
        "containers": [container | {"command": ["sh", "-c", "echo said on the second; sleep 1000"]}],
    }


def test_a_rolling_update_loses_no_request(net: Net, kubectl: Kubectl) -> None:
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    spread["labelSelector"] = {"matchLabels": {"app": "rolled"}}
    versions = [
        deployment(
            "rolled",
            server_pod("x")["spec"]["containers"][0] | {"env": [{"name": "VERSION", "value": version}]},
            replicas=4,
            pod={"topologySpreadConstraints": [spread], "terminationGracePeriodSeconds": 10},
        )
        for version in ("1", "2")
    ]
    kubectl.apply(versions[0])
    made = net.service("rolled", [HTTP], selector={"app": "rolled"})
    kubectl("rollout status deployment/rolled --timeout=90s")
    nodes = {pod["spec"]["nodeName"] for pod in kubectl.items("pods -l app=rolled")}
    assert nodes == set(NODES.values())
    address = made["spec"]["clusterIP"]
    probers = [net.prober(f"client-{name}") for name in NODES]
    for prober in probers:
        prober.settles(address, 80, "x")
        prober.order("load", key="roll", address=address, port=80, timeout=5, pause=0.01)
    kubectl.apply(versions[1])
    kubectl("rollout status deployment/rolled --timeout=90s")
    for prober in probers:
        result = prober.order("loaded", key="roll")
        assert result["errors"] == [], (prober.name, result)
    kubectl("delete deployment/rolled service/rolled --wait=false")


def test_status_tells_of_the_other_machine(machines: Machines) -> None:
    assert f"{SECOND}   second   Ready" in machines.first.sampan("status")
    assert f"node of https://{FIRST}:" in machines.second.sampan("status")
    assert "(second Ready)" in machines.second.sampan("status")


def test_a_cut_machine_keeps_its_pods_and_comes_back(machines: Machines, net: Net, kubectl: Kubectl) -> None:
    started = life(kubectl, "web-b")
    machines.cable("down")
    try:
        machines.ready("Unknown")
        net.prober("client-a").settles(net.ip("web-b"), 8080, SILENT, timeout=1)
    finally:
        machines.cable("up")
        on(machines.second.netns, f"ip route replace default via {ROUTERS[SECOND]}")
    machines.ready()
    net.forget("client-b")
    net.prober("client-b").settles(net.ip("web-a"), 8080, "web-a")
    address = kubectl.get("service/web")["spec"]["clusterIP"]
    for name in ("client-a", "client-b"):
        net.prober(name).reaches(address, 80, ["web-a", "web-b"])
    assert life(kubectl, "web-b") == started


def life(kubectl: Kubectl, name: str) -> tuple[str, int]:
    """When a pod's container started, and how often it was restarted."""
    status = kubectl.get(f"pod/{name}")["status"]["containerStatuses"][0]
    return status["state"]["running"]["startedAt"], status["restartCount"]


def test_the_second_lives_on_without_the_first(machines: Machines, net: Net, kubectl: Kubectl) -> None:
    """And the first comes back from a reboot with the second still part of it."""
    started, address = life(kubectl, "web-b"), net.ip("web-b")
    service = kubectl.get("service/web")["spec"]["clusterIP"]
    at_home = Prober(None, netns=machines.second.netns)
    at_home.reaches(service, 80, ["web-a", "web-b"])
    machines.first.sampan("stop")
    for name in ("client-a", "client-b"):
        net.forget(name)
    assert asked(machines.second.netns, address, 8080).startswith("web-b")
    assert at_home.asks(service, 80)["web-b"], "its rules stay"
    at_home.close()
    assert "does not answer" in machines.second.sampan("status")
    machines.first.up()
    machines.ready()
    kubectl.wait("pods --all", seconds=90)
    net.learn()
    for name in ("client-a", "client-b"):
        net.prober(name).reaches(service, 80, ["web-a", "web-b"])
    assert life(kubectl, "web-b") == started


def test_the_second_comes_back_from_a_reboot(machines: Machines, net: Net, kubectl: Kubectl) -> None:
    for pid in machines.second.processes("cluster import supervisor"):
        with suppress(ProcessLookupError):  # the first one takes others along
            os.kill(pid, 9)
    eventually(lambda: not machines.second.processes("sampan.cluster"), "all has ended")
    certificate = let_age(machines)
    assert "Ready" in machines.second.up()
    machines.ready()
    eventually(lambda: pki.expires(certificate.read_bytes()) > time.time() + 86_400, "it is renewed")
    net.forget("client-b")
    kubectl.wait("pods --all", seconds=90)
    net.learn()
    net.prober("client-b").settles(net.ip("web-a"), 8080, "web-a")


def let_age(machines: Machines) -> Path:
    """The second's certificate is about to end from now on."""
    keys, path = machines.first.data / "pki", machines.second.data / "pki/nodes/second.crt"
    ca = pki.CA(pki.KeyPair.load(keys / "ca.crt", keys / "ca.key"))
    old = time.time() - 0.95 * 86_400
    ca.issue("system:node:second", ("system:nodes",), days=1, now=old).save(path, path.with_suffix(".key"))
    return path


def test_a_tunnel_that_somebody_deletes_comes_back(machines: Machines, net: Net) -> None:
    """Both what it is and what it knew."""
    fabric = f"nsenter --net=/run/sampan/{machines.second.name}/fabric"

    def entries() -> list[str]:
        lines = on("", f"{fabric} bridge fdb show dev machines").splitlines()
        return sorted(line for line in lines if " dst " in line)

    before = entries()
    assert before
    on("", f"{fabric} ip link delete machines")
    eventually(lambda: entries() == before, "the table is as it was")
    net.prober("client-a").settles(net.ip("web-b"), 8080, "web-b")


def test_what_only_the_first_can_do(machines: Machines) -> None:
    for command in ("node add third", "token create", "backup /dev/null", "up --nodes=3"):
        done = machines.second.run(command)
        assert done.returncode == 1 and "has joined the cluster at" in done.stderr, (command, done.stderr)
    assert "has joined" in machines.join().stderr


def test_a_node_that_is_deleted_while_its_machine_runs(machines: Machines) -> None:
    """Nobody else gets its place, and with its next start it is back in it."""
    kubectl = machines.first.kubectl()
    before = kubectl.get("node/second")
    kubectl("delete node second")
    assert SECOND in kubectl.get("configmap/sampan-places -n kube-system")["data"].values()
    assert "it has no node second" in machines.second.sampan("status")
    machines.second.sampan("stop")
    machines.second.up()
    machines.ready()
    after = kubectl.get("node/second")
    assert after["spec"]["podCIDRs"] == before["spec"]["podCIDRs"]
    assert {k: v for k, v in after["metadata"]["annotations"].items() if "sampan.dev" in k} == {
        "sampan.dev/machine-address": SECOND,
        "sampan.dev/machine-host": before["metadata"]["annotations"]["sampan.dev/machine-host"],
    }


def test_a_machine_whose_address_has_changed(machines: Machines) -> None:
    on(machines.second.netns, "ip address add 198.51.100.9/24 dev lan")
    wished = machines.second.run("up --advertise=198.51.100.9")
    assert f"{SECOND} and keeps it" in wished.stderr and "sampan down" in wished.stderr
    on(machines.second.netns, f"ip address delete {SECOND}/24 dev lan")
    try:
        for done in (machines.second.run("up"), machines.join()):
            assert done.returncode == 1 and f"{SECOND}, which it no longer has" in done.stderr, done.stderr
    finally:
        on(machines.second.netns, "ip address flush dev lan scope global")
        on(machines.second.netns, f"ip address add {SECOND}/24 dev lan")
        on(machines.second.netns, f"ip route replace default via {ROUTERS[SECOND]}")
    machines.ready()


def test_leaving_and_what_may_be_wrong_with_joining(machines: Machines) -> None:
    machines.second.sampan("down")
    assert not machines.second.data.exists()
    kubectl = machines.first.kubectl()
    assert "second" not in kubectl("get nodes")
    assert not kubectl.get("configmap/sampan-places -n kube-system").get("data")
    command = machines.first.sampan("token create --description=test").strip()
    token = command.split("--token ")[1].split()[0]
    assert token in machines.first.sampan("token list")
    other_secret = command.replace(token, token[:-4] + ("aaaa" if token[-4:] != "aaaa" else "bbbb"))
    assert "another secret" in machines.refused(command=other_secret)
    assert "not the one that was meant" in machines.refused(command=command[:-4] + "0000")
    unknown = command.replace(token, "aaaaaa" + token[6:])
    assert "does not know token aaaaaa" in machines.refused(command=unknown)
    assert "a node node-1 already" in machines.refused("--node-name=node-1", command=command)
    assert "has no address" in machines.refused("--advertise=203.0.113.7", command=command)
    nobody = command.replace(FIRST, "192.0.2.254")
    assert "does not answer" in machines.refused(command=nobody)
    machines.first.sampan(f"token delete {token}")
    assert "has expired, or was deleted" in machines.refused(command=command)
    short = machines.first.sampan("token create --ttl=1s").strip()
    eventually(lambda: short.split()[4][:6] not in machines.first.sampan("token list"), "it has expired")
    assert "has expired" in machines.refused(command=short)
    on(machines.second.netns, "ip route add 10.0.0.0/8 dev lan")
    assert "has routes where" in machines.refused()
    on(machines.second.netns, "ip route delete 10.0.0.0/8 dev lan")
    on(machines.router, "nft add table ip cut")
    on(machines.router, "nft add chain ip cut f { type filter hook forward priority 0; }")
    on(machines.router, "nft add rule ip cut f udp dport 4789 drop")
    done = machines.join()
    assert done.returncode == 0 and "let UDP port 4789 through" in done.stdout, done.stdout + done.stderr
    on(machines.router, "nft delete table ip cut")
    machines.ready()


def test_a_firewall_of_a_machine_is_named(machines: Machines) -> None:
    chain = "{ type filter hook input priority 0; policy drop; }"
    on(machines.second.netns, "nft add table inet own")
    on(machines.second.netns, f"nft add chain inet own i {chain}")
    on(machines.second.netns, "nft insert rule inet own i ct state established accept")
    on(machines.second.netns, "nft insert rule inet own i iifname sampan* accept")
    try:
        told = re.search(r"warning: inet own i drops .*: nft '(.*)'", machines.second.up())
        assert told and told[1] == "insert rule inet own i udp dport 4789 accept"
        on(machines.second.netns, f"nft {told[1]}")
        assert "warning" not in machines.second.up()
    finally:
        on(machines.second.netns, "nft delete table inet own")


def test_who_did_not_ask_is_not_open(machines: Machines, tmp_path: Path) -> None:
    closed = Cluster(f"closed-{os.getpid()}", tmp_path, netns=machines.second.netns)
    machines.second.sampan("down")
    try:
        closed.up()
        done = closed.run("token create")
        assert done.returncode == 1 and "sampan up --advertise" in done.stderr
        port = closed.kubectl()("config view -o jsonpath={.clusters[0].cluster.server}").rpartition(":")[2]
        assert asked(machines.router, SECOND, int(port)) == REFUSED
        assert closed.kubectl().run("get configmap cluster-info -n kube-public").returncode != 0
    finally:
        closed.run("down")
