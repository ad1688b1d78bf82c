"""What NetworkPolicies (networking.k8s.io/v1) mean for the kernel: pure functions from objects to sets and chains.

Every peer selector is a set of addresses, shared by all rules that mean the same pods: a changed label is one element.
Every combination of policies that applies to a pod of this node is a chain, named after its content: pods of one
Deployment share it, and a changed policy is a new chain that the pods are moved to in one transaction.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sampan.api import selectors
from sampan.api.selectors import LabelSelector
from sampan.base.objects import ReadOnlyObject
from sampan.node.network import expressions as x
from sampan.node.network.expressions import Family
from sampan.node.network.nftables import FORWARD, PROTO, SERVICE, Chain, Set
from sampan.node.network.services import Element, pack_address, pack_port

INGRESS, EGRESS, SELF = "ingress", "egress", "self"
ENDED = 0x1  # bit of `ct mark`
NUMBERS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": 132}
_LESS_OR_EQUAL, _GREATER_OR_EQUAL = 3, 5


@dataclass(frozen=True, slots=True)
class Selection:
    """A set of pods: of one namespace, or of those whose labels match. With `port` a set of their ports of that name."""

    pods: LabelSelector
    namespace: str = ""
    namespaces: LabelSelector | None = None
    port: str = ""
    protocol: str = ""

    @property
    def set(self) -> str:
        """The name of the kernel's set for it: the same selection in two policies is one set."""
        parts = (
            self.namespace,
            self.namespaces is not None,
            self.namespaces,
            self.pods,
            self.port,
            self.protocol,
        )
        digest = hashlib.sha256(repr([str(part) for part in parts]).encode()).hexdigest()[:16]
        return f"{'ports' if self.port else 'pods'}-{digest}"

    def has(self, pod: ReadOnlyObject, namespace_labels: Mapping[str, str]) -> bool:
        """Whether a pod is one of those that a policy means."""
        meta = pod["metadata"]
        if self.namespaces is not None:
            if not self.namespaces.matches(namespace_labels):
                return False
        elif meta["namespace"] != self.namespace:
            return False
        return self.pods.matches(meta.get("labels") or {})


class Block(NamedTuple):
    """An ipBlock: a range, without some parts of it."""

    cidr: str
    excluded: tuple[str, ...]


class Port(NamedTuple):
    """A range of numbers; first 0 is all of the protocol. Or the named ports in a set."""

    protocol: str
    first: int
    last: int
    named: Selection | None = None


class Match(NamedTuple):
    """Traffic that a rule allows: from or to `peer` (None: anybody), on `port` (None: any)."""

    peer: Selection | Block | None
    port: Port | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy, read. A direction that is None does not concern its pods."""

    key: str
    target: Selection
    ingress: tuple[Match, ...] | None
    egress: tuple[Match, ...] | None

    def matches(self, direction: str) -> tuple[Match, ...] | None:
        return self.ingress if direction == INGRESS else self.egress

    def selections(self) -> Iterable[Selection]:
        """The sets its rules look things up in."""
        for match in (*(self.ingress or ()), *(self.egress or ())):
            if isinstance(match.peer, Selection):
                yield match.peer
            if match.port is not None and match.port.named is not None:
                yield match.port.named


def read(policy: ReadOnlyObject) -> Policy:
    """Raises ValueError for a selector that is none (the API server does not let such a policy in)."""
    spec = policy.get("spec") or {}
    namespace = policy["metadata"]["namespace"]
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    target = Selection(selectors.from_object(spec.get("podSelector") or {}), namespace)

    def matches(direction: str) -> tuple[Match, ...] | None:
        if direction.capitalize() not in types:
            return None
        found: list[Match] = []
        for rule in spec.get(direction) or ():
            found += _rule(rule, direction, namespace, target)
        return tuple(found)

    return Policy(f"{namespace}/{policy['metadata']['name']}", target, matches(INGRESS), matches(EGRESS))


def _rule(rule: ReadOnlyObject, direction: str, namespace: str, target: Selection) -> Iterable[Match]:
    named = rule.get("from" if direction == INGRESS else "to") or ()
    peers: list[Selection | Block | None] = [_peer(p, namespace) for p in named]
    for peer in peers or [None]:
        for port in rule.get("ports") or [None]:
            yield Match(peer, _port(port, peer, target if direction == INGRESS else None))


def _peer(peer: ReadOnlyObject, namespace: str) -> Selection | Block:
    if peer.get("ipBlock"):
        return Block(peer["ipBlock"]["cidr"], tuple(peer["ipBlock"].get("except") or ()))
    pods = selectors.from_object(peer.get("podSelector") or {})
    if peer.get("namespaceSelector") is None:
        return Selection(pods, namespace)
    return Selection(pods, "", selectors.from_object(peer["namespaceSelector"]))


def _port(
    port: ReadOnlyObject | None, peer: Selection | Block | None, target: Selection | None
) -> Port | None:
    """A name is that of a port of the pod that is called: the policy's own (`target`), or going out the peer's."""
    if port is None:
        return None
    protocol, number = port.get("protocol") or "TCP", port.get("port")
    if number is None:
        return Port(protocol, 0, 0)
    if isinstance(number, int):
        return Port(protocol, number, port.get("endPort") or number)
    everyone = Selection(selectors.from_object({}), "", selectors.from_object({}))
    called = target or (peer if isinstance(peer, Selection) else everyone)
    return Port(protocol, 0, 0, Selection(called.pods, called.namespace, called.namespaces, number, protocol))


# From pods to elements


def addresses(pod: ReadOnlyObject) -> list[str]:
    """A pod's own addresses; none for one in the host's network, or that has ended."""
    status = pod.get("status") or {}
    if (pod.get("spec") or {}).get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return []
    listed = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return listed or ([status["podIP"]] if status.get("podIP") else [])


def chain_name(direction: str, policies: Sequence[Policy]) -> str:
    """Follows from what the policies say, so that the same content has the same name at any time on any node."""
    content = [(policy.key, policy.matches(direction)) for policy in policies]
    return f"{direction}-{hashlib.sha256(repr(content).encode()).hexdigest()[:16]}"


def applying(pod: ReadOnlyObject, policies: Iterable[Policy], direction: str) -> list[Policy]:
    """The policies that isolate a pod in a direction, by key."""
    found = [p for p in policies if p.matches(direction) is not None and p.target.has(pod, {})]
    return sorted(found, key=lambda policy: policy.key)


def pod_elements(
    pod: ReadOnlyObject,
    selections: Iterable[Selection],
    policies: Iterable[Policy],
    namespace_labels: Mapping[str, str],
    local: bool,
) -> tuple[dict[Element, str | None], dict[str, tuple[str, list[Policy]]]]:
    """The elements a pod contributes (in the maps `ingress` and `egress` the value is a chain) and the chains it needs.

    `policies` are those of the pod's namespace. Chains: name -> (direction, policies).
    """
    elements: dict[Element, str | None] = {}
    chains: dict[str, tuple[str, list[Policy]]] = {}
    own = addresses(pod)
    if not own:
        return elements, chains
    member = [s for s in selections if s.has(pod, namespace_labels)]
    isolating = {}
    if local:
        for direction in (INGRESS, EGRESS):
            if found := applying(pod, policies, direction):
                isolating[direction] = chain_name(direction, found)
                chains[isolating[direction]] = (direction, found)
    for address in own:
        version, packed = (6 if ":" in address else 4), pack_address(address)
        for selection in member:
            keys = _port_keys(pod, selection, packed) if selection.port else [packed]
            for key in keys:
                elements[Element(version, selection.set, key)] = None
        for direction, name in isolating.items():
            elements[Element(version, direction, packed)] = name
        if isolating:
            elements[Element(version, SELF, packed + packed)] = None
    return elements, chains


def _port_keys(pod: ReadOnlyObject, selection: Selection, packed: bytes) -> Iterable[bytes]:
    spec = pod.get("spec") or {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for port in container.get("ports") or ():
            if port.get("name") == selection.port and port.get("protocol", "TCP") == selection.protocol:
                yield (
                    packed
                    + struct.pack("=Bxxx", NUMBERS[selection.protocol])
                    + pack_port(port["containerPort"])
                )


# The table


def selection_set(family: Family, name: str) -> Set:
    address = (family.type_id, family.size)
    return Set(name, (address, (PROTO, 4), (SERVICE, 4)) if name.startswith("ports-") else (address,))


def fixed_sets(family: Family) -> list[Set]:
    """The sets that are there without any policy: which chain a pod's packets take, by its address and direction."""
    address = (family.type_id, family.size)
    return [
        Set(INGRESS, (address,), verdicts=True),
        Set(EGRESS, (address,), verdicts=True),
        Set(SELF, (address, address)),
    ]


def fixed_chains(family: Family) -> list[Chain]:
    """Replies pass, a pod reaches itself; else its own egress and then the other's ingress must allow it.

    What belongs to a connection from before a policy that forbids it carries the mark `ENDED` (see `verdicts`). Traffic
    between a pod and its own node does not come here: it is always allowed.
    """
    ended = x.ct_mark(0) + x.has_bits(0, ENDED) + x.then(x.DROPPED)
    known = x.ct_state(0) + x.has_bits(0, x.ESTABLISHED_OR_RELATED) + x.then(x.ACCEPTED)
    itself = x.saddr(family, 0) + x.daddr(family, family.words) + x.lookup(SELF, 0) + x.then(x.ACCEPTED)
    leaving = x.saddr(family, 0) + x.lookup_verdict(EGRESS, 0)
    entering = x.daddr(family, 0) + x.lookup_verdict(INGRESS, 0)
    return [Chain("policies", [ended, known, itself, leaving, entering], FORWARD, 10)]


def policy_chain(family: Family, name: str, direction: str, policies: Sequence[Policy]) -> Chain:
    """Returns for what any of the policies allows, drops the rest."""
    rules = []
    for policy in policies:
        for match in policy.matches(direction) or ():
            rule = _expressions(family, direction, match)
            if rule is not None:
                rules.append(rule + x.then(x.RETURN))
    return Chain(name, [*dict.fromkeys(rules), x.then(x.DROPPED)])


def _expressions(family: Family, direction: str, match: Match) -> bytes | None:
    """None: cannot apply to this IP family."""
    other = x.saddr if direction == INGRESS else x.daddr
    result = b""
    if isinstance(match.peer, Selection):
        result += other(family, 0) + x.lookup(match.peer.set, 0)
    elif match.peer is not None:
        network = ipaddress.ip_network(match.peer.cidr, strict=False)
        if network.version != family.version:
            return None
        if network.prefixlen:
            result += other(family, 0) + x.within(
                family, 0, network.network_address.packed, network.prefixlen
            )
        for cidr in match.peer.excluded:
            hole = ipaddress.ip_network(cidr, strict=False)
            packed = hole.network_address.packed
            result += other(family, 0) + x.within(family, 0, packed, hole.prefixlen, x.NOT_EQUAL)
    if match.port is not None:
        result += _port_expressions(family, match.port)
    return result


def _port_expressions(family: Family, port: Port) -> bytes:
    if port.named is not None:
        words = family.words
        return x.daddr(family, 0) + x.l4proto(words) + x.dport(words + 1) + x.lookup(port.named.set, 0)
    result = x.l4proto(0) + x.compare(0, bytes((NUMBERS[port.protocol],)))
    if not port.first:
        return result
    first, last = struct.pack(">H", port.first), struct.pack(">H", port.last)
    if port.first == port.last:
        return result + x.dport(0) + x.compare(0, first)
    return result + x.dport(0) + x.compare(0, first, _GREATER_OR_EQUAL) + x.compare(0, last, _LESS_OR_EQUAL)
