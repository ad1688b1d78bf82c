"""A small HTTP/1.1 server for the kubelet API: few connections, long streams, upgrades. Parsing is httptools'."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import httptools

from sampan.client.messages import Request, Response

log = logging.getLogger(__name__)
_MAX_HEAD = 64 * 1024
_MAX_BODY = 4 * 1024 * 1024
_REASONS = {101: "Switching Protocols", 200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden"}
_REASONS |= {404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


class Stream:
    """The raw connection, for upgraded protocols. `read` gives b"" at the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(65536)
        except (OSError, ssl.SSLError):
            return b""

    async def write(self, data: bytes) -> None:
        """Raises OSError when the other side is gone; waits while it is slow."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """`await start(...)` listens; `await close()` ends all connections."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def start(
        self,
        context: ssl.SSLContext | None,
        host: str | Sequence[str] = "0.0.0.0",
        port: int = 10250,
        sock: Any = None,
    ) -> int:
        """Listen on an address, on several, or on a bound socket; returns the port."""
        if sock is not None:
            self._server = await asyncio.start_server(self._serve, sock=sock, ssl=context, limit=_MAX_HEAD)
        else:
            self._server = await asyncio.start_server(self._serve, host, port, ssl=context, limit=_MAX_HEAD)
        return self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends the listener and all connections."""
        if self._server:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is done."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        try:
            request, keep = await _request(head, reader)
        except (httptools.HttpParserError, ValueError) as error:
            await _answer(writer, Response(400, body=f"{error}\n".encode()), False)
            return False
        request.peer = _peer(writer)
        try:
            response = await self._handler(request)
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            response = Response(500, body=f"{error}\n".encode())
        if response.upgrade is not None:
            lines = ["HTTP/1.1 101 Switching Protocols", *(f"{k}: {v}" for k, v in response.headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            await response.upgrade(Stream(reader, writer))
            return False
        await _answer(writer, response, keep)
        return keep


class _Head:
    """Collects what httptools finds."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text


async def _request(head: bytes, reader: asyncio.StreamReader) -> tuple[Request, bool]:
    found = _Head()
    parser = httptools.HttpRequestParser(found)
    with contextlib.suppress(httptools.HttpParserUpgrade):
        parser.feed_data(head)
    path, _, query = found.url.decode("latin-1").partition("?")
    length = int(found.headers.get("content-length", "0") or 0)
    if length > _MAX_BODY:
        raise ValueError("the request is too large")
    body = await reader.readexactly(length) if length else b""
    request = Request(parser.get_method().decode(), unquote(path), query, found.headers, body)
    keep = parser.get_http_version() == "1.1" and "close" not in found.headers.get("connection", "").lower()
    return request, keep


def _peer(writer: asyncio.StreamWriter) -> Mapping[str, Any] | None:
    """{"cn", "o"} of the client's verified certificate."""
    certificate = writer.get_extra_info("peercert")
    if not certificate:
        return None
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    names = [value for key, value in subject if key == "commonName"]
    return {
        "cn": names[0] if names else "",
        "o": [value for key, value in subject if key == "organizationName"],
    }


async def _answer(writer: asyncio.StreamWriter, response: Response, keep: bool) -> None:
    body, headers = response.body, dict(response.headers)
    if isinstance(body, bytes):
        headers["Content-Length"] = str(len(body))
    else:
        headers["Transfer-Encoding"] = "chunked"
    if not keep:
        headers["Connection"] = "close"
    reason = _REASONS.get(response.status, "")
    lines = [f"HTTP/1.1 {response.status} {reason}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1"))
    if isinstance(body, bytes):
        writer.write(body)
        await writer.drain()
        return
    await writer.drain()
    async for chunk in body:
        if chunk:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
