"""Forgets connections to endpoints that are gone. UDP has no end: a client that keeps sending would never be moved.

Raw ctnetlink (linux/netfilter/nfnetlink_conntrack.h): list, choose, delete each by its original tuple.
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
    nested,
)

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY = 1, 2
_ENOENT = 2


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked connection: who was called, and who answers (packed addresses). `tuple` identifies it."""

    version: int
    protocol: int
    destination: bytes
    port: int
    answered_by: bytes
    answered_from: int
    tuple: bytes


def connect(netns: namespace.Netns | None = None) -> NetlinkSocket:
    return namespace.run_in(netns, lambda: NetlinkSocket(NETFILTER))


def flows(nl: NetlinkSocket, version: int, protocol: int = socket.IPPROTO_UDP) -> Iterator[Flow]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    source, destination = (1, 2) if version == 4 else (3, 4)
    request = struct.pack(">BBH", family, 0, 0)
    for _, payload in nl.ask(_SUBSYSTEM | _GET, DUMP, request, "list tracked connections"):
        found = attribute_dict(payload[4:])
        if _ORIGINAL not in found or _REPLY not in found:
            continue
        original, reply = attribute_dict(found[_ORIGINAL]), attribute_dict(found[_REPLY])
        ports, back = attribute_dict(original[2]), attribute_dict(reply[2])
        if ports.get(1, b"\0")[0] != protocol or 3 not in ports or 2 not in back:
            continue
        yield Flow(
            version,
            protocol,
            attribute_dict(original[1])[destination],
            struct.unpack(">H", ports[3])[0],
            attribute_dict(reply[1])[source],
            struct.unpack(">H", back[2])[0],
            _rebuild(found[_ORIGINAL]),
        )


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
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for flow in doomed:
        body = struct.pack(">BBH", family, 0, 0) + flow.tuple
        with contextlib.suppress(FileNotFoundError):
            nl.run(Message(_SUBSYSTEM | _DELETE, 0, body, "delete tracked connection", (_ENOENT,)))
    return len(doomed)
