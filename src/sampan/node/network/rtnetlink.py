"""Links, addresses, routes and neighbours by raw rtnetlink: 0.1 ms where the `ip` command takes 3.

Functions build `Message`s, so that a caller sends several at once with `NetlinkSocket.run`; `links()` and `routes()`
read back what is there. Numbers are from linux/rtnetlink.h, if_link.h and neighbour.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from sampan.node.network import namespace
from sampan.node.network.netlink import (
    APPEND,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REPLACE,
    ROUTE,
    Message,
    NetlinkSocket,
    as_text,
    attribute,
    attribute_dict,
    be16,
    nested,
    text,
    u8,
    u32,
)

# Marks our routes (rtm_protocol; values above 4 are free for user space), so that others' are never touched.
PROTOCOL = 0x53
UNIVERSE, LINK, HOST = 0, 253, 254
VXLAN_PORT = 4789  # RFC 7348

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_UP = 0x1
_MAIN_TABLE = 254
_UNICAST, _UNREACHABLE = 1, 7
_ONLINK = 4
_PERMANENT, _NTF_SELF = 0x80, 0x02
_NODAD = 0x02
_FOREVER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `mac` may be ""; `master` is the index of the bridge it is a port of, 0 for none."""

    index: int
    name: str
    up: bool
    mac: str
    mtu: int
    master: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """`destination` as a CIDR; `gateway` or `source` may be "" and `link` 0."""

    destination: str
    gateway: str = ""
    link: int = 0
    source: str = ""
    protocol: int = PROTOCOL
    table: int = _MAIN_TABLE


def connect(netns: namespace.Netns | None = None) -> NetlinkSocket:
    """A route socket of this or another namespace."""
    return namespace.run_in(netns, lambda: NetlinkSocket(ROUTE))


def _link(index: int, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def add_veth(
    name: str,
    peer: str,
    *,
    peer_netns: int | None = None,
    mac: str = "",
    peer_mac: str = "",
    mtu: int = 0,
) -> Message:
    """A pair of Ethernet ends; the peer is born in the namespace of the descriptor `peer_netns`.

    IFF_UP must not be set on a peer at creation: the kernel answers ENOTCONN.
    """

    def end(title: str, address: str) -> bytes:
        return (
            text(3, title) + (attribute(1, _mac(address)) if address else b"") + (u32(4, mtu) if mtu else b"")
        )

    other = _link(0) + end(peer, peer_mac) + (u32(28, peer_netns) if peer_netns is not None else b"")
    body = _link(0) + end(name, mac) + nested(18, text(1, "veth"), nested(2, nested(1, other)))
    return Message(_NEWLINK, CREATE | EXCLUSIVE, body, f"add veth {name}")


def add_bridge(name: str) -> Message:
    body = _link(0) + text(3, name) + nested(18, text(1, "bridge"))
    return Message(_NEWLINK, CREATE | EXCLUSIVE, body, f"add bridge {name}", (errno.EEXIST,))


def add_vxlan(
    name: str,
    vni: int,
    local: str,
    *,
    port: int = VXLAN_PORT,
    mtu: int = 1450,
    mac: str = "",
    netns: int | None = None,
) -> Message:
    """A tunnel without learning: who is behind which machine is told by `neighbour` and `forwarding`.

    It is born in the namespace of the descriptor `netns`; the packets around its own stay in the socket's.
    """
    address = ipaddress.ip_address(local)
    data = (
        u32(1, vni) + attribute(4 if address.version == 4 else 17, address.packed) + u8(7, 0) + be16(15, port)
    )
    body = _link(0) + text(3, name) + u32(4, mtu) + (attribute(1, _mac(mac)) if mac else b"")
    if netns is not None:
        body += u32(28, netns)
    return Message(
        _NEWLINK, CREATE | EXCLUSIVE, body + nested(18, text(1, "vxlan"), nested(2, data)), f"add {name}"
    )


def set_link(link: int | str, *, up: bool = True, master: int | None = None) -> Message:
    """By index or by name. `master` is the index of a bridge, 0 leaves it."""
    body = _link(link if isinstance(link, int) else 0, _UP if up else 0, _UP)
    if isinstance(link, str):
        body += text(3, link)
    if master is not None:
        body += u32(10, master)
    return Message(_NEWLINK, 0, body, f"set link {link} up")


def delete_link(link: int | str) -> Message:
    body = _link(link) if isinstance(link, int) else _link(0) + text(3, link)
    return Message(_DELLINK, 0, body, f"delete link {link}", (errno.ENODEV,))


def _address(
    kind: int, flags: int, link: int, cidr: str, scope: int, tolerate: tuple[int, ...], more: bytes = b""
) -> Message:
    interface = ipaddress.ip_interface(cidr)
    packed = interface.ip.packed
    v4 = interface.version == 4
    head = struct.pack(
        "=BBBBI",
        socket.AF_INET if v4 else socket.AF_INET6,
        interface.network.prefixlen,
        0 if v4 else _NODAD,
        scope,
        link,
    )
    body = head + attribute(2, packed) + attribute(1, packed) + more
    return Message(kind, flags, body, f"address {cidr}", tolerate)


def add_address(link: int, cidr: str, scope: int = UNIVERSE) -> Message:
    """One of scope HOST is never chosen as a source: IPv6 knows no such scope, but deprecated addresses (RFC 6724)."""
    lifetimes = b""
    if scope == HOST and ":" in cidr:
        lifetimes = attribute(6, struct.pack("=IIII", 0, _FOREVER, 0, 0))
    return _address(_NEWADDR, CREATE | REPLACE, link, cidr, scope, (errno.EEXIST,), lifetimes)


def _route_body(route: Route, scope: int, kind: int, flags: int = 0) -> bytes:
    network = ipaddress.ip_network(route.destination)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    table = route.table if route.table < 256 else 0
    body = struct.pack(
        "=BBBBBBBBI", family, network.prefixlen, 0, 0, table, route.protocol, scope, kind, flags
    )
    body += u32(15, route.table)
    if network.prefixlen:
        body += attribute(1, network.network_address.packed)
    if route.gateway:
        body += attribute(5, ipaddress.ip_address(route.gateway).packed)
    if route.link:
        body += u32(4, route.link)
    if route.source:
        body += attribute(7, ipaddress.ip_address(route.source).packed)
    return body


def add_route(
    destination: str,
    *,
    gateway: str = "",
    link: int = 0,
    source: str = "",
    onlink: bool = False,
    table: int = _MAIN_TABLE,
    metric: int = 0,
) -> Message:
    """Adds, or replaces one of the same `metric` (the least is used). Without a gateway it is directly on the link."""
    route = Route(destination, gateway, link, source, table=table)
    body = _route_body(route, UNIVERSE if gateway else LINK, _UNICAST, _ONLINK if onlink else 0)
    if metric:
        body += u32(6, metric)
    return Message(_NEWROUTE, CREATE | REPLACE, body, f"route to {destination}")


def delete_route(route: Route) -> Message:
    body = _route_body(route, 255, 0)  # scope "nowhere" and type 0 match any
    return Message(_DELROUTE, 0, body, f"delete route to {route.destination}", (errno.ESRCH, errno.ENODEV))


def neighbour(link: int, address: str, mac: str) -> Message:
    """A permanent entry: no ARP or neighbour discovery is ever sent for it."""
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = (
        struct.pack("=BxxxiHBB", family, link, _PERMANENT, 0, 0)
        + attribute(1, packed)
        + attribute(2, _mac(mac))
    )
    return Message(_NEWNEIGH, CREATE | REPLACE, body, f"neighbour {address}")


def delete_neighbour(link: int, address: str) -> Message:
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = struct.pack("=BxxxiHBB", family, link, 0, 0, 0) + attribute(1, packed)
    return Message(_DELNEIGH, 0, body, f"delete neighbour {address}", (errno.ENOENT, errno.ESRCH))


def forwarding(link: int, mac: str, machine: str) -> Message:
    """Behind which machine a vxlan link finds a MAC address."""
    body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, link, _PERMANENT, _NTF_SELF, 0)
    body += attribute(2, _mac(mac)) + attribute(1, ipaddress.ip_address(machine).packed)
    return Message(_NEWNEIGH, CREATE | REPLACE, body, f"forwarding to {machine}")


def delete_forwarding(link: int, mac: str) -> Message:
    body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, link, 0, _NTF_SELF, 0) + attribute(2, _mac(mac))
    return Message(_DELNEIGH, 0, body, f"delete forwarding of {mac}", (errno.ENOENT, errno.ESRCH))


def flooding(link: int, machine: str) -> Message:
    """A machine to which a vxlan link sends what it has no `forwarding` for, such as the question who has an address."""
    body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, link, _PERMANENT, _NTF_SELF, 0)
    body += attribute(2, bytes(6)) + attribute(1, ipaddress.ip_address(machine).packed)
    return Message(_NEWNEIGH, CREATE | APPEND, body, f"flooding to {machine}", (errno.EEXIST,))


def delete_flooding(link: int, machine: str) -> Message:
    body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, link, 0, _NTF_SELF, 0)
    body += attribute(2, bytes(6)) + attribute(1, ipaddress.ip_address(machine).packed)
    return Message(_DELNEIGH, 0, body, f"delete flooding to {machine}", (errno.ENOENT, errno.ESRCH))


def forwardings(nl: NetlinkSocket, link: int) -> set[tuple[str, str]]:
    """(MAC address, machine) as `forwarding` and `flooding` wrote them; flooding has the MAC address of zeros."""
    request = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, link, 0, 0, 0)
    found = set()
    for _, payload in nl.ask(_GETNEIGH, DUMP, request, "list forwardings"):
        family, index, _, flags, _ = struct.unpack_from("=BxxxiHBB", payload)
        values = attribute_dict(payload[12:])
        if family == socket.AF_BRIDGE and index == link and flags & _NTF_SELF and {1, 2} <= values.keys():
            found.add((values[2].hex(":"), str(ipaddress.ip_address(values[1]))))
    return found


def links(nl: NetlinkSocket) -> list[Link]:
    """All of the namespace."""
    return [_parse_link(payload) for _, payload in nl.ask(_GETLINK, DUMP, _link(0), "list links")]


def owner_of(nl: NetlinkSocket, address: str) -> int:
    """The index of the link that has an address, 0 when none has it."""
    packed = ipaddress.ip_address(address).packed
    for _, payload in nl.ask(_GETADDR, DUMP, struct.pack("=BBBBI", 0, 0, 0, 0, 0), "list addresses"):
        values = attribute_dict(payload[8:])
        if packed in (values.get(2), values.get(1)):
            return int(struct.unpack_from("=I", payload, 4)[0])
    return 0


def link_named(nl: NetlinkSocket, name: str) -> Link | None:
    """None when there is no such link."""
    try:
        answers = nl.ask(_GETLINK, 0, _link(0) + text(3, name), f"link {name}")
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _parse_link(answers[0][1])


def link_index(nl: NetlinkSocket, name: str) -> int:
    """Raises OSError ENODEV when there is no such link."""
    link = link_named(nl, name)
    if link is None:
        raise OSError(errno.ENODEV, f"no link named {name}")
    return link.index


def activate(nl: NetlinkSocket, name: str) -> None:
    """Returns when the end of a pair that was up before the other one passes packets.

    The kernel leaves that to a work queue, which under load has cost the first packet of a pod (and a second until it
    was repeated). Since Linux 6.8 who asks for the state of a link has that work done first.
    """
    link_named(nl, name)


def _parse_link(payload: bytes) -> Link:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", payload)
    found = attribute_dict(payload[16:])
    number = {kind: struct.unpack("=I", found[kind])[0] for kind in (4, 10) if kind in found}
    mac = found.get(1, b"").hex(":")
    return Link(
        index, as_text(found.get(3, b"")), bool(flags & _UP), mac, number.get(4, 0), number.get(10, 0)
    )


def routes(nl: NetlinkSocket, *, protocol: int | None = None) -> list[Route]:
    """Unicast routes of the main table, of both families, of one originator (`PROTOCOL`) or of all."""
    return [route for route in all_routes(nl, protocol) if route.table == _MAIN_TABLE]


def all_routes(nl: NetlinkSocket, protocol: int | None = None) -> list[Route]:
    """Unicast and unreachable routes of every table, of both families; `protocol` as in `routes`."""
    result = []
    for family, zero in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        request = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        for _, payload in nl.ask(_GETROUTE, DUMP, request, "list routes"):
            if len(payload) < 12 or payload[0] != family or payload[7] not in (_UNICAST, _UNREACHABLE):
                continue
            if protocol is None or payload[5] == protocol:
                result.append(_parse_route(payload, zero))
    return result


def _parse_route(payload: bytes, zero: str) -> Route:
    found = attribute_dict(payload[12:])
    table = struct.unpack("=I", found[15])[0] if 15 in found else payload[4]

    def address(kind: int) -> str:
        return str(ipaddress.ip_address(found[kind])) if kind in found else ""

    link = struct.unpack("=I", found[4])[0] if 4 in found else 0
    destination = f"{address(1) or zero}/{payload[1]}"
    return Route(destination, address(5), link, address(7), payload[5], table)
