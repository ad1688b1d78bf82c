"""A client's way to a server over TCP and TLS: kept connections, answers in chunks, raw streams after an upgrade."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from sampan.base import tls
from sampan.base.clock import Clock
from sampan.client.connection import Body, Connection, Stale
from sampan.client.messages import Request, Response

_BUSY = 16  # ordinary requests on their way at once, and connections kept; streams do not count
_WHOLE = 4 << 20  # an answer of known length up to this many bytes is returned whole
_REPEATABLE = ("GET", "HEAD", "OPTIONS")
Pem = str | bytes | Path  # the text itself, or the path of a file

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class HttpsTransport:
    """`client.messages.Transport` to `base_url` (`https://host:port`, or http).

    `ca`, `cert`, `key` are PEM text or paths of files; without `ca` the machine's authorities count, and
    `verify=False` trusts anyone. `token` is a bearer token, or a function that gives the current one. `connect` and
    `answer` are seconds until a connection stands and until an answer begins; a begun one may last for ever.
    `server_name` is the name that the server's certificate must be good for, when it is not the host's.
    Raises OSError (also ssl.SSLError, ConnectionError) or TimeoutError.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca: Pem | None = None,
        cert: Pem | None = None,
        key: Pem | None = None,
        token: str | Callable[[], str] | None = None,
        clock: Clock,
        verify: bool = True,
        connect: float = 10.0,
        answer: float = 60.0,
        server_name: str = "",
    ) -> None:
        url = urlsplit(base_url)
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._authority = url.netloc
        self._prefix = url.path.rstrip("/")
        self._tls = _context(ca, cert, key, verify) if url.scheme == "https" else None
        self._server_name = server_name or self._host
        self._token = token
        self._clock = clock
        self._connect_timeout = connect
        self._answer_timeout = answer
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._slots = asyncio.Semaphore(_BUSY)
        self._closed = False

    async def __call__(self, request: Request) -> Response:
        async with self._slots:
            connection = await self._exchange(request)
            if request.method == "HEAD" or connection.status in (204, 304):
                connection.finish()
                return Response(connection.status, connection.headers)
            body = Body(connection)
            if connection.length is None or connection.length > _WHOLE:
                return Response(connection.status, connection.headers, body)
            whole = b"".join([chunk async for chunk in body])
            return Response(connection.status, connection.headers, whole)

    async def upgrade(
        self, request: Request
    ) -> tuple[int, Mapping[str, str], asyncio.StreamReader, asyncio.StreamWriter | None]:
        """Ask for another protocol (the request's headers say which), on a connection of its own.

        After 101 reader and writer are the raw stream. After any other status the reader holds the body of the refusal
        and the writer is None.
        """
        connection = await self._connect()
        await self._ask(connection, request)
        if connection.status == 101:
            self._all.discard(connection)
            reader, writer = connection.take_over()
            return connection.status, connection.headers, reader, writer
        reader = asyncio.StreamReader()
        async for chunk in Body(connection):
            reader.feed_data(chunk)
        reader.feed_eof()
        return connection.status, connection.headers, reader, None

    async def close(self) -> None:
        """Cut all connections, also those of running watches."""
        self._closed = True
        for connection in list(self._all):
            connection.abort()
        self._idle.clear()
        await self._clock.sleep(0)

    def set_certificate(self, cert: Pem, key: Pem) -> None:
        """From the next connection on, be known by another certificate (rotation)."""
        assert self._tls is not None
        _load_pair(self._tls, cert, key)
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def _exchange(self, request: Request) -> Connection:
        """A connection on which the answer to `request` has begun."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.open:
                continue
            try:
                await self._ask(connection, request)
                return connection
            except Stale:
                if request.method not in _REPEATABLE:
                    raise
        connection = await self._connect()
        await self._ask(connection, request)
        return connection

    async def _connect(self) -> Connection:
        if self._closed:
            raise ConnectionError("the transport is closed")
        loop = asyncio.get_running_loop()
        async with self._clock.timeout(self._connect_timeout):
            transport, connection = await loop.create_connection(
                lambda: Connection(self._release, self._all.discard),
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._server_name if self._tls else None,
            )
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(
                socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
            )  # a server that vanished is noticed in 30 s
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in _KEEPALIVE:
                raw.setsockopt(socket.IPPROTO_TCP, option, value)
        self._all.add(connection)
        return connection

    async def _ask(self, connection: Connection, request: Request) -> None:
        try:
            connection.send(self._head(request) + request.body, bodyless=request.method == "HEAD")
            async with self._clock.timeout(self._answer_timeout):
                await connection.head()
        except BaseException:
            connection.abort()
            raise

    def _head(self, request: Request) -> bytes:
        target = quote(self._prefix + request.path, safe="/:@!$&'()*+,;=~") + (
            f"?{request.query}" if request.query else ""
        )
        headers = {"host": self._authority, **request.headers}
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            headers["content-length"] = str(len(request.body))
        if self._token is not None and "authorization" not in headers:
            token = self._token if isinstance(self._token, str) else self._token()
            headers["authorization"] = f"Bearer {token}"
        sent = [*headers.items(), *request.repeated]
        lines = [f"{request.method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in sent), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def _release(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= _BUSY:
            connection.abort()
        else:
            self._idle.append(connection)


def _context(ca: Pem | None, cert: Pem | None, key: Pem | None, verify: bool) -> ssl.SSLContext:
    trusted = _text(ca)
    if "-----BEGIN" in trusted:
        context = tls.client_context(data=trusted, verify=verify)
    else:
        context = tls.client_context(file=trusted or None, verify=verify)
    context.set_alpn_protocols(["http/1.1"])
    if cert:
        _load_pair(context, cert, key)
    return context


def _load_pair(context: ssl.SSLContext, cert: Pem, key: Pem | None) -> None:
    """The ssl module reads keys from files only: text goes through one that nobody else can read."""
    chain, private = _text(cert), _text(key)
    if "-----BEGIN" not in chain:
        context.load_cert_chain(chain, private or None)
        return
    fd, name = tempfile.mkstemp(prefix="sampan-")
    try:
        with os.fdopen(fd, "w") as file:
            file.write(chain.rstrip() + "\n" + private)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()


def _text(pem: Pem | None) -> str:
    return pem.decode() if isinstance(pem, bytes) else str(pem or "")
