"""NetworkPolicy (networking.k8s.io/v1) on three nodes: every pair of pods and every port against a model's answer.

The model is the API reference, written as simply as possible. Traffic is real, in every scenario at once: nine pods in three
namespaces on three nodes, each asks all of them on TCP 80, TCP 81 and UDP 80.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from harness import HOST, PATIENCE, Cluster, Kubectl, eventually
from traffic import INSIDE, NODES, SILENT, Net, Prober, Silent, agent_of, client_pod, service_object

from sampan.base.objects import Object

SPACES, NAMES = ("px", "py", "pz"), ("a", "b", "c")
PORTS = (("TCP", 80, "serve-80-tcp"), ("TCP", 81, "serve-81-tcp"), ("UDP", 80, "serve-80-udp"))
BRIEF = 0.5  # seconds after which silence is taken for an answer


def pod(space: str, name: str, node: str) -> Object:
    container = {
        "name": "cont",
        "image": HOST,
        "command": ["python3", "-u", "-c", INSIDE, "serve", f"{space}/{name}", "80,81,90", "80"],
        "ports": [
            {"name": text, "containerPort": number, "protocol": proto} for proto, number, text in PORTS
        ],
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": {"pod": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def policy(name: str, space: str, **spec: Any) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": space},
        "spec": {"podSelector": {}} | spec,
    }


# The model


def fits(selector: Object, labels: Mapping[str, str]) -> bool:
    operators = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, values: key in labels,
        "DoesNotExist": lambda key, values: key not in labels,
    }
    expressions = selector.get("matchExpressions") or ()
    return all(labels.get(k) == v for k, v in (selector.get("matchLabels") or {}).items()) and all(
        operators[term["operator"]](term["key"], term.get("values", ())) for term in expressions
    )


class World:
    """The pods, their labels as they are, and who reaches whom."""

    def __init__(self, cluster: Cluster) -> None:
        self.admin = cluster.kubectl("")
        self.labels = {(s, n): {"pod": n} for s in SPACES for n in NAMES}
        self.spaces = {s: {"ns": s, "kubernetes.io/metadata.name": s} for s in SPACES}
        self.ips: dict[tuple[str, str], str] = {}
        self.probers: dict[tuple[str, str], Prober] = {}

    def build(self) -> None:
        for space in SPACES:
            self.admin.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": space, "labels": {"ns": space}},
                }
            )
            self.admin.wait(f"serviceaccount/default -n {space}", "create")
        for number, (space, name) in enumerate(self.labels):
            node = f"node-{(number + number // 3) % 3 + 1}"
            self.admin.apply(pod(space, name, node))
        for space in SPACES:
            self.admin(f"wait -n {space} --for=condition=Ready pods --all --timeout={PATIENCE}s")
            for item in self.admin.items(f"pods -n {space}"):
                self.ips[space, item["metadata"]["name"]] = item["status"]["podIP"]
        for space, name in self.labels:
            self.probers[space, name] = self.prober(space, name)

    def prober(self, space: str, name: str) -> Prober:
        """One that answers in that pod."""
        prober = Prober(Kubectl(self.admin.environment["KUBECONFIG"], space), name)
        try:
            prober.ask(self.ips[space, name], 80)
        except Silent as error:
            raise AssertionError from error
        return prober

    def apply(self, policies: list[Object]) -> None:
        wanted = {(p["metadata"]["namespace"], p["metadata"]["name"]) for p in policies}
        if policies:
            self.admin.apply(*policies)
        for item in self.admin.items("networkpolicies -A"):
            key = item["metadata"]["namespace"], item["metadata"]["name"]
            if key not in wanted:
                self.admin(f"delete networkpolicy -n {key[0]} {key[1]}")

    def allowed(self, policies: list[Object], source: Any, target: Any, protocol: str, port: int) -> bool:
        if source == target:
            return True
        for direction, own, other, peers in (
            ("Egress", source, target, "to"),
            ("Ingress", target, source, "from"),
        ):
            mine = [
                p["spec"]
                for p in policies
                if p["metadata"]["namespace"] == own[0]
                and fits(p["spec"]["podSelector"], self.labels[own])
                and direction in self._types(p["spec"])
            ]
            if mine and not any(
                self._rule(rule, peers, own[0], other, target, protocol, port)
                for spec in mine
                for rule in spec.get(direction.lower(), ())
            ):
                return False
        return True

    def _types(self, spec: Object) -> list[str]:
        return spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]

    def _rule(
        self, rule: Object, peers: str, space: str, other: Any, target: Any, protocol: str, port: int
    ) -> bool:
        if rule.get(peers) and not any(self._peer(peer, space, other) for peer in rule[peers]):
            return False
        return not rule.get("ports") or any(self._port(p, protocol, port) for p in rule["ports"])

    def _peer(self, peer: Object, space: str, other: tuple[str, str]) -> bool:
        if "ipBlock" in peer:
            address = ipaddress.ip_address(self.ips[other])
            inside = address in ipaddress.ip_network(peer["ipBlock"]["cidr"])
            return inside and not any(
                address in ipaddress.ip_network(hole) for hole in peer["ipBlock"].get("except", ())
            )
        if "namespaceSelector" in peer:
            if not fits(peer["namespaceSelector"], self.spaces[other[0]]):
                return False
        elif other[0] != space:
            return False
        return fits(peer.get("podSelector", {}), self.labels[other])

    def _port(self, wanted: Object, protocol: str, port: int) -> bool:
        if wanted.get("protocol", "TCP") != protocol:
            return False
        number = wanted.get("port", port)
        if isinstance(number, str):
            return any(number == text for proto, n, text in PORTS if (proto, n) == (protocol, port))
        return number <= port <= wanted.get("endPort", number)

    def expected(self, policies: list[Object]) -> dict[Any, bool]:
        return {
            (s, t, proto, port): self.allowed(policies, s, t, proto, port)
            for s in self.labels
            for t in self.labels
            for proto, port, _ in PORTS
        }

    def reality(self) -> dict[Any, bool]:
        targets = [
            {"address": self.ips[t], "port": port, "protocol": proto, "timeout": BRIEF}
            for t in self.labels
            for proto, port, _ in PORTS
        ]
        keys = [(t, proto, port) for t in self.labels for proto, port, _ in PORTS]

        def look(source: tuple[str, str]) -> dict[Any, bool]:
            answers = self.probers[source].order("matrix", targets=targets)
            return {
                (source, *key): answer.startswith("/".join(key[0]))
                for key, answer in zip(keys, answers, strict=True)
            }

        result: dict[Any, bool] = {}
        with ThreadPoolExecutor(3) as pool:
            for part in pool.map(look, self.labels):
                result |= part
        return result

    def check(self, policies: list[Object]) -> None:
        """Reality becomes what the model says."""
        expected = self.expected(policies)

        def wrong() -> list[str]:
            return [
                f"{'/'.join(s)} -> {'/'.join(t)} {proto}/{port} is {'open' if real else 'closed'}"
                for (s, t, proto, port), real in self.reality().items()
                if expected[s, t, proto, port] != real
            ]

        def look() -> bool:
            found = wrong()
            assert not found, "; ".join(found[:12])
            return True

        eventually(look, "the model's answer")


@pytest.fixture(scope="module")
def world(cluster: Cluster, inhabitants: Net) -> Iterator[World]:
    made = World(cluster)
    made.build()
    yield made
    for prober in made.probers.values():
        prober.close()
    made.admin(f"delete namespace {' '.join(SPACES)} --wait=false")


A = {"matchLabels": {"pod": "a"}}
X, Y, Z = ({"matchLabels": {"ns": space}} for space in SPACES)
AB = {"matchExpressions": [{"key": "pod", "operator": "In", "values": ["a", "b"]}]}
NOT_X = {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["px"]}]}
ONLY_IN, ONLY_OUT, BOTH = ["Ingress"], ["Egress"], ["Ingress", "Egress"]
EVERYWHERE = {"namespaceSelector": {}}

SCENARIOS: dict[str, list[Object]] = {
    "default deny ingress": [policy("p", "px", policyTypes=ONLY_IN)],
    "default deny egress": [policy("p", "px", policyTypes=ONLY_OUT)],
    "default deny all": [policy("p", "px", policyTypes=BOTH)],
    "everything explicitly allowed": [
        policy("p", "px", ingress=[{}], egress=[{}], policyTypes=BOTH),
        policy("q", "px"),
    ],
    "client pods of the same namespace": [
        policy("p", "px", podSelector=A, ingress=[{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}])
    ],
    "pods of every namespace": [policy("p", "px", podSelector=A, ingress=[{"from": [EVERYWHERE]}])],
    "a namespace": [policy("p", "px", podSelector=A, ingress=[{"from": [{"namespaceSelector": Y}]}])],
    "a namespace by its name": [
        policy(
            "p",
            "px",
            ingress=[
                {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "pz"}}}]}
            ],
        )
    ],
    "selectors with expressions": [
        policy(
            "p", "px", podSelector=AB, ingress=[{"from": [{"namespaceSelector": NOT_X, "podSelector": AB}]}]
        )
    ],
    "namespace and pod selector as one peer": [
        policy("p", "px", ingress=[{"from": [{"namespaceSelector": Y, "podSelector": A}]}])
    ],
    "namespace selector or pod selector": [
        policy("p", "px", ingress=[{"from": [{"namespaceSelector": Y}, {"podSelector": A}]}])
    ],
    "a port": [policy("p", "px", ingress=[{"ports": [{"port": 81}]}])],
    "a port of a peer, two rules": [
        policy(
            "p",
            "px",
            ingress=[
                {"from": [{"namespaceSelector": Y}], "ports": [{"port": 81}]},
                {"from": [{"namespaceSelector": Z}], "ports": [{"port": 80}]},
            ],
        )
    ],
    "several ports of a rule": [
        policy("p", "px", ingress=[{"ports": [{"port": 80, "protocol": "UDP"}, {"port": 81}]}])
    ],
    "a protocol whole": [policy("p", "px", ingress=[{"ports": [{"protocol": "UDP"}]}])],
    "a named port": [policy("p", "px", ingress=[{"ports": [{"port": "serve-81-tcp"}]}])],
    "a named UDP port going out": [
        policy(
            "p", "px", policyTypes=ONLY_OUT, egress=[{"ports": [{"port": "serve-80-udp", "protocol": "UDP"}]}]
        )
    ],
    "a range of ports": [policy("p", "px", ingress=[{"ports": [{"port": 81, "endPort": 90}]}])],
    "a range of ports going out": [
        policy("p", "py", policyTypes=ONLY_OUT, egress=[{"ports": [{"port": 1, "endPort": 80}]}])
    ],
    "egress to pods": [
        policy(
            "p",
            "px",
            podSelector=A,
            policyTypes=ONLY_OUT,
            egress=[{"to": [{"podSelector": A}, {"namespaceSelector": Y}]}],
        )
    ],
    "egress to a port of a namespace": [
        policy(
            "p",
            "px",
            policyTypes=ONLY_OUT,
            egress=[{"to": [{"namespaceSelector": Y, "podSelector": AB}], "ports": [{"port": 80}]}],
        )
    ],
    "policies add up": [
        policy("p", "px", podSelector=A, ingress=[{"ports": [{"port": 80}]}]),
        policy("q", "px", podSelector=A, ingress=[{"ports": [{"port": 81}]}]),
        policy("r", "px"),
    ],
    "egress and ingress must both allow": [
        policy("p", "px", policyTypes=ONLY_OUT, egress=[{"to": [{"namespaceSelector": Y}]}]),
        policy("q", "py", podSelector=A, ingress=[{"from": [{"namespaceSelector": Z}]}]),
        policy("r", "py", podSelector={"matchLabels": {"pod": "b"}}, ingress=[{"from": [EVERYWHERE]}]),
    ],
    "nothing is selected": [policy("p", "px", podSelector={"matchLabels": {"pod": "nobody"}})],
    "peers that do not exist": [
        policy("p", "px", ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"ns": "none"}}}]}])
    ],
    "an empty list of peers is everybody": [
        policy("p", "px", ingress=[{"from": [], "ports": [{"port": 80}]}])
    ],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_who_may_reach_whom_under_policies(world: World, name: str) -> None:
    world.apply(SCENARIOS[name])
    world.check(SCENARIOS[name])


def test_address_blocks(world: World) -> None:
    mine, hole = world.ips["py", "a"], world.ips["py", "b"]
    around = ipaddress.ip_network(f"{mine}/16", strict=False)
    for policies in (
        [policy("p", "px", ingress=[{"from": [{"ipBlock": {"cidr": f"{mine}/32"}}]}])],
        [
            policy(
                "p", "px", ingress=[{"from": [{"ipBlock": {"cidr": str(around), "except": [f"{hole}/32"]}}]}]
            )
        ],
        [
            policy(
                "p",
                "px",
                policyTypes=ONLY_OUT,
                egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"{mine}/32", f"{hole}/32"]}}]}],
            )
        ],
        [
            policy(
                "p", "px", ingress=[{"from": [{"ipBlock": {"cidr": str(around), "except": [f"{hole}/32"]}}]}]
            ),
            policy("q", "px", podSelector=A, ingress=[{"from": [{"ipBlock": {"cidr": f"{hole}/32"}}]}]),
        ],
    ):
        world.apply(policies)
        world.check(policies)


def test_labels_and_namespaces_change(world: World) -> None:
    policies = [policy("p", "px", ingress=[{"from": [{"namespaceSelector": Y, "podSelector": A}]}])]
    world.apply(policies)
    world.check(policies)
    try:
        world.admin("label pod -n py b pod=a --overwrite")
        world.labels["py", "b"] = {"pod": "a"}
        world.check(policies)
        world.admin("label namespace py ns=other --overwrite")
        world.spaces["py"] = world.spaces["py"] | {"ns": "other"}
        world.check(policies)
    finally:
        world.admin("label pod -n py b pod=b --overwrite")
        world.admin("label namespace py ns=py --overwrite")
        world.labels["py", "b"] = {"pod": "b"}
        world.spaces["py"] = world.spaces["py"] | {"ns": "py"}
    world.check(policies)


def test_policies_are_changed_in_place(world: World) -> None:
    for rule in ({"ports": [{"port": 80}]}, {"from": [{"namespaceSelector": Z}]}, {}):
        policies = [policy("p", "px", ingress=[rule])]
        world.apply(policies)
        world.check(policies)


def test_services_hairpins_and_the_nodes(world: World) -> None:
    """A policy speaks of pods, also behind a Service; a pod's own node reaches it always (probes)."""
    world.admin(
        "apply -n px -f -",
        input=json.dumps(service_object("a", [{"port": 80}], selector={"pod": "a"}, type="NodePort")),
    )
    service = world.admin.get("service/a -n px")
    address = service["spec"]["clusterIP"]
    policies = [policy("p", "px", podSelector=A, ingress=[{"from": [{"namespaceSelector": Y}]}])]
    world.apply(policies)
    world.check(policies)
    world.probers["py", "c"].settles(address, 80, "px/a")
    world.probers["px", "b"].settles(address, 80, SILENT, timeout=BRIEF)
    world.probers["px", "a"].settles(address, 80, "px/a")  # a hairpin
    world.admin(f"wait -n px --for=condition=Ready pod/a --timeout={PATIENCE}s")
    world.admin("delete service a -n px")


def test_dns_under_a_policy_for_egress(world: World) -> None:
    """The usual pair of policies: deny everything out but DNS."""
    policies = [policy("p", "px", podSelector=A, policyTypes=ONLY_OUT)]
    world.apply(policies)
    world.check(policies)
    dns = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 53, "protocol": "UDP"}]}
    allowed = [policy("p", "px", podSelector=A, policyTypes=ONLY_OUT, egress=[dns])]
    world.apply(allowed)
    prober = world.probers["px", "a"]
    eventually(lambda: prober.order("resolve", name="kubernetes.default")[0].endswith(".0.1"), "a name")


def test_no_hole_while_policies_come_and_go(world: World) -> None:
    """Under traffic: a pod that some policy always isolates is never open, one that is always allowed never closed."""
    deny = policy("always", "px", podSelector=A, ingress=[{"from": [{"namespaceSelector": Y}]}])
    world.apply([deny])
    world.check([deny])
    bad, good = world.probers["pz", "a"], world.probers["py", "a"]
    bad.order("load", key="bad", address=world.ips["px", "a"], port=80, timeout=0.2, threads=6)
    good.order("load", key="good", address=world.ips["px", "a"], port=80, threads=3)
    for number in range(8):
        more = policy(
            f"extra-{number}",
            "px",
            ingress=[
                {
                    "from": [{"podSelector": {"matchLabels": {"n": str(number)}}}],
                    "ports": [{"port": number + 1}],
                }
            ],
        )
        world.admin.apply(more)
        if number % 2:
            world.admin(f"delete networkpolicy -n px extra-{number - 1}")
    world.apply([deny])
    assert set(bad.order("loaded", key="bad")["answers"]) == {"TimeoutError"}
    result = good.order("loaded", key="good")
    assert result["errors"] == [] and sum(result["answers"].values()) > 20


def test_connections_from_before_end_and_those_allowed_go_on(world: World) -> None:
    world.apply([])
    world.check([])
    target = world.ips["px", "a"]
    for space in ("py", "pz"):
        assert world.probers[space, "a"].order("open", key="old", address=target, port=90).startswith("px/a")
    policies = [policy("p", "px", ingress=[{"from": [{"namespaceSelector": Y}]}])]
    world.apply(policies)
    world.check(policies)
    assert world.probers["py", "a"].order("say", key="old") == "hello"
    other = world.probers["pz", "a"]  # connections are judged a moment after new ones are refused
    eventually(lambda: other.order("say", key="old", timeout=0.5) == "TimeoutError", "it is ended")
    for space in ("py", "pz"):
        world.probers[space, "a"].order("close", key="old")


def test_a_new_pod_is_isolated_from_its_first_packet(world: World) -> None:
    """It tries to get out, and a neighbour to get in, from the moment it exists."""
    policies = [policy("p", "px", podSelector={"matchLabels": {"pod": "young"}}, policyTypes=BOTH)]
    world.apply(policies)
    world.check(policies)
    target = world.ips["px", "a"]
    code = f"""
import socket
for _ in range(300):
    try:
        socket.create_connection(("{target}", 80), 0.01)
        print("out", flush=True)
        break
    except OSError:
        pass
"""
    for number in range(5):
        young = client_pod(
            f"young-{number}", f"node-{number % 3 + 1}", {"pod": "young"}, restartPolicy="Never"
        )
        young["spec"]["containers"][0]["command"] = ["python3", "-c", code]
        world.admin("apply -n px -f -", input=json.dumps(young))
    for number in range(5):
        world.admin(
            f"wait -n px --for=jsonpath={{.status.phase}}=Succeeded pod/young-{number} --timeout={PATIENCE}s"
        )
        assert world.admin(f"logs -n px young-{number}") == "", "it got out"
    world.admin("delete pod -n px -l pod=young --now")


def test_policies_hold_while_the_agent_is_away(world: World, cluster: Cluster) -> None:
    policies = SCENARIOS["egress and ingress must both allow"]
    world.apply(policies)
    world.check(policies)
    expected = world.expected(policies)
    for node in NODES:
        os.kill(agent_of(cluster, node), signal.SIGKILL)
    for space, name in world.labels:
        world.probers[space, name].close()  # its stream went through the agent
        world.probers[space, name] = eventually(
            lambda s=space, n=name: world.prober(s, n), "the agent is back"
        )
    assert world.reality() == expected
    world.check(policies)
