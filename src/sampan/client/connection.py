"""One HTTP/1.1 connection of a client: a request at a time, its answer whole or in chunks, or the raw stream after 101."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import httptools

_HIGH, _LOW = 1 << 20, 1 << 18  # bytes of an unread body at which reading pauses, and goes on


class Stale(ConnectionError):
    """The server had closed a kept connection before it answered a byte: nothing was done if it never read."""


class Connection(asyncio.Protocol):
    """`send` a request, `await head()`, then iterate `body()`. `released` is called when it may be used
    again, `lost` when it is gone."""

    def __init__(self, released: Callable[[Connection], None], lost: Callable[[Connection], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.used = False  # has answered before
        self.status = 0
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self._released = released
        self._lost = lost
        self._parser: Any = None
        self._head: asyncio.Future[None] | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._complete = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._keep = True
        self._bodyless = False
        self._rest = b""  # what came after 101

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def send(self, data: bytes, *, bodyless: bool = False) -> None:
        """Begin an exchange; `bodyless` for HEAD, whose answer has a length and no body."""
        assert self.transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._head = asyncio.get_running_loop().create_future()
        self._chunks.clear()
        self._buffered = 0
        self._complete = False
        self._error = None
        self._bodyless = bodyless
        self.status, self.headers, self.length = 0, {}, None
        self.transport.write(data)

    async def head(self) -> None:
        """Until status and headers are there. Raises Stale or ConnectionError."""
        assert self._head is not None
        await self._head

    async def chunk(self) -> bytes | None:
        """The next piece of the body, None at its end. Raises ConnectionError when it was cut off."""
        while not self._chunks:
            if self._complete:
                return None
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk)
        if self._paused and self._buffered < _LOW and self.open:
            self._paused = False
            assert self.transport is not None
            self.transport.resume_reading()
        return chunk

    def finish(self) -> None:
        """The exchange is over: keep the connection if it was read to its end, otherwise close it."""
        if self._complete and self._keep and self.open:
            self.used = True
            self._released(self)
        else:
            self.abort()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def take_over(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The raw stream after 101 Switching Protocols."""
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self._rest:
            reader.feed_data(self._rest)
        if self._error is not None:
            reader.feed_eof()
        return reader, asyncio.StreamWriter(self.transport, protocol, reader, loop)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.status == 101:
            self._rest += data  # until somebody takes over
            return
        if self._parser is None or self._complete:
            self.abort()  # the server speaks though nobody asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not an HTTP answer: {error}"))
            self.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)
        if self._head is not None and not self._head.done() and self.used:
            self._fail(Stale("the server closed a kept connection"))
        elif self._head is not None and self._head.done() and self._until_close:
            self._complete = True
            self._keep = False
            self._wake()
        else:
            self._fail(ConnectionResetError(f"connection lost{f': {exc}' if exc else ''}"))

    @property
    def _until_close(self) -> bool:
        return self.length is None and "transfer-encoding" not in self.headers and self.status != 101

    def _fail(self, error: Exception) -> None:
        if self._complete:
            return
        self._error = error
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # whoever gave up waiting need not hear of it
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200 and self.status != 101:
            return
        length = self.headers.get("content-length")
        self.length = int(length) if length is not None else None
        self._keep = self._parser.should_keep_alive()
        if self._bodyless:
            self._complete, self._keep = True, False
        if self._head is not None and not self._head.done():
            self._head.set_result(None)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > _HIGH and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._head is not None and not self._head.done():
            self.headers = {}  # 100 Continue and the like: the real answer follows
            return
        if self.status != 101:
            self._complete = True
        self._wake()


class Body(AsyncIterator[bytes]):
    """An answer in chunks. Dropping it, or closing it before its end, closes the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None:
            raise StopAsyncIteration
        try:
            chunk = await self._connection.chunk()
        except BaseException:
            self._end()
            raise
        if chunk is None:
            self._end()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish()
