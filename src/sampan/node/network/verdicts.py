"""What the rules of network policies say of one connection, answered without the kernel, from the same elements.

The kernel asks its rules about the first packet only. When policies change, connections from before are judged here, and
those that are allowed no longer get a mark by which the rules drop them; deleting them instead would let a reply begin
the same connection anew from its other end.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Mapping

from sampan.node.network import conntrack, namespace, policy
from sampan.node.network.conntrack import Flow
from sampan.node.network.policy import EGRESS, ENDED, INGRESS, Block, Match, Policy, Selection
from sampan.node.network.programming import Programmed
from sampan.node.network.services import Element, pack_port

Chains = Mapping[str, tuple[str, list[Policy]]]


def allows(state: Programmed, chains: Chains, flow: Flow) -> bool:
    """Whether a connection like this may begin now. The destination is who answers: behind a Service that is a pod."""
    source, target = flow.source, flow.answered_by
    if source == target:
        return True
    return _passes(state, chains, flow, EGRESS, source, target) and _passes(
        state, chains, flow, INGRESS, target, source
    )


def _passes(state: Programmed, chains: Chains, flow: Flow, direction: str, own: bytes, other: bytes) -> bool:
    name = state.value(Element(flow.version, direction, own))
    if not isinstance(name, str) or name not in chains:
        return True
    _, policies = chains[name]
    return any(
        _peer(state, flow.version, match, other) and _port(state, flow, match)
        for one in policies
        for match in one.matches(direction) or ()
    )


def _peer(state: Programmed, version: int, match: Match, other: bytes) -> bool:
    if match.peer is None:
        return True
    if isinstance(match.peer, Selection):
        return Element(version, match.peer.set, other) in state
    return _inside(match.peer, version, other)


def _inside(block: Block, version: int, other: bytes) -> bool:
    address = ipaddress.ip_address(other)
    network = ipaddress.ip_network(block.cidr, strict=False)
    if network.version != version or address not in network:
        return False
    return not any(address in ipaddress.ip_network(hole, strict=False) for hole in block.excluded)


def _port(state: Programmed, flow: Flow, match: Match) -> bool:
    wanted = match.port
    if wanted is None:
        return True
    number = flow.answered_from
    if wanted.named is not None:
        key = flow.answered_by + struct.pack("=Bxxx", flow.protocol) + pack_port(number)
        return Element(flow.version, wanted.named.set, key) in state
    if policy.NUMBERS[wanted.protocol] != flow.protocol:
        return False
    return not wanted.first or wanted.first <= number <= wanted.last


def listed(netns: namespace.Netns | None) -> list[Flow]:
    """Every connection the kernel tracks here. Blocks; raises OSError."""
    with conntrack.connect(netns) as nl:
        return [flow for version in (4, 6) for flow in conntrack.flows(nl, version)]


def mark(netns: namespace.Netns | None, changed: Iterable[tuple[Flow, bool]]) -> None:
    """(flow, whether it is allowed) of those for whom that has changed. Blocks; raises OSError."""
    with conntrack.connect(netns) as nl:
        for flow, allowed in changed:
            conntrack.set_mark(nl, flow, flow.mark & ~ENDED if allowed else flow.mark | ENDED)
