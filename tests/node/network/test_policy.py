"""NetworkPolicy with real connections: every pod to every pod, compared with a model's answer."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from picture import Picture

from sampan.base.clock import RealClock
from sampan.node.network.enforcement import PolicyEnforcer

pytestmark = pytest.mark.root

NAMED = {80: "serve-80", 81: "serve-81"}


def pod_object(namespace, name, node, address="", labels=None, **status):
    ports = [{"name": text, "containerPort": number} for number, text in NAMED.items()]
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {"pod": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": ports}]},
        "status": {"podIP": address, "podIPs": [{"ip": address}]} | status,
    }


def namespace_object(name, **labels):
    return {"kind": "Namespace", "metadata": {"name": name, "labels": {"ns": name} | labels}}


def policy(name, namespace, **spec):
    return {
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}} | spec,
    }


# The model: what the API reference says, written as simply as possible.


def _labels_match(selector, labels):
    matches = all(labels.get(k) == v for k, v in (selector.get("matchLabels") or {}).items())
    for term in selector.get("matchExpressions") or ():
        inside = labels.get(term["key"]) in (term.get("values") or ())
        matches &= {"In": inside, "NotIn": not inside, "Exists": term["key"] in labels}[term["operator"]]
    return matches


def _peer_matches(peer, namespace, other, namespaces):
    if "ipBlock" in peer:
        address = ipaddress.ip_address(other["status"]["podIP"])
        block = peer["ipBlock"]
        excluded = any(address in ipaddress.ip_network(hole) for hole in block.get("except", ()))
        return address in ipaddress.ip_network(block["cidr"]) and not excluded
    meta = other["metadata"]
    if "namespaceSelector" in peer:
        if not _labels_match(peer["namespaceSelector"], namespaces[meta["namespace"]]):
            return False
    elif meta["namespace"] != namespace:
        return False
    return _labels_match(peer.get("podSelector", {}), meta["labels"])


def _port_matches(port, number):
    wanted = port.get("port", number)
    if isinstance(wanted, str):
        return NAMED[number] == wanted
    return port.get("protocol", "TCP") == "TCP" and wanted <= number <= port.get("endPort", wanted)


def allowed(policies, source, target, number, namespaces):
    if source is target:
        return True
    for direction, pod, other, peers in (
        ("egress", source, target, "to"),
        ("ingress", target, source, "from"),
    ):
        mine = [
            p["spec"]
            for p in policies
            if p["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and _labels_match(p["spec"]["podSelector"], pod["metadata"]["labels"])
            and direction.capitalize() in p["spec"].get("policyTypes", ["Ingress"])
        ]
        space = pod["metadata"]["namespace"]
        fits = any(
            (
                not rule.get(peers)
                or any(_peer_matches(peer, space, other, namespaces) for peer in rule[peers])
            )
            and (not rule.get("ports") or any(_port_matches(port, number) for port in rule["ports"]))
            for spec in mine
            for rule in spec.get(direction, ())
        )
        if mine and not fits:
            return False
    return True


A = {"matchLabels": {"pod": "a"}}
X, Y = {"matchLabels": {"ns": "x"}}, {"matchLabels": {"ns": "y"}}
SCENARIOS = {
    "none": [],
    "default deny ingress": [policy("p", "x", policyTypes=["Ingress"])],
    "default deny egress": [policy("p", "x", policyTypes=["Egress"])],
    "allow all": [policy("deny", "x"), policy("p", "x", ingress=[{}])],
    "from pods of the namespace": [policy("p", "x", ingress=[{"from": [{"podSelector": A}]}])],
    "from a namespace": [policy("p", "x", ingress=[{"from": [{"namespaceSelector": Y}]}])],
    "from pods of a namespace, on a port": [
        policy(
            "p",
            "x",
            podSelector=A,
            ingress=[{"from": [{"namespaceSelector": Y, "podSelector": A}], "ports": [{"port": 80}]}],
        )
    ],
    "two rules add up": [
        policy("p", "y", ingress=[{"from": [{"namespaceSelector": X}]}, {"ports": [{"port": 81}]}])
    ],
    "two policies add up": [
        policy("p", "y", ingress=[{"from": [{"namespaceSelector": X}]}]),
        policy("q", "y", podSelector=A, ingress=[{"ports": [{"port": 81}]}]),
    ],
    "named ports": [
        policy("p", "x", ingress=[{"ports": [{"port": "serve-81"}]}]),
        policy("q", "y", policyTypes=["Egress"], egress=[{"ports": [{"port": "serve-80"}]}]),
    ],
    "a range of ports": [policy("p", "x", ingress=[{"ports": [{"port": 70, "endPort": 80}]}])],
    "egress and ingress both count": [
        policy("p", "x", policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": Y}]}]),
        policy("q", "y", podSelector=A, ingress=[{"from": [{"namespaceSelector": Y}]}]),
    ],
    "an address block with a hole": [
        policy(
            "p",
            "x",
            ingress=[{"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]}}]}],
        )
    ],
    "expressions": [
        policy(
            "p",
            "y",
            ingress=[
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["y"]}]
                            },
                            "podSelector": {"matchExpressions": [{"key": "pod", "operator": "Exists"}]},
                        }
                    ]
                }
            ],
        )
    ],
    "udp only": [policy("p", "x", ingress=[{"ports": [{"protocol": "UDP", "port": 80}]}])],
}


class World:
    """Four pods on two nodes in two namespaces, with servers, and an enforcer on each node."""

    def __init__(self, machine):
        self.machine = machine
        self.namespaces = {"x": {"ns": "x"}, "y": {"ns": "y"}}
        self.view = Picture(*(namespace_object(name) for name in self.namespaces))
        self.pods = {}
        self.enforcers = []

    async def start(self):
        for number, (space, name) in enumerate((s, n) for s in "xy" for n in "ab"):
            index = number % 2 if space == "x" else (number + 1) % 2
            address = await self.machine.pod(f"{space}{name}", index)
            for port in NAMED:
                self.machine.serve(f"{space}{name}", port)
            self.pods[f"{space}{name}"] = pod = pod_object(space, name, f"node-{index}", address)
            self.view.put(pod)
        for index in range(2):
            enforcer = PolicyEnforcer(self.view, RealClock(), f"node-{index}", self.machine.node(index))
            await enforcer.start()
            self.enforcers.append(enforcer)

    async def apply(self, policies):
        for old in self.view.list("networkpolicies.networking.k8s.io"):
            self.view.delete(old)
        for new in policies:
            self.view.put(new)
        await self.settled()

    async def settled(self):
        for enforcer in self.enforcers:
            await enforcer.settled()

    def reality(self, expected):
        """Whom each pod reaches. An answer that must come may take its time; that none comes is seen soon."""
        pairs = [(s, t, p) for s in self.pods for t in self.pods for p in NAMED]

        def probe(pair):
            source, target, port = pair
            answer = self.machine.ask(
                source, self.pods[target]["status"]["podIP"], port, 5.0 if expected[pair] else 0.35
            )
            return answer.startswith(target)

        with ThreadPoolExecutor(len(pairs)) as pool:
            return dict(zip(pairs, pool.map(probe, pairs), strict=True))

    def expected(self, policies):
        return {
            (s, t, p): allowed(policies, self.pods[s], self.pods[t], p, self.namespaces)
            for s in self.pods
            for t in self.pods
            for p in NAMED
        }

    async def stop(self):
        for enforcer in self.enforcers:
            await enforcer.stop()


@pytest.fixture
async def world(machine):
    made = World(machine)
    await made.start()
    yield made
    await made.stop()


async def test_every_pair_of_pods_is_as_the_model_says(world):
    for name, policies in SCENARIOS.items():
        await world.apply(policies)
        expected = world.expected(policies)
        reality = world.reality(expected)
        assert {k: v for k, v in reality.items() if v != expected[k]} == {}, name
    listing = subprocess.run(
        ["nsenter", f"--net={world.machine.node(0)}", "nft", "list", "table", "ip", "sampan-policy"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "invalid" not in listing


async def test_pods_that_change_labels_come_and_go(world):
    only_a = [policy("p", "x", ingress=[{"from": [{"namespaceSelector": Y, "podSelector": A}]}])]
    await world.apply(only_a)
    for labels in ({"pod": "b"}, {"pod": "a"}, {}):
        changed = world.pods["yb"] | {"metadata": world.pods["yb"]["metadata"] | {"labels": labels}}
        world.pods["yb"] = changed
        world.view.put(changed)
        await world.settled()
        expected = world.expected(only_a)
        assert world.reality(expected) == expected, labels
    world.namespaces["y"] = {"ns": "other"}
    world.view.put(namespace_object("y") | {"metadata": {"name": "y", "labels": {"ns": "other"}}})
    await world.settled()
    expected = world.expected(only_a)
    assert world.reality(expected) == expected


async def test_nothing_is_left_when_the_last_policy_goes(world):
    await world.apply(SCENARIOS["named ports"])
    await world.apply([])
    table = subprocess.run(
        ["nsenter", f"--net={world.machine.node(0)}", "nft", "list", "table", "ip", "sampan-policy"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pods-" not in table and "ports-" not in table
    assert table.count("drop") == 1, "only that of connections marked as ended"
    assert "elements" not in table


async def test_the_node_itself_always_reaches_its_pods(world):
    await world.apply([policy("p", "x")])
    address = world.pods["xa"]["status"]["podIP"]
    assert world.machine.ask(world.machine.node(0), address, 80).startswith("xa")


async def test_a_pod_is_isolated_before_the_api_knows_its_address(world):
    """The agent tells of an address before the first container starts."""
    only_y = [policy("p", "x", ingress=[{"from": [{"namespaceSelector": Y}]}])]
    await world.apply(only_y)
    address = await world.machine.pod("new", 0)
    world.machine.serve("new", 80)
    assert world.machine.ask("xb", address, 80).startswith("new")
    fresh = pod_object("x", "new", "node-0", labels={"pod": "new"}) | {"status": {}}
    await world.enforcers[0].isolate(fresh, [address])
    assert world.machine.ask("xb", address, 80, 0.3) == "TimeoutError"
    assert world.machine.ask("ya", address, 80).startswith("new")
    world.view.put(fresh)
    await world.settled()
    assert world.machine.ask("xb", address, 80, 0.3) == "TimeoutError"
    world.view.delete(fresh)
    await world.enforcers[0].isolate(fresh, ())
    await world.settled()
    assert world.machine.ask("xb", address, 80).startswith("new")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_connections_from_before_a_policy_end_with_it_and_go_on_without(world, kind):
    world.machine.echo("yb", 90, kind)
    address = world.pods["yb"]["status"]["podIP"]
    with world.machine.connection("xa", address, 90, kind) as said:
        assert said("one") == "one"
        await world.apply([policy("other", "x", ingress=[{}])])
        assert said("two") == "two", "allowed connections stay as they are"
        await world.apply([policy("p", "y", ingress=[{"from": [{"namespaceSelector": Y}]}])])
        assert said("three") == "TimeoutError"
        assert world.machine.ask("xa", address, 80, 0.3) == "TimeoutError"
        await world.apply([])
        assert any("Error" not in said("four") for _ in range(60)), "TCP sends again by and by"
