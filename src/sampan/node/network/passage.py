"""The way of a cluster's packets through the host's own firewall, which Docker, ufw and others set to drop what is
forwarded or, what ends the API's use for nodes, what comes in.

An accept counts only in the chain that would drop. In iptables' own chains (`ip filter FORWARD`, or Docker's place for
such rules, and `INPUT`) rules for the cluster's interface are inserted, as iptables-nft itself writes them, with a comment
by which they are found again. Other chains belong to others: see `obstacles`.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sampan.node.network import expressions, namespace, nftables
from sampan.node.network.expressions import ACCEPTED, DROP, FAMILIES, Family
from sampan.node.network.netlink import attribute_dict, attributes
from sampan.node.network.nftables import FORWARD, INPUT, NftSocket, Rule, Transaction

TABLE, _CHAIN, _INPUT = "filter", "FORWARD", "INPUT"  # of iptables
OURS = {FORWARD: (TABLE, _CHAIN), INPUT: (TABLE, _INPUT)}
_DOCKER = "DOCKER-USER"
_ATTEMPTS = 3  # against others who change the chain at the same moment


@dataclass(frozen=True, slots=True)
class Place:
    """A chain in which our rules are or should be."""

    family: Family
    chain: str


@dataclass(slots=True)
class Changes:
    """What has to be done to the rules of the machine's firewall."""

    remove: list[tuple[Place, int]] = field(default_factory=list)  # with the rule's handle
    insert: list[Place] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.remove or self.insert)


# Decisions


def comments(mark: str) -> tuple[str, str]:
    """Of the rule for packets from the nodes, and of that for packets to them."""
    return f"{mark}: from nodes", f"{mark}: to nodes"


def decide(
    policy: int | None, forward: Sequence[Rule], docker: Sequence[Rule], mark: str, family: Family
) -> Changes:
    """The smallest change after which exactly our two rules are where they count.

    `policy` is that of FORWARD (None: there is no such base chain); `forward` and `docker` are the rules of FORWARD and
    of DOCKER-USER.
    """
    first, second = comments(mark)
    others = [rule for rule in forward if not rule.says(first, second)]
    wanted = ""
    if policy is not None and closes(policy, others):
        wanted = _DOCKER if any(_jumps(rule, _DOCKER) for rule in others) else _CHAIN
    changes = Changes()
    for chain, rules in ((_CHAIN, forward), (_DOCKER, docker)):
        place = Place(family, chain)
        have = [(rule.says(first), rule.handle) for rule in rules if rule.says(first, second)]
        right = [is_first for is_first, _ in have] == [True, False]
        if chain == wanted and right:
            continue
        changes.remove += [(place, handle) for _, handle in have]
        if chain == wanted:
            changes.insert.append(place)
    return changes


def decide_input(policy: int | None, rules: Sequence[Rule], mark: str, family: Family) -> Changes:
    """As `decide`, for INPUT and its one rule."""
    first, _ = comments(mark)
    ours = [rule.handle for rule in rules if rule.says(first)]
    wanted = policy is not None and closes(policy, [rule for rule in rules if not rule.says(first)])
    if len(ours) == wanted:
        return Changes()
    place = Place(family, _INPUT)
    return Changes([(place, handle) for handle in ours], [place] if wanted else [])


def closes(policy: int, rules: Sequence[Rule]) -> bool:
    """Whether a base chain drops what no rule of it lets through: by its policy, or by a last rule without a condition."""
    if policy == DROP:
        return True
    last = [found for found in _expressions(rules[-1].body) if found[0] != "counter"] if rules else []
    if len(last) != 1:
        return False
    name, data = last[0]
    return name == "reject" or (name == "immediate" and _verdict(data)[0] == DROP)


def rules_for(link: str) -> tuple[bytes, bytes]:
    """Accept from the interface and to it, in the words of `iptables -i LINK -j ACCEPT` (nft: `iifname LINK counter accept`)."""
    name = link.encode().ljust(16, b"\0")
    end = expressions.compare(0, name) + expressions.counter() + expressions.then(ACCEPTED)
    return expressions.iifname(0) + end, expressions.oifname(0) + end


def transaction(changes: Changes, link: str, mark: str) -> Transaction:
    """The changes for the kernel; inserted rules come first in their chain."""
    whole = Transaction(FAMILIES[0], TABLE)
    for place, handle in changes.remove:
        part = Transaction(place.family, TABLE)
        part.delete_rule(place.chain, handle)
        whole.merge(part)
    for place in changes.insert:
        part = Transaction(place.family, TABLE)
        pairs = list(zip(rules_for(link), comments(mark), strict=True))
        for rule, comment in pairs[:1] if place.chain == _INPUT else reversed(pairs):
            part.insert_rule(place.chain, rule, comment)
        whole.merge(part)
    return whole


def _expressions(body: bytes) -> list[tuple[str, bytes]]:
    found = [attribute_dict(expression) for _, expression in attributes(body)]
    return [(one[1].rstrip(b"\0").decode(errors="replace"), one.get(2, b"")) for one in found]


def _verdict(immediate: bytes) -> tuple[int, bytes]:
    """(code, chain) of an immediate expression's data; code 1 (accept) when it loads a register instead."""
    verdict = attribute_dict(attribute_dict(attribute_dict(immediate).get(2, b"")).get(2, b""))
    code = struct.unpack(">i", verdict[1])[0] if 1 in verdict else 1
    return code, verdict.get(2, b"").rstrip(b"\0")


def _jumps(rule: Rule, chain: str) -> bool:
    return any(
        name == "immediate" and _verdict(data)[1] == chain.encode() for name, data in _expressions(rule.body)
    )


# The kernel


def settle(
    link: str, mark: str, versions: Collection[int] = (4, 6), host: namespace.Netns | None = None
) -> None:
    """Lets packets of the interface through as far as that is ours to do. May be repeated. Raises OSError."""
    with nftables.connect(host) as nl:
        for attempt in range(_ATTEMPTS):
            changes = _changes(nl, mark, versions)
            if not changes:
                return
            try:
                nl.commit(transaction(changes, link, mark))
                return
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN) or attempt == _ATTEMPTS - 1:
                    raise


def remove(mark: str, host: namespace.Netns | None = None) -> None:
    """Takes our rules away wherever they are. Raises OSError."""
    settle("", mark, (), host)


def _changes(nl: NftSocket, mark: str, versions: Collection[int]) -> Changes:
    changes = Changes()
    policies = {
        (hook, chain.family): chain.policy
        for hook, ours in OURS.items()
        for chain in nl.base_chains(hook)
        if (chain.table, chain.name) == ours
    }
    for family in FAMILIES:
        forward, docker, entry = (nl.rules(family.number, TABLE, c) for c in (_CHAIN, _DOCKER, _INPUT))
        out, into = (
            policies.get((hook, family.number)) if family.version in versions else None
            for hook in (FORWARD, INPUT)
        )
        for part in (decide(out, forward, docker, mark, family), decide_input(into, entry, mark, family)):
            changes.remove += part.remove
            changes.insert += part.insert
    return changes
