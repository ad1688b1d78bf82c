"""A connection after its protocol was changed (101): exec, attach, port-forward and what proxies pass on."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

_READ_AHEAD = 16  # chunks that wait to be read; then the socket is no longer read


class _Below(Protocol):
    """What carries the bytes: a connection of `server.http`."""

    lost: bool

    async def send(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class RawConnection:
    """A connection after 101: bytes both ways. `read` gives b"" at the end; `write` waits while much is unsent."""

    def __init__(self, protocol: _Below, first: bytes) -> None:
        self._protocol = protocol
        self._chunks: deque[bytes] = deque([first] if first else [])
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    async def read(self) -> bytes:
        """The next bytes as they came, b"" when the other side has ended."""
        while not self._chunks:
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = self._chunks.popleft()
        if len(self._chunks) < _READ_AHEAD:
            self._protocol.resume_reading()
        return chunk

    async def write(self, data: bytes) -> None:
        """Raises ConnectionResetError when the other side is gone."""
        await self._protocol.send(data)

    def close(self) -> None:
        self._protocol.close()

    def is_closing(self) -> bool:
        return self._protocol.lost

    def feed(self, data: bytes) -> None:
        """For the protocol: bytes have come."""
        self._chunks.append(data)
        if len(self._chunks) >= _READ_AHEAD:
            self._protocol.pause_reading()
        self._wake()

    def end(self) -> None:
        """For the protocol: no more will come."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
