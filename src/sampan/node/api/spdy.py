"""SPDY/3.1 framing, as far as kubectl needs it: streams with headers, data, half-close, ping.

kubectl tunnels it inside a WebSocket for port-forward, and client-go's older executors speak it over a plain upgrade.
Source: the SPDY/3.1 draft specification (headers are compressed by zlib with a fixed dictionary).
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from sampan.base.tasks import Tasks

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age "
    "allow authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
).split()
_NAMES += ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(n)) + n.encode() for n in _NAMES) + _REST.encode()

_SYN_STREAM, _SYN_REPLY, _RST, _PING, _GOAWAY, _HEADERS, _WINDOW = 1, 2, 3, 6, 7, 8, 9
_FIN = 0x01
_VERSION = 0x8003
_CHUNK = 32 * 1024


class Bytes(Protocol):
    """What frames travel over. `read` gives b"" at the end."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...


class SpdyStream:
    """One stream the client opened. `read` gives b"" after its last data."""

    def __init__(self, session: SpdySession, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self._ended = False
        self._closed = False

    async def read(self) -> bytes:
        if self._ended:
            return b""
        data = await self._incoming.get()
        self._ended = not data
        if data:
            await self._session.consumed(self.number, len(data))
        return data

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK):
            await self._session.send_data(self.number, data[start : start + _CHUNK], 0)

    async def close(self) -> None:
        """No more data from this side."""
        if not self._closed:
            self._closed = True
            await self._session.send_data(self.number, b"", _FIN)

    def feed(self, data: bytes, end: bool) -> None:
        """For the session: bytes have come, or (`end`) the last of them."""
        if data:
            self._incoming.put_nowait(data)
        if end:
            self._incoming.put_nowait(b"")


class SpdySession:
    """The server's side. `opened(stream)` runs in a task of its own for each stream the client opens."""

    def __init__(self, transport: Bytes, opened: Callable[[SpdyStream], Awaitable[None]]) -> None:
        self._transport = transport
        self._opened = opened
        self._streams: dict[int, SpdyStream] = {}
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._tasks = Tasks()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Read frames until the other side is gone, then end all streams."""
        buffer = bytearray()
        try:
            while True:
                data = await self._transport.read()
                if not data:
                    return
                buffer += data
                while len(buffer) >= 8:
                    length = int.from_bytes(buffer[5:8], "big")
                    if len(buffer) < 8 + length:
                        break
                    head, payload = bytes(buffer[:8]), bytes(buffer[8 : 8 + length])
                    del buffer[: 8 + length]
                    await self._frame(head, payload)
        finally:
            for stream in self._streams.values():
                stream.feed(b"", True)
            await self._tasks.cancel()

    async def _frame(self, head: bytes, payload: bytes) -> None:
        flags = head[4]
        if not head[0] & 0x80:
            number = int.from_bytes(head[:4], "big")
            stream = self._streams.get(number)
            if stream:
                stream.feed(payload, bool(flags & _FIN))
            return
        kind = int.from_bytes(head[2:4], "big")
        if kind == _SYN_STREAM:
            await self._syn(payload, flags)
        elif kind == _PING:
            await self.send_control(_PING, 0, payload)
        elif kind == _RST:
            stream = self._streams.pop(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF, None)
            if stream:
                stream.feed(b"", True)
        elif kind == _HEADERS:
            self._headers(payload[4:])  # keeps the shared compression state right

    async def _syn(self, payload: bytes, flags: int) -> None:
        number = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        stream = SpdyStream(self, number, self._headers(payload[10:]))
        self._streams[number] = stream
        if flags & _FIN:
            stream.feed(b"", True)
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self.send_control(_SYN_REPLY, 0, struct.pack(">I", number) + block)
        self._tasks.start(self._open(stream))

    async def _open(self, stream: SpdyStream) -> None:
        try:
            await self._opened(stream)
        except OSError:
            pass

    def _headers(self, block: bytes) -> dict[str, str]:
        data = self._inflate.decompress(block)
        count, at = int.from_bytes(data[:4], "big"), 4
        words: list[str] = []
        for _ in range(count * 2):
            length = int.from_bytes(data[at : at + 4], "big")
            words.append(data[at + 4 : at + 4 + length].decode("utf-8", "replace"))
            at += 4 + length
        return {words[i].lower(): words[i + 1] for i in range(0, len(words), 2)}

    async def send_control(self, kind: int, flags: int, payload: bytes) -> None:
        head = struct.pack(">HHI", _VERSION, kind, flags << 24 | len(payload))
        await self._send(head + payload)

    async def send_data(self, number: int, data: bytes, flags: int) -> None:
        await self._send(struct.pack(">II", number, flags << 24 | len(data)) + data)

    async def consumed(self, number: int, amount: int) -> None:
        """Give the sender its window back."""
        await self.send_control(_WINDOW, 0, struct.pack(">II", number, amount))

    async def _send(self, data: bytes) -> None:
        async with self._writing:
            await self._transport.write(data)
