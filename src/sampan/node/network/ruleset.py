"""The nftables table of a node (or of the host): its sets, its fixed chains, and how one connection finds its endpoint.

What changes with Services are only elements. `vips` maps (address, protocol, port) to the number of a balance; the
small verdict map `balances` goes from there to a chain such as "one of 3", which draws a number and looks the endpoint
up in `endpoints`. So a changed endpoint costs one element however many Services there are, and the kernel never has
to validate the whole table again, as it would if every Service were an element of a verdict map.

Between rules the packet's mark carries what was found: with registers alone it would work too, but `nft list` could
not print the rules (nft 1.0 aborts on a map that is looked up with another map's result).
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sampan.node.network import expressions as x
from sampan.node.network.expressions import Family
from sampan.node.network.nftables import (
    FORWARD,
    INPUT,
    MARK,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    PROTO,
    SERVICE,
    Chain,
    Set,
)

MASQUERADE_MARK = 0x4000
LOCAL_OFFSET = 1 << 16  # where the indexes of a service's endpoints on this node begin
AFFINITY_SIZE = 65536
_GUARD_PRIORITY, _DNAT_PRIORITY, _SNAT_PRIORITY = -110, -100, 100

VIPS, SHORTCUT, ENDPOINTS, HAIRPIN = "vips", "shortcut", "endpoints", "hairpin"
REJECTED, DROPPED, BALANCES = "rejected", "dropped", "balances"
# For session affinity: index -> id of an endpoint, id -> endpoint, client -> id.
IDS, KEPT, CLIENTS = "ids", "kept", "clients"


@dataclass(frozen=True, slots=True)
class Config:
    """Where a proxy works. `node` "" is the host: there every endpoint counts as local, the way through it is the only one.

    `pods`: the cluster's pod ranges. `egress` of these source ranges, unless it goes to `inside`, leaves masqueraded.
    `served_here`: Service addresses a process of this namespace answers itself (DNS). `loopback`: node ports also
    answer on 127.0.0.1 (the way out needs route_localnet).
    """

    table: str = "sampan"
    node: str = ""
    zone: str = ""
    pods: tuple[str, ...] = ("10.244.0.0/16",)
    services: tuple[str, ...] = ("10.96.0.0/16",)
    egress: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    served_here: frozenset[str] = frozenset()
    loopback: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Balance:
    """How a connection is given to one of `count` endpoints; each that is in use is a chain of the same name.

    `node_port`: the key has no address. `affinity`: seconds a client stays with its endpoint, 0 for none.
    `sources`: who may connect (loadBalancerSourceRanges), empty for everyone.
    """

    count: int
    local: bool = False
    node_port: bool = False
    masquerade: bool = False
    affinity: int = 0
    sources: tuple[str, ...] = ()

    @property
    def chain(self) -> str:
        """The name of its chain. Services that are balanced alike share one."""
        flags = "l" * self.local + "n" * self.node_port + "m" * self.masquerade
        stay = f"-a{self.affinity}" if self.affinity else ""
        digest = hashlib.sha256(",".join(self.sources).encode()).hexdigest()[:12]
        return f"lb{self.count}{flags}{stay}" + (f"-s{digest}" if self.sources else "")

    @property
    def number(self) -> bytes:
        """What `vips` has for it: follows from the chain's name alone, so that it is the same after a restart."""
        return hashlib.sha256(self.chain.encode()).digest()[:4]

    def without_sources(self) -> Balance:
        return Balance(self.count, self.local, self.node_port, self.masquerade, self.affinity)


def sets(family: Family) -> list[Set]:
    """All sets and maps of one IP version; their elements are what changes with Services."""
    address = (family.type_id, family.size)
    proto, port, number = (PROTO, 4), (SERVICE, 4), (MARK, 4)
    key = (address, proto, port)
    return [
        Set(VIPS, key, (number,)),
        Set(SHORTCUT, key, (number,)),
        Set(REJECTED, key),
        Set(DROPPED, key),
        Set(ENDPOINTS, (*key, number), (address, port)),
        Set(IDS, (*key, number), (number,)),
        Set(KEPT, (*key, number), (address, port)),
        Set(HAIRPIN, (address, address)),
        Set(BALANCES, (number,), verdicts=True),
        Set(CLIENTS, (address, *key), (number,), dynamic_size=AFFINITY_SIZE, timeout=10800),
    ]


def _key(family: Family, at: int = 0, *, node_port: bool = False) -> bytes:
    """Loads (address, protocol, port) into registers from `at`; a node port's address is all zeros."""
    address = x.daddr(family, at) + (x.bitwise(at, bytes(family.size)) if node_port else b"")
    after = at + family.words
    return address + x.l4proto(after) + x.dport(after + 1)


def _choose(family: Family, name: str, condition: bytes = b"", *, node_port: bool = False) -> list[bytes]:
    """Rules that go to the balance the map has for the packet's destination, if it has one."""
    number = family.words + 2
    find = _key(family, node_port=node_port) + x.lookup(name, 0, number) + x.set_mark(number)
    return [condition + find, x.mark(0) + x.lookup_verdict(BALANCES, 0)]


def chains(family: Family, config: Config) -> list[Chain]:
    """The fixed part; the order is that of creation, any may point to any."""
    here = _here(family, config)
    refusing = x.ct_state(0) + x.has_bits(0, x.NEW) + x.then(x.jump("refuse"))
    unknown = _unknown(family, config)
    tcp = x.l4proto(0) + x.compare(0, bytes((x.TCP,)))
    guard = [Chain("guard", [_forged(family)], PREROUTING, _GUARD_PRIORITY)] if config.loopback else []
    services = [
        *_from_inside(family, config),
        *_choose(family, VIPS),
        *_choose(family, VIPS, here, node_port=True),
    ]
    return [
        *guard,
        Chain("services", services),
        Chain("from-inside", [*_choose(family, SHORTCUT), *_choose(family, SHORTCUT, here, node_port=True)]),
        Chain("refuse", _refuse(family, here)),
        Chain("rejecting", [tcp + x.reject_tcp(), x.reject_icmp(family)]),
        Chain("prerouting", [x.then(x.jump("services"))], PREROUTING, _DNAT_PRIORITY, "nat"),
        Chain("output", [x.then(x.jump("services"))], OUTPUT, _DNAT_PRIORITY, "nat"),
        Chain("postrouting", _postrouting(family, config), POSTROUTING, _SNAT_PRIORITY, "nat"),
        Chain("filter-input", [refusing], INPUT),
        Chain("filter-forward", [refusing, *unknown], FORWARD),
        Chain("filter-output", [refusing, *unknown], OUTPUT),
    ]


def _here(family: Family, config: Config) -> bytes:
    """Condition: the destination is an address of this namespace at which node ports answer."""
    here = x.fib_daddr_type(0) + x.compare(0, struct.pack("=I", x.LOCAL))
    if family.version == 6:  # the kernel lets no packet from ::1 out
        here += x.daddr(family, 0) + x.compare(0, bytes(15) + b"\x01", x.NOT_EQUAL)
    elif not config.loopback:
        here += x.daddr(family, 0) + x.within(family, 0, bytes((127, 0, 0, 0)), 8, x.NOT_EQUAL)
    return here


def _from_inside(family: Family, config: Config) -> list[bytes]:
    """Packets of pods and of this namespace itself may take the shortcut to endpoints elsewhere."""
    pods = [x.saddr(family, 0) + x.within(family, 0, *network) for network in _networks(family, config.pods)]
    own = x.fib_saddr_type(0) + x.compare(0, struct.pack("=I", x.LOCAL))
    return [source + x.then(x.jump("from-inside")) for source in (*pods, own)]


def _refuse(family: Family, here: bytes) -> list[bytes]:
    """Ports of Services that nobody serves: the client is told, or the packet vanishes."""
    service, node_port = _key(family), here + _key(family, node_port=True)
    return [
        service + x.lookup(REJECTED, 0) + x.then(x.goto("rejecting")),
        node_port + x.lookup(REJECTED, 0) + x.then(x.goto("rejecting")),
        service + x.lookup(DROPPED, 0) + x.then(x.DROPPED),
        node_port + x.lookup(DROPPED, 0) + x.then(x.DROPPED),
    ]


def _unknown(family: Family, config: Config) -> list[bytes]:
    """New connections to a Service address that was not translated are refused: no Service has that port."""
    return [
        x.ct_state(0)
        + x.has_bits(0, x.NEW)
        + x.fib_daddr_type(0)
        + x.compare(0, struct.pack("=I", x.LOCAL), x.NOT_EQUAL)
        + x.daddr(family, 0)
        + x.within(family, 0, *service)
        + x.then(x.goto("rejecting"))
        for service in _networks(family, config.services)
    ]


def _forged(family: Family) -> bytes:
    """Drops what comes from elsewhere for 127.0.0.0/8: the kernel did so itself without route_localnet."""
    elsewhere = x.iifname(0) + x.compare(0, b"lo".ljust(16, b"\0"), x.NOT_EQUAL)
    address, prefix = (bytes((127, 0, 0, 0)), 8) if family.version == 4 else (bytes(15) + b"\x01", 128)
    return elsewhere + x.daddr(family, 0) + x.within(family, 0, address, prefix) + x.then(x.DROPPED)


def _postrouting(family: Family, config: Config) -> list[bytes]:
    """Masquerades what was marked, a pod that reached itself through a Service, and what leaves the cluster."""
    dnated = x.ct_status(0) + x.has_bits(0, x.DNATED)
    pair = x.saddr(family, 0) + x.daddr(family, family.words)
    rules = [
        x.mark(0) + x.has_bits(0, MASQUERADE_MARK) + x.masquerade(),
        dnated + pair + x.lookup(HAIRPIN, 0) + x.masquerade(),
    ]
    if config.loopback and family.version == 4:
        loopback = x.saddr(family, 0) + x.within(family, 0, bytes((127, 0, 0, 0)), 8)
        away = x.oifname(0) + x.compare(0, b"lo".ljust(16, b"\0"), x.NOT_EQUAL)
        rules.append(dnated + loopback + away + x.masquerade())
    for source in _networks(family, config.egress):
        rule = x.saddr(family, 0) + x.within(family, 0, *source)
        for network in _networks(family, config.inside):
            rule += x.daddr(family, 0) + x.within(family, 0, *network, x.NOT_EQUAL)
        rules.append(rule + x.masquerade())
    return rules


def balance_chain(family: Family, balance: Balance) -> Chain:
    """The rules of one way of balancing."""
    if balance.sources:
        allowed = _networks(family, balance.sources)
        target = x.then(x.goto(balance.without_sources().chain))
        rules = [x.saddr(family, 0) + x.within(family, 0, *network) + target for network in allowed]
        return Chain(balance.chain, [*rules, x.then(x.DROPPED)])
    mark = MASQUERADE_MARK if balance.masquerade else 0
    rules = [x.immediate(0, struct.pack("=I", mark if not balance.affinity else 0)) + x.set_mark(0)]
    offset = LOCAL_OFFSET if balance.local else 0
    if balance.affinity:
        return Chain(balance.chain, rules + _affinity(family, balance, offset))
    index = family.words + 2
    draw = x.random(index, balance.count, offset) + x.lookup(ENDPOINTS, 0, index)
    rules.append(
        _key(family, node_port=balance.node_port) + draw + x.dnat(family, index, index + family.words)
    )
    return Chain(balance.chain, rules)


def _affinity(family: Family, balance: Balance, offset: int) -> list[bytes]:
    """Sends a client to the endpoint it had, or to a new one. The mark is the endpoint's id, which tells masquerading too.

    The rules read: which id had the client; if that still serves, stay; else forget it; draw another; remember that;
    and when there is no room to remember one more client, send it anyway.
    """
    start = family.words
    number = start + family.words + 2
    found = number + 1
    key = _key(family, start, node_port=balance.node_port)
    client = x.saddr(family, 0) + key
    marked = x.mark(number)
    kept = x.lookup(KEPT, start, found)
    renew = x.remember(CLIENTS, 0, number, balance.affinity)
    send = x.dnat(family, found, found + family.words)
    return [
        client + x.lookup(CLIENTS, 0, number) + x.set_mark(number),
        client + marked + kept + renew + send,
        client + marked + x.forget(CLIENTS, 0, number),
        key + x.random(number, balance.count, offset) + x.lookup(IDS, start, number) + x.set_mark(number),
        client + marked + kept + renew + send,
        key + marked + kept + send,
    ]


def endpoint_id(value: bytes, balance: Balance) -> bytes:
    """What stands for an endpoint while clients stay with it: never 0, and with the bit of masquerading if that is due."""
    number = struct.unpack("=I", hashlib.sha256(value).digest()[:4])[0] & ~MASQUERADE_MARK | 1
    return struct.pack("=I", number | (MASQUERADE_MARK if balance.masquerade else 0))


def _networks(family: Family, cidrs: Sequence[str]) -> list[tuple[bytes, int]]:
    """(address, prefix length) of those of the family."""
    parsed = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    return [(n.network_address.packed, n.prefixlen) for n in parsed if n.version == family.version]
