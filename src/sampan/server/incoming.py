"""Requests as they are being read, and the limits of what may be sent before anybody knows from whom.

Source: RFC 9112. What is not HTTP, too large or beyond us becomes a request with an `error`, which is its answer.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from sampan.api.status import ApiError, too_many_requests

HEADER_LIMIT = 64 * 1024  # bytes of request line and headers
BODY_LIMIT = 3 * 1024 * 1024  # bytes of a request's body, as kube-apiserver has it
BODIES_LIMIT = 128 * 1024 * 1024  # bytes of all bodies that are not answered yet

_FRAMING = ("content-length", "transfer-encoding")
_METHOD = re.compile(rb"([A-Z]{3,20}) [^ ]+ HTTP/1\.[01]\r\n")
_VERSION = b" HTTP/1.1\r\n"
_END = b"\r\n\r\n"  # of the headers
_USUAL_PATH = 1024  # bytes
_USUAL_HEAD = 4096
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~:"  # of a path without a query
# The usual header names, made once.
_NAMES = {
    spelling: name.lower()
    for name in (
        *("Host", "User-Agent", "Accept", "Accept-Encoding", "Authorization", "Connection"),
        *("Content-Type", "Content-Length", "Kubectl-Command", "Kubectl-Session"),
    )
    for spelling in (name.encode(), name.lower().encode())
}


class Bodies:
    """How much of bodies is `held`, in bytes, by all connections of a listener."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Incoming:
    """A request as it is being read."""

    __slots__ = (
        "body",
        "close",
        "error",
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
        self.upgrade = False
        self.error: ApiError | None = None


class RequestReader:
    """What a connection has received, as requests in `waiting`. The callbacks are httptools'.

    `ending`: a refusal waits, or the connection is closed; whatever else comes is thrown away.
    """

    def __init__(self, bodies: Bodies, go_on: Callable[[], None]) -> None:
        self.waiting: deque[Incoming] = deque()
        self.now: Incoming | None = None
        self.ending = False
        self._bodies = bodies
        self._go_on: Callable[[], None] | None = go_on  # told when a client waits for a 100
        self._parser: Any = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._tail = b""  # of the last GET: what followed its path
        self._tail_headers: dict[str, str] = {}  # what that said; shared, not to be changed
        self._head = b""  # of the last request with a body, all that came before that
        self._last = Incoming()  # what that said
        self._method = ""  # the one odd method of this connection, which ends after it

    def feed(self, data: bytes) -> bytes | None:
        """More bytes. What follows a request that asks for another protocol is returned; None as long as it is HTTP."""
        alone = self.now is None
        if alone and self._repeated(data):
            return None
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if not _has_body(self.waiting[-1]):
                self.waiting[-1].upgrade = True
                return rest
            return self._read_on(self.waiting.pop(), rest)
        except httptools.HttpParserError:
            found = self._odd_method(data)
            if found:
                return self.feed(found)
            self._refuse(ApiError(400, "BadRequest", "the request is no HTTP"))
        else:
            if self.now is not None and not self.now.method and self._head_bytes > 2 * HEADER_LIMIT:
                self._refuse(ApiError(431, "BadRequest", "the request's headers are too large"))
            elif alone and self.now is None and len(self.waiting) == 1:
                self._remember(data, self.waiting[0])
        return None

    def _repeated(self, data: bytes) -> bool:
        """Clients send the same headers with each request of a connection: a GET that differs from the one before in its
        path only, and any request that differs in its body only, have been parsed already. Whether this is one; then it
        waits."""
        if self._head and data.startswith(self._head):
            return self._same_head(data)
        if not self._tail or not data.endswith(self._tail) or data[:5] != b"GET /":
            return False
        path = data[4 : -len(self._tail)]
        if len(path) > _USUAL_PATH or path.translate(None, _PLAIN):
            return False
        incoming = Incoming()
        incoming.method, incoming.url, incoming.headers = "GET", path, self._tail_headers
        self.waiting.append(incoming)
        return True

    def _same_head(self, data: bytes) -> bool:
        """The same for a request with a body, if that is whole."""
        last, body = self._last, data[len(self._head) :]
        if len(body) != last.size or self._bodies.held > BODIES_LIMIT:
            return False
        incoming = Incoming()
        incoming.method, incoming.url, incoming.headers = last.method, last.url, last.headers
        incoming.size = incoming.held = len(body)
        incoming.body.append(body)
        self._bodies.held += len(body)
        self.waiting.append(incoming)
        return True

    def _remember(self, data: bytes, incoming: Incoming) -> None:
        """For `_repeated`: `data` was one request and nothing else, if there is nothing odd about it."""
        headers = incoming.headers
        odd = incoming.old or incoming.close or incoming.upgrade or incoming.error is not None
        if odd or "expect" in headers or "transfer-encoding" in headers:
            return
        if incoming.body:
            length = len(data) - incoming.size
            if length == data.index(_END) + len(_END) and length <= _USUAL_HEAD:
                last = self._last
                last.method, last.url, last.headers = incoming.method, incoming.url, headers
                self._head, last.size = data[:length], incoming.size
        elif incoming.method == "GET" and not incoming.body and "content-length" not in headers:
            self._tail = data[data.index(_VERSION) :]
            self._tail_headers = headers

    def forget(self) -> None:
        """What was read and will not be answered. Parser and reader know each other: none waits for the collector."""
        unread = 0 if self.now is None else self.now.held
        self._bodies.held -= unread + sum(incoming.held for incoming in self.waiting)
        self.waiting.clear()
        self.now = self._parser = self._go_on = None

    def _refuse(self, error: ApiError) -> None:
        """What cannot be read is answered, too."""
        self.ending = True
        broken = Incoming()
        broken.error = error
        self.waiting.append(broken)

    def _odd_method(self, data: bytes) -> bytes:
        """A method that HTTP's parser does not know gets its answer (405) from the API, like any other."""
        found = _METHOD.match(data)
        if found is None or self._method or (self.now is not None and self.now.url):
            return b""
        self._method = found[1].decode("ascii")
        self._parser = httptools.HttpRequestParser(self)
        return b"GET" + data[found.end(1) :]

    def _read_on(self, incoming: Incoming, rest: bytes) -> bytes | None:
        """A request with a body asks for no other protocol, whatever it says, but the parser leaves the body unread."""
        self._parser = httptools.HttpRequestParser(self)
        framing = "".join(f"{n}: {v}\r\n" for n, v in incoming.headers.items() if n in _FRAMING)
        method = "GET" if self._method else incoming.method  # see `_odd_method`
        self._parser.feed_data(f"{method} / HTTP/1.1\r\n{framing}host:\r\n\r\n".encode("latin-1"))
        now = self.now
        assert now is not None
        now.url, now.headers = incoming.url, incoming.headers
        now.close, now.error = incoming.close, incoming.error
        return self.feed(rest)

    # httptools

    def on_message_begin(self) -> None:
        self.now = Incoming()

    def on_url(self, url: bytes) -> None:
        now = self.now
        assert now is not None
        now.size += len(url)
        now.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        now = self.now
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
        now = self.now
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

    def _expected(self, now: Incoming) -> None:
        if now.headers["expect"].lower() != "100-continue":
            now.error = now.error or ApiError(417, "BadRequest", "only 100-continue can be expected")
            self._end_early(now)
            return
        if not self._too_large(now, int(now.headers.get("content-length") or 0)) and self._go_on is not None:
            self._go_on()

    def on_body(self, data: bytes) -> None:
        now = self.now
        assert now is not None
        now.size += len(data)
        if self._too_large(now, now.size) or now.error is not None:
            return
        if self._bodies.held > BODIES_LIMIT:
            now.error = too_many_requests("too many requests are being read, please try again later.", 1)
            self._end_early(now)
            return
        now.held += len(data)
        self._bodies.held += len(data)
        now.body.append(data)

    def _too_large(self, now: Incoming, size: int) -> bool:
        if size <= BODY_LIMIT:
            return False
        if now.error is None:
            text = f"Request entity too large: limit is {BODY_LIMIT}"
            now.error = ApiError(413, "RequestEntityTooLarge", text)
        if not self.ending:
            self._end_early(now)
        return True

    def _end_early(self, now: Incoming) -> None:
        """A refusal that is sent before the rest has come."""
        self._bodies.held -= now.held
        now.held = 0
        now.body.clear()
        self.waiting.append(now)
        self.ending = True

    def on_message_complete(self) -> None:
        now = self.now
        assert now is not None
        self.now = None
        self._head_bytes = 0
        if self.ending:
            self._bodies.held -= now.held
            return
        self.waiting.append(now)


def _has_body(incoming: Incoming) -> bool:
    headers = incoming.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""
