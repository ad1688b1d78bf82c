"""The agent's side of the zygote's socket, on the event loop: one connection a request, never a blocking call."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sampan.base.clock import Clock
from sampan.node.descriptors import when

_PATIENCE = 5.0  # seconds a dead zygote is waited for: process 1 starts another
_RETRY = 0.02
T = TypeVar("T")


class ZygoteError(Exception):
    """The zygote cannot be reached, or its fork died before it answered."""


class Connection:
    """One request under way: `recv()` its replies, `send()` what the helper listens for."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def recv(self) -> tuple[dict[str, Any], list[int]]:
        """The next reply and the descriptors that came with it. Raises ZygoteError when there is none."""
        try:
            data, fds, _, _ = await _ready(self._sock, lambda: socket.recv_fds(self._sock, 1 << 18, 8))
        except OSError as error:
            raise ZygoteError(f"zygote: {error}") from None
        if not data:
            raise ZygoteError("the container's helper process died before it answered")
        for fd in fds:
            os.set_inheritable(fd, False)
        return json.loads(data), fds

    def send(self, data: bytes) -> None:
        """Best effort: the helper may be gone."""
        try:
            self._sock.send(data)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


async def _ready(sock: socket.socket, call: Callable[[], T]) -> T:
    """Do a non-blocking call on `sock` as soon as it is readable."""
    while True:
        try:
            return call()
        except BlockingIOError:
            await when(sock.fileno())


class Channel:
    """Makes connections to the zygote at a path."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    async def request(self, op: str, body: Mapping[str, Any]) -> Connection:
        """Hand a request to a fresh fork. Raises ZygoteError."""
        memory = os.memfd_create("request")
        try:
            os.write(memory, json.dumps(body).encode())
            until = self._clock.monotonic() + _PATIENCE
            while True:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                sock.setblocking(False)
                try:
                    connect_unix(sock, self._path)
                    socket.send_fds(sock, [op.encode()], [memory])
                    return Connection(sock)
                except OSError as error:
                    sock.close()
                    if self._clock.monotonic() > until:
                        raise ZygoteError(f"cannot reach the zygote at {self._path}: {error}") from None
                await self._clock.sleep(_RETRY)
        finally:
            os.close(memory)

    async def ask(self, op: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """A request with one reply. Raises ZygoteError."""
        connection = await self.request(op, body)
        try:
            return await connection.recv()
        finally:
            connection.close()


def connect_unix(sock: socket.socket, path: str) -> None:
    """connect() to a unix socket whose path may be longer than the 108 bytes an address holds."""
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)
