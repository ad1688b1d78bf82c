"""HTTP/1.1 for the server: a small protocol on httptools, so that certificates, upgrades and back-pressure are ours.

Works on uvloop and on asyncio's own loop. One request of a connection runs at a time; pipelined ones wait their turn.
Limits are stated here, and whoever is slower than they allow is cut off. Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from sampan.base import pki
from sampan.base.clock import Clock, Timer
from sampan.client.messages import Pushed, Request, Response
from sampan.server.incoming import Bodies, Incoming, RequestReader
from sampan.server.raw import RawConnection
from sampan.server.respond import Headers, header_lines, refusal

Handle = Callable[[Request], Awaitable[Response]]
AtOnce = Callable[[Request], Response | None]
log = logging.getLogger("sampan.http")

CONNECTION_LIMIT = 16_384  # more are closed as they come
_PIPELINED = 16  # requests read ahead; then the socket is no longer read
_HIGH_WATER = 16 * 1024  # unsent bytes above which a stream waits; below TLS there may be 64 KB more
_SEND_BUFFER = 256 * 1024  # bytes the kernel keeps for a slow reader
_HANDSHAKE_TIMEOUT = 10.0  # seconds that TLS may take to begin
_REQUEST_TIMEOUT = 30.0  # seconds from the first byte of a request to its last
_IDLE_TIMEOUT = 300.0  # seconds a kept connection may be silent
_STALL_TIMEOUT = 60.0  # seconds a reader may take nothing
_SEE_OUT = 1.0  # seconds that a client has to notice that it was refused
_LINGER = 5.0  # seconds that running requests have at shutdown

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in http.HTTPStatus}
_AUDIT_ID = 64  # characters of an Audit-Id that are kept
_DATE = "%a, %d %b %Y %H:%M:%S GMT"
_NOT_KEPT = {"cache-control": "no-cache, private"}
_NOBODYS = "00000000-0000-4000-8000-"
_ENDS = [b"%02x\r\n" % number for number in range(256)]
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Connection(asyncio.Protocol):
    """One client. Implements httptools' callbacks, too."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._clock = listener.clock
        self._transport: Any = None
        self._reader = RequestReader(listener.bodies, self._go_on)
        self._task: asyncio.Task[None] | None = None
        self._peer: Mapping[str, Any] | None = None
        self._remote = ""
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._reading = True
        self._held = 0  # of the body of the request that runs
        self._timer: Timer | None = None
        self._since = 0.0  # when the state that a timeout watches began
        self._raw: RawConnection | None = None
        self.lost = False

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if len(self._listener.connections) >= CONNECTION_LIMIT:
            transport.abort()
            return
        transport.set_write_buffer_limits(_HIGH_WATER)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = transport.get_extra_info("peername")
        self._remote = address[0] if isinstance(address, tuple) else ""
        self._peer = _peer(transport.get_extra_info("ssl_object"))
        self._listener.connections.add(self)
        self._since = self._clock.monotonic()
        self._timer = self._clock.call_later(_REQUEST_TIMEOUT, self._check_silence)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._listener.connections.discard(self)
        if self._listener.ended is not None:
            self._listener.ended()
        if self._timer is not None:
            self._timer.cancel()
        if self._raw is not None:
            self._raw.end()
        elif self._task is not None:
            self._task.cancel()
        self._reader.forget()
        self._bodies_answered()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the client is gone"))
            self._drained.exception()  # seen, whether or not somebody waits

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed(data)
            return
        reader = self._reader
        if reader.ending or self.lost:
            return
        if reader.now is None:
            self._since = self._clock.monotonic()
        rest = reader.feed(data)
        if rest is not None:
            self._raw = RawConnection(self, rest)
        elif len(reader.waiting) >= _PIPELINED:
            self.pause_reading()
        if self._task is None:
            self._next()

    def _go_on(self) -> None:
        """A client waits to be told that it may send a body; told so in its turn only."""
        if self._task is None:
            self._transport.write(_CONTINUE)

    def _bodies_answered(self) -> None:
        self._listener.bodies.held -= self._held
        self._held = 0

    def eof_received(self) -> bool:
        if self._raw is not None:
            self._raw.end()
            assert self._transport is not None
            return self._transport.get_extra_info("sslcontext") is None  # TLS is not closed one way only
        return False

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # Requests, one after another

    def _next(self) -> None:
        """Answer what waits, up to a request whose answer takes a task."""
        while self._reader.waiting and not self.lost:
            incoming = self._reader.waiting.popleft()
            request = self._request(incoming)
            if not self._answered_at_once(incoming, request):
                self._held = incoming.held
                self._task = self._listener.loop.create_task(self._run(incoming, request))
                return
        if self._listener.closing and not self.lost:
            self._transport.close()

    def _answered_at_once(self, incoming: Incoming, request: Request) -> bool:
        """Whether the answer was known without waiting, and has been sent."""
        at_once = self._listener.at_once
        if at_once is None or incoming.method != "GET" or self._paused or self._listener.closing:
            return False
        if incoming.error is not None or incoming.close or incoming.upgrade or incoming.old or incoming.held:
            return False
        try:
            response = at_once(request)
        except Exception:
            return False  # the long way fails in the same way, and says so
        if response is None or not isinstance(response.body, bytes):
            return False
        head = self._head(incoming, response)
        head.append(b"content-length: %d\r\n\r\n" % len(response.body))
        head.append(response.body)
        self._transport.write(b"".join(head))
        self._since = self._clock.monotonic()
        self.resume_reading()
        return True

    async def _run(self, incoming: Incoming, request: Request) -> None:
        try:
            if incoming.error is not None:
                self._reader.ending = True
                await self._answer(incoming, refusal(incoming.error), close=True)
                return
            if "audit-id" not in incoming.headers:
                incoming.headers = incoming.headers | {"audit-id": self._listener.audit_id()}
                request.headers = incoming.headers
            response = await self._listener.handle(request)
            if incoming.upgrade and response.upgrade is None:
                incoming.close = True  # an upgrade we do not do: answered as if it had not been asked for
            if response.upgrade is not None:
                await self._upgrade(response)
                return
            await self._answer(incoming, response, close=incoming.close or self._listener.closing)
        except (ConnectionResetError, BrokenPipeError):
            self.close()
        except asyncio.CancelledError:
            self.close()
        except Exception:
            log.exception("%s %s", incoming.method, incoming.url)
            self.close()
        else:
            self._since = self._clock.monotonic()
        finally:
            self._task = None
            self._bodies_answered()
            if self._raw is None:
                self.resume_reading()
                if self._reader.waiting and not self.lost:
                    self._next()

    def _request(self, incoming: Incoming) -> Request:
        path, _, query = incoming.url.partition(b"?")
        text = path.decode("latin-1")
        if not text.startswith("/"):  # absolute form
            text = "/" + text.partition("://")[2].partition("/")[2]
        return Request(
            incoming.method,
            unquote(text) if "%" in text else text,
            query.decode("latin-1"),
            incoming.headers,
            b"".join(incoming.body) if incoming.body else b"",
            None,
            self._peer,
            self._remote,
        )

    def _head(self, incoming: Incoming, response: Response) -> list[bytes]:
        """The first lines of an answer."""
        headers, listener = response.headers, self._listener
        listener.answers = count = listener.answers + 1
        if count >= listener.until or self._since >= listener.fresh:
            listener.refresh(self._since)
        stamp = listener.stamp + _ENDS[count & 0xFF]
        if type(headers) is Headers:
            lines = headers.lines
        else:
            lines = header_lines(headers if "cache-control" in headers else {**_NOT_KEPT, **headers})
            if "date" in headers:  # another server's answer is passed on
                stamp = stamp.partition(b"\r\n")[2]
        if "audit-id" in incoming.headers:
            audit = incoming.headers["audit-id"][:_AUDIT_ID]
            stamp = stamp[: stamp.rindex(b"audit-id")] + f"audit-id: {audit}\r\n".encode("latin-1")
        status = _STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} \r\n".encode()
        return [status, lines, stamp]

    async def _answer(self, incoming: Incoming, response: Response, *, close: bool) -> None:
        head = self._head(incoming, response)
        body = response.body
        chunked = not incoming.old
        close = close or (incoming.old and not isinstance(body, bytes))
        if close:
            head.append(b"connection: close\r\n")
        elif incoming.old:
            head.append(b"connection: keep-alive\r\n")
        bare = incoming.method == "HEAD" or response.status in (204, 304)
        if isinstance(body, bytes):
            head.append(b"content-length: %d\r\n\r\n" % len(body) if response.status != 204 else b"\r\n")
            if not bare:
                head.append(body)
            await self.send(b"".join(head))
        else:
            head.append(b"transfer-encoding: chunked\r\n\r\n" if chunked else b"\r\n")
            await self._stream(b"".join(head), body, bare, chunked)
        if close and incoming.error is not None:
            self._see_out()
        elif close:
            self.close()

    async def _stream(self, head: bytes, body: AsyncIterator[bytes], bare: bool, chunked: bool) -> None:
        """Pieces as they come, up to the end of the connection if not `chunked`; the source is closed whatever happens."""
        try:
            self._transport.write(head)
            if bare:
                return
            if chunked and isinstance(body, Pushed):
                body.push_to(self._push)
            async for chunk in body:
                if chunk:
                    await self.send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            if chunked:
                self._transport.write(b"0\r\n\r\n")
        finally:
            aclose = getattr(body, "aclose", None)
            if aclose is not None:
                await aclose()

    def _push(self, chunk: bytes) -> bool:
        """One more chunk of a stream, unless too much is unsent."""
        if self._paused or self.lost:
            return False
        self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        return True

    async def _upgrade(self, response: Response) -> None:
        head = [_STATUS_LINES[101]]
        for name, value in response.headers.items():
            head.append(f"{name}: {value}\r\n".encode("latin-1"))
        head.append(b"\r\n")
        raw = self._raw or RawConnection(self, b"")
        self._raw = raw
        self._transport.write(b"".join(head))
        assert response.upgrade is not None
        try:
            await response.upgrade(raw)
        finally:
            self.close()

    async def send(self, data: bytes) -> None:
        """Write, and wait while too much is unsent; a reader that takes nothing for a minute is cut off."""
        if self.lost:
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        if not self._paused:
            return
        drained = self._drained = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(_STALL_TIMEOUT, self._abort)
        try:
            await drained
        finally:
            timer.cancel()
            self._drained = None

    # Ends

    def _check_silence(self) -> None:
        """One timer a connection: too slow a request, or too long a silence between two."""
        if self.lost:
            return
        quiet = self._clock.monotonic() - self._since
        if self._task is not None or self._raw is not None:
            wait = _REQUEST_TIMEOUT
        else:
            limit = _REQUEST_TIMEOUT if self._reader.now is not None else _IDLE_TIMEOUT
            if quiet >= limit:
                self._abort()
                return
            wait = max(limit - quiet, 1.0)
            if self._reader.now is None:
                wait = min(wait, _REQUEST_TIMEOUT)
        self._timer = self._clock.call_later(wait, self._check_silence)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what was written has gone out."""
        self._reader.ending = True
        if self._transport is not None and not self.lost:
            self._transport.close()

    def _see_out(self) -> None:
        """End after a refusal: what still comes is thrown away for a moment, or the client would miss the answer."""
        if self.lost:
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.resume_reading()
        self._clock.call_later(_SEE_OUT, self._abort)

    def finish(self) -> None:
        """Shutdown: an idle connection goes at once, a busy one after its answer."""
        if self._task is None:
            self.close()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._abort()

    def pause_reading(self) -> None:
        if self._reading and not self.lost:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self.lost and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()


def _peer(tls: Any) -> Mapping[str, Any] | None:
    """Who the client's certificate says it is; TLS has checked it."""
    der = tls.getpeercert(True) if tls is not None else None
    return pki.peer_of(der) if der else None


class Listener:
    """A serving server. `close` lets running requests end."""

    def __init__(
        self, handle: Handle, clock: Clock, at_once: AtOnce | None = None, audit: str = _NOBODYS
    ) -> None:
        self.handle = handle
        self.at_once = at_once
        self.clock = clock
        self.loop = asyncio.get_running_loop()  # asked once: asking costs a call to the kernel
        self.connections: set[_Connection] = set()
        self._audit = audit
        self.answers = 0
        self.stamp, self.fresh, self.until = b"", 0.0, 0  # see refresh
        self.bodies = Bodies()  # that came and are not answered
        self.closing = False
        self.servers: list[asyncio.AbstractServer] = []
        self.ended: Callable[[], None] | None = None  # told of each connection's end

    def refresh(self, monotonic: float) -> None:
        """Make the lines anew that say what time it is (caches reckon from it, RFC 9111) and begin an answer's Audit-Id:
        they hold for a second or 256 answers, of which each has its own end."""
        now = self.clock.now()
        date = datetime.fromtimestamp(int(now), UTC).strftime(_DATE)
        self.stamp = f"date: {date}\r\naudit-id: {self._audit}{self.answers >> 8:010x}".encode()
        self.fresh, self.until = monotonic + 1 - now % 1, (self.answers | 0xFF) + 1

    def audit_id(self) -> str:
        """The id of a request that an audit log will name, too."""
        self.answers += 1
        return f"{self._audit}{self.answers:012x}"

    @property
    def addresses(self) -> list[Any]:
        """What is listened on: (host, port) or a path."""
        return [s.getsockname() for server in self.servers for s in getattr(server, "sockets", ())]

    async def close(self, grace: float = _LINGER) -> None:
        """No new connections; idle ones end, the others have `grace` seconds."""
        self.closing = True
        for server in self.servers:
            server.close()
        for connection in list(self.connections):
            connection.finish()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.clock.call_later(grace, done.cancel)
        tasks = [c._task for c in self.connections if c._task is not None]
        if tasks:
            either: list[asyncio.Future[Any]] = [asyncio.gather(*tasks, return_exceptions=True), done]
            await asyncio.wait(either, return_when="FIRST_COMPLETED")
        timer.cancel()
        for connection in list(self.connections):
            connection.cancel()


async def serve(
    handle: Handle,
    sockets: Sequence[socket.socket],
    ssl_context: ssl.SSLContext | None,
    clock: Clock,
    at_once: AtOnce | None = None,
    audit: str = _NOBODYS,
) -> Listener:
    """Answer HTTP on bound sockets. Must run on the loop that will serve.

    `audit` is how the Audit-Id begins that each request gets: a UUID's first 24 characters.
    `at_once` is asked first; it gives the answers that `handle` would give without waiting, and None for all others.
    """
    listener = Listener(handle, clock, at_once, audit)
    loop = asyncio.get_running_loop()
    for sock in sockets:
        more: dict[str, Any] = (
            {"ssl_handshake_timeout": _HANDSHAKE_TIMEOUT} if ssl_context is not None else {}
        )
        server = await loop.create_server(
            lambda: _Connection(listener), sock=sock, ssl=ssl_context, backlog=1024, **more
        )
        listener.servers.append(server)
    return listener
