"""Hears of it when somebody else changes an nftables table of ours: events, so that nobody has to look again and again."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Callable

from sampan.node.network import namespace
from sampan.node.network.netlink import NETFILTER, NetlinkSocket, as_text, attribute_dict, messages

_NFTABLES_GROUP = 1 << 6  # NFNLGRP_NFTABLES is number 7
_SUBSYSTEM, _NEWGEN = 10, 15
_SO_ATTACH_FILTER = 26


class DamageWatcher:
    """Calls `damaged` after a change of the table that did not come from the socket with number `our_port`."""

    def __init__(
        self, table: str, our_port: int, netns: namespace.Netns | None, damaged: Callable[[], None]
    ) -> None:
        self._table = table
        self._damaged = damaged
        self._our_port = our_port
        self._nl = namespace.run_in(netns, lambda: NetlinkSocket(NETFILTER, _NFTABLES_GROUP))
        self._nl.socket.setblocking(False)
        with contextlib.suppress(OSError):  # then we just hear more
            _hear_only_others(self._nl.socket, our_port)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._nl.socket.fileno(), self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._nl.socket.fileno())
        self._nl.close()

    def _readable(self) -> None:
        try:
            datagram = self._nl.receive()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # too much happened to hear it all
                self._damaged()
            return
        for kind, _, _, port, payload in messages(datagram):
            if port == self._our_port or kind >> 8 != _SUBSYSTEM or kind & 0xFF == _NEWGEN:
                continue
            if as_text(attribute_dict(payload[4:]).get(1, b"")) == self._table:
                self._damaged()
                return


def _hear_only_others(listener: socket.socket, port: int) -> None:
    """Attaches a filter (classic BPF) that drops what carries this sender's port in its header."""
    program = [
        (0x20, 0, 0, 12),  # load the word at offset 12, as big-endian
        (0x15, 0, 1, int.from_bytes(struct.pack("=I", port), "big")),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    ]
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    )
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
