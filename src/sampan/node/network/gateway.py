"""The inner side of `forward`: sockets of the machine's network for a cluster that has no way out of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

from sampan.base.clock import Clock
from sampan.node.descriptors import when
from sampan.node.network.forward import LONGEST

_CONNECT_TIMEOUT = 10.0


class Gateway:
    """The inner side. All sockets it gives are non-blocking and belong to the machine's network, not to the cluster's."""

    def __init__(self, fd: int, clock: Clock) -> None:
        self._channel = socket.socket(fileno=os.dup(fd))
        self._channel.setblocking(False)
        self._clock = clock
        self._waiting: dict[int, asyncio.Future[socket.socket]] = {}
        # Another process may have used the channel before (and died): ids begin anew where its replies cannot match.
        self._count = int.from_bytes(os.urandom(4), "big") << 16
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()
        for future in self._waiting.values():
            future.cancel()

    async def connect(self, address: str, port: int) -> socket.socket:
        """A TCP connection from the machine. Raises OSError (TimeoutError after ten seconds)."""
        opened = await self._ask("connect", address, port)
        try:
            async with self._clock.timeout(_CONNECT_TIMEOUT):
                await when(opened.fileno(), writable=True)
            number = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, f"connect to {address}:{port}: {os.strerror(number)}")
            return opened
        except BaseException:
            opened.close()
            raise

    async def listen(self, port: int, address: str = "127.0.0.1") -> socket.socket:
        """A listening TCP socket on the machine. Raises OSError, EADDRINUSE for one."""
        return await self._ask("listen", address, port)

    async def udp(self, address: str, port: int) -> socket.socket:
        """A UDP socket of the machine, connected."""
        return await self._ask("udp", address, port)

    async def _ask(self, what: str, address: str, port: int) -> socket.socket:
        self._count += 1
        identity = self._count
        future: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = future
        request = {"id": identity, "op": what, "address": address, "port": port}
        try:
            await asyncio.get_running_loop().sock_sendall(self._channel, json.dumps(request).encode())
            return await future
        finally:
            self._waiting.pop(identity, None)

    def _readable(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, LONGEST, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._lost()
                return
            self._reply(json.loads(data), descriptors)

    def _reply(self, reply: dict[str, Any], descriptors: list[int]) -> None:
        opened = socket.socket(fileno=descriptors[0]) if descriptors else None
        future = self._waiting.pop(reply["id"], None)
        if future is None or future.done():
            if opened:
                opened.close()
        elif opened:
            opened.setblocking(False)
            future.set_result(opened)
        else:
            future.set_exception(OSError(reply["errno"], os.strerror(reply["errno"])))

    def _lost(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the gateway to the machine's network is gone"))
        self._waiting.clear()
