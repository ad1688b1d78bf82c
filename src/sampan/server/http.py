"""HTTP/1.1 for the server: a small protocol on httptools, so that certificates, upgrades and back-pressure are ours.

Works on uvloop and on asyncio's own loop. One request of a connection runs at a time; pipelined ones wait their turn.
Limits are stated here, and whoever is slower than they allow is cut off. Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import re
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httptools

from sampan.api.status import ApiError, too_many_requests
from sampan.base import pki
from sampan.base.clock import Clock, Timer
from sampan.client.messages import Pushed, Request, Response
from sampan.server.respond import Headers, header_lines, refusal

Handle = Callable[[Request], Awaitable[Response]]
AtOnce = Callable[[Request], Response | None]
log = logging.getLogger("sampan.http")

HEADER_LIMIT = 64 * 1024  # bytes of request line and headers
BODY_LIMIT = 3 * 1024 * 1024  # bytes of a request's body, as kube-apiserver has it
BODIES_LIMIT = (
    128 * 1024 * 1024
)  # bytes of all bodies that are not answered yet: they come before anyone knows from whom
CONNECTION_LIMIT = 16_384  # more are closed as they come
_PIPELINED = 16  # requests read ahead; then the socket is no longer read
_HIGH_WATER = 16 * 1024  # unsent bytes above which a stream waits; below TLS there may be 64 KB more
_SEND_BUFFER = 256 * 1024  # bytes the kernel keeps for a slow reader
_REQUEST_TIMEOUT = 30.0  # seconds from the first byte of a request to its last
_IDLE_TIMEOUT = 300.0  # seconds a kept connection may be silent
_STALL_TIMEOUT = 60.0  # seconds a reader may take nothing
_SEE_OUT = 1.0  # seconds that a client has to notice that it was refused
_LINGER = 5.0  # seconds that running requests have at shutdown

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in http.HTTPStatus}
_FRAMING = ("content-length", "transfer-encoding")
_METHOD = re.compile(rb"([A-Z]{3,20}) [^ ]+ HTTP/1\.[01]\r\n")
_AUDIT_ID = 64  # characters of an Audit-Id that are kept
_DATE = "%a, %d %b %Y %H:%M:%S GMT"
_NOT_KEPT = {"cache-control": "no-cache, private"}
_NOBODYS = "00000000-0000-4000-8000-"
_ENDS = [b"%02x\r\n" % number for number in range(256)]
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# The usual header names, made once.
_NAMES = {
    spelling: name.lower()
    for name in (
        *("Host", "User-Agent", "Accept", "Accept-Encoding", "Authorization", "Connection"),
        *("Content-Type", "Content-Length", "Kubectl-Command", "Kubectl-Session"),
    )
    for spelling in (name.encode(), name.lower().encode())
}


class RawConnection:
    """A connection after 101: bytes both ways. `read` gives b"" at the end; `write` waits while much is unsent."""

    def __init__(self, protocol: _Connection, first: bytes) -> None:
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
        if len(self._chunks) < _PIPELINED:
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
        if len(self._chunks) >= _PIPELINED:
            self._protocol.pause_reading()
        self._wake()

    def end(self) -> None:
        """For the protocol: no more will come."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Incoming:
    """A request as it is being read."""

    __slots__ = (
        "body",
        "close",
        "error",
        "expects",
        "headers",
        "held",
        "method",
        "old",
        "size",
        "upgrade",
        "url",
    )

    def __init__(self) -> None:
        self.method = ""
        self.url = b""
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.size = 0
        self.held = 0  # bytes of the body that count towards BODIES_LIMIT
        self.old = False  # HTTP/1.0, which knows no chunks
        self.close = False
        self.expects = False
        self.upgrade = False
        self.error: ApiError | None = None


class _Connection(asyncio.Protocol):
    """One client. Implements httptools' callbacks, too."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._clock = listener.clock
        self._transport: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._now: _Incoming | None = None
        self._waiting: deque[_Incoming] = deque()
        self._task: asyncio.Task[None] | None = None
        self._peer: Mapping[str, Any] | None = None
        self._remote = ""
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._reading = True
        self._head_bytes = 0
        self._held = 0  # of the body of the request that runs
        self._timer: Timer | None = None
        self._since = 0.0  # when the state that a timeout watches began
        self._raw: RawConnection | None = None
        self._ending = False
        self._method = ""  # the one odd method of this connection, which ends after it
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
        self._forget()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the client is gone"))
            self._drained.exception()  # seen, whether or not somebody waits

    def _forget(self) -> None:
        """What was read and will not be answered. Parser and connection know each other: none waits for the collector."""
        unread = 0 if self._now is None else self._now.held
        self._listener.bodies -= self._held + unread + sum(incoming.held for incoming in self._waiting)
        self._held = 0
        self._waiting.clear()
        self._now = None
        self._parser = None

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed(data)
            return
        if self._ending or self.lost:
            return
        if self._now is None:
            self._since = self._clock.monotonic()
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if _has_body(self._waiting[-1]):
                self._read_on(self._waiting.pop(), rest)
                return
            self._waiting[-1].upgrade = True
            self._raw = RawConnection(self, rest)
        except httptools.HttpParserError:
            if self._odd_method(data):
                return
            self._refuse(ApiError(400, "BadRequest", "the request is no HTTP"))
            return
        if self._now is not None and not self._now.method and self._head_bytes > 2 * HEADER_LIMIT:
            self._refuse(ApiError(431, "BadRequest", "the request's headers are too large"))
            return
        if self._task is None:
            self._next()

    def _odd_method(self, data: bytes) -> bool:
        """A method that HTTP's parser does not know gets its answer (405) from the API, like any other."""
        found = _METHOD.match(data)
        if found is None or self._method or (self._now is not None and self._now.url):
            return False
        self._method = found[1].decode("ascii")
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"GET" + data[found.end(1) :])
        return True

    def _read_on(self, incoming: _Incoming, rest: bytes) -> None:
        """A request with a body asks for no other protocol, whatever it says, but the parser leaves the body unread."""
        self._parser = httptools.HttpRequestParser(self)
        framing = "".join(f"{n}: {v}\r\n" for n, v in incoming.headers.items() if n in _FRAMING)
        self._parser.feed_data(f"{incoming.method} / HTTP/1.1\r\n{framing}host:\r\n\r\n".encode("latin-1"))
        assert self._now is not None
        now = self._now
        now.url, now.headers, now.close, now.error = (
            incoming.url,
            incoming.headers,
            incoming.close,
            incoming.error,
        )
        self.data_received(rest)

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

    # httptools

    def on_message_begin(self) -> None:
        self._now = _Incoming()

    def on_url(self, url: bytes) -> None:
        now = self._now
        assert now is not None
        now.size += len(url)
        now.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        now = self._now
        assert now is not None
        key = _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1")
        now.size += len(name) + len(value)
        if now.size > HEADER_LIMIT and now.error is None:
            now.error = ApiError(431, "BadRequest", "the request's headers are too large")
        elif key in now.headers:
            now.headers[key] += ", " + text
        else:
            now.headers[key] = text

    def on_headers_complete(self) -> None:
        now = self._now
        assert now is not None
        now.method = self._method or self._parser.get_method().decode("ascii")
        now.close = not self._parser.should_keep_alive() or bool(self._method)
        now.size = 0
        version = self._parser.get_http_version()
        if version != "1.1":
            now.old = True
            now.close = version != "1.0" or now.close
            if version != "1.0":
                now.error = ApiError(505, "BadRequest", "unsupported protocol version")
        elif "host" not in now.headers and not self._method:
            now.error = now.error or ApiError(400, "BadRequest", "missing required Host header")
        if "transfer-encoding" in now.headers and now.headers["transfer-encoding"].lower() != "chunked":
            now.error = ApiError(501, "BadRequest", "unsupported transfer encoding")
        if "expect" in now.headers:
            self._expected(now)

    def _expected(self, now: _Incoming) -> None:
        if now.headers["expect"].lower() != "100-continue":
            now.error = now.error or ApiError(417, "BadRequest", "only 100-continue can be expected")
            self._end_early(now)
            return
        now.expects = True
        if not self._too_large(now, int(now.headers.get("content-length") or 0)) and self._task is None:
            self._transport.write(_CONTINUE)

    def on_body(self, data: bytes) -> None:
        now = self._now
        assert now is not None
        now.size += len(data)
        if self._too_large(now, now.size) or now.error is not None:
            return
        if self._listener.bodies > BODIES_LIMIT:
            now.error = too_many_requests("too many requests are being read, please try again later.", 1)
            self._end_early(now)
            return
        now.held += len(data)
        self._listener.bodies += len(data)
        now.body.append(data)

    def _too_large(self, now: _Incoming, size: int) -> bool:
        if size <= BODY_LIMIT:
            return False
        if now.error is None:
            text = f"Request entity too large: limit is {BODY_LIMIT}"
            now.error = ApiError(413, "RequestEntityTooLarge", text)
        if not self._ending:
            self._end_early(now)
        return True

    def _end_early(self, now: _Incoming) -> None:
        """A refusal that is sent before the rest has come."""
        self._listener.bodies -= now.held
        now.held = 0
        now.body.clear()
        self._waiting.append(now)
        self._ending = True

    def on_message_complete(self) -> None:
        now = self._now
        assert now is not None
        self._now = None
        self._head_bytes = 0
        if self._ending:
            self._listener.bodies -= now.held
            return
        self._waiting.append(now)
        if len(self._waiting) >= _PIPELINED:
            self.pause_reading()

    # Requests, one after another

    def _next(self) -> None:
        """Answer what waits, up to a request whose answer takes a task."""
        while self._waiting and not self.lost:
            incoming = self._waiting.popleft()
            request = self._request(incoming)
            if not self._answered_at_once(incoming, request):
                self._held = incoming.held
                self._task = self._listener.loop.create_task(self._run(incoming, request))
                return
        if self._listener.closing and not self.lost:
            self._transport.close()

    def _answered_at_once(self, incoming: _Incoming, request: Request) -> bool:
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

    async def _run(self, incoming: _Incoming, request: Request) -> None:
        try:
            if incoming.error is not None:
                self._ending = True
                await self._answer(incoming, refusal(incoming.error), close=True)
                return
            if "audit-id" not in incoming.headers:
                incoming.headers["audit-id"] = self._listener.audit_id()
            response = await self._listener.handle(request)
            if incoming.upgrade and response.upgrade is None:
                incoming.close = True  # an upgrade we do not do: answered as if it had not been asked for
            if response.upgrade is not None:
                await self._upgrade(incoming, response)
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
            self._listener.bodies -= self._held
            self._held = 0
            if self._raw is None:
                self.resume_reading()
                if self._waiting and not self.lost:
                    self._next()

    def _request(self, incoming: _Incoming) -> Request:
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

    def _head(self, incoming: _Incoming, response: Response) -> list[bytes]:
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

    async def _answer(self, incoming: _Incoming, response: Response, *, close: bool) -> None:
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

    async def _upgrade(self, incoming: _Incoming, response: Response) -> None:
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
            limit = _REQUEST_TIMEOUT if self._now is not None else _IDLE_TIMEOUT
            if quiet >= limit:
                self._abort()
                return
            wait = max(limit - quiet, 1.0)
            if self._now is None:
                wait = min(wait, _REQUEST_TIMEOUT)
        self._timer = self._clock.call_later(wait, self._check_silence)

    def _refuse(self, error: ApiError) -> None:
        """Answer what cannot be read, and end the connection."""
        self._ending = True
        broken = _Incoming()
        broken.error = error
        self._waiting.append(broken)
        if self._task is None:
            self._next()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what was written has gone out."""
        self._ending = True
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


def _has_body(incoming: _Incoming) -> bool:
    headers = incoming.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


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
        self.bodies = 0  # bytes of bodies that came and are not answered
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
        timer = self.clock.call_later(grace, lambda: done.done() or done.set_result(None))
        tasks = [c._task for c in self.connections if c._task is not None]
        if tasks:
            await asyncio.wait(
                [asyncio.gather(*tasks, return_exceptions=True), done], return_when="FIRST_COMPLETED"
            )
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
        more: dict[str, Any] = {"ssl_handshake_timeout": 10.0} if ssl_context is not None else {}
        server = await loop.create_server(
            lambda: _Connection(listener), sock=sock, ssl=ssl_context, backlog=1024, **more
        )
        listener.servers.append(server)
    return listener
