"""Connections the kernel tracks. Those to endpoints that are gone are forgotten (UDP has no end: a client that keeps
sending would never be moved), and those that a network policy no longer allows are marked, so that rules can tell.

Raw ctnetlink (linux/netfilter/nfnetlink_conntrack.h): list, choose, delete or mark each by its original tuple.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sampan.node.network import namespace
from sampan.node.network.netlink import (
    DUMP,
    NETFILTER,
    Message,
    NetlinkSocket,
    attribute,
    attribute_dict,
    be32,
    nested,
)

_SUBSYSTEM = 1 << 8
_NEW, _GET, _DELETE = 0, 1, 2
_ORIGINAL, _REPLY, _MARK = 1, 2, 8
_ENOENT = 2


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked connection: who called whom, and who answers (packed addresses). `tuple` identifies it.

    Ports are 0 where the protocol has none.
    """

    version: int
    protocol: int
    source: bytes
    destination: bytes
    port: int
    answered_by: bytes
    answered_from: int
    mark: int
    tuple: bytes


def connect(netns: namespace.Netns | None = None) -> NetlinkSocket:
    return namespace.run_in(netns, lambda: NetlinkSocket(NETFILTER))


def flows(nl: NetlinkSocket, version: int, protocol: int | None = None) -> Iterator[Flow]:
    """All of one IP version, or those of one protocol."""
    family = _family(version)
    source, destination = (1, 2) if version == 4 else (3, 4)
    request = struct.pack(">BBH", family, 0, 0)
    for _, payload in nl.ask(_SUBSYSTEM | _GET, DUMP, request, "list tracked connections"):
        found = attribute_dict(payload[4:])
        if _ORIGINAL not in found or _REPLY not in found:
            continue
        original, reply = attribute_dict(found[_ORIGINAL]), attribute_dict(found[_REPLY])
        ports, back = attribute_dict(original[2]), attribute_dict(reply[2])
        number = ports.get(1, b"\0")[0]
        if protocol is not None and number != protocol:
            continue
        called, addresses = attribute_dict(original[1]), attribute_dict(reply[1])
        yield Flow(
            version,
            number,
            called[source],
            called[destination],
            _port(ports.get(3)),
            addresses[source],
            _port(back.get(2)),
            struct.unpack(">I", found[_MARK])[0] if _MARK in found else 0,
            _rebuild(found[_ORIGINAL]),
        )


def _port(value: bytes | None) -> int:
    return struct.unpack(">H", value)[0] if value else 0


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _rebuild(value: bytes) -> bytes:
    """The tuple with the flag that the kernel wants on nested attributes it reads."""
    parts = attribute_dict(value)
    rest = [attribute(kind, part) for kind, part in parts.items() if kind not in (1, 2)]
    return nested(_ORIGINAL, attribute(1 | 0x8000, parts[1]), attribute(2 | 0x8000, parts[2]), *rest)


def forget(
    nl: NetlinkSocket, version: int, stale: Callable[[Flow], bool], protocol: int = socket.IPPROTO_UDP
) -> int:
    """Deletes the flows `stale` says yes to; gives how many."""
    doomed = [flow for flow in flows(nl, version, protocol) if stale(flow)]
    for flow in doomed:
        _change(nl, flow, _DELETE, "delete tracked connection")
    return len(doomed)


def set_mark(nl: NetlinkSocket, flow: Flow, mark: int) -> None:
    """Changes what rules read as `ct mark`; a flow that has ended meanwhile is fine."""
    _change(nl, flow, _NEW, "mark tracked connection", be32(_MARK, mark))


def _change(nl: NetlinkSocket, flow: Flow, operation: int, what: str, *attributes: bytes) -> None:
    body = struct.pack(">BBH", _family(flow.version), 0, 0) + flow.tuple + b"".join(attributes)
    with contextlib.suppress(FileNotFoundError):
        nl.run(Message(_SUBSYSTEM | operation, 0, body, what, (_ENOENT,)))
