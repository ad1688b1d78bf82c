"""Hears of it when somebody deletes a link or a route of ours, or when a link that was missing is there again."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable

from sampan.base.clock import Clock, Timer
from sampan.node.network import namespace
from sampan.node.network.netlink import ROUTE, NetlinkSocket, as_text, attribute_dict, messages
from sampan.node.network.rtnetlink import PROTOCOL

_LINKS, _ADDRESSES, _ROUTES = 0x1, 0x10 | 0x100, 0x40 | 0x400  # RTMGRP_*, of both IP versions
_NEWLINK, _DELLINK, _NEWADDR, _DELROUTE = 16, 17, 20, 25
_NAME, _LABEL = 3, 3
_GATHER = 0.02  # seconds in which further events are part of the same change


class LinkWatcher:
    """Calls `changed` soon after links or routes of ours went, or the link named `uplink` came."""

    def __init__(
        self, clock: Clock, uplink: str, changed: Callable[[], None], netns: namespace.Netns | None = None
    ) -> None:
        self._clock, self._uplink, self._changed = clock, uplink, changed
        groups = _LINKS | _ADDRESSES | _ROUTES
        self._nl = namespace.run_in(netns, lambda: NetlinkSocket(ROUTE, groups))
        self._nl.socket.setblocking(False)
        self._timer: Timer | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._nl.socket.fileno(), self._readable)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._loop.remove_reader(self._nl.socket.fileno())
        self._nl.close()

    def _readable(self) -> None:
        try:
            datagram = self._nl.receive()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self._soon()
            return
        if any(self._concerns(kind, payload) for kind, _, _, _, payload in messages(datagram)):
            self._soon()

    def _concerns(self, kind: int, payload: bytes) -> bool:
        if kind == _DELLINK:
            return True
        if kind == _DELROUTE:
            return payload[5] == PROTOCOL
        if kind == _NEWLINK:
            (change,) = struct.unpack_from("=I", payload, 12)
            return bool(change) and as_text(attribute_dict(payload[16:]).get(_NAME, b"")) == self._uplink
        if kind == _NEWADDR:
            return as_text(attribute_dict(payload[8:]).get(_LABEL, b"")) == self._uplink
        return False

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = self._clock.call_later(_GATHER, self._go)

    def _go(self) -> None:
        self._timer = None
        self._changed()
