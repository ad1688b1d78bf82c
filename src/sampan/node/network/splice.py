"""Moves bytes between pairs of sockets inside the kernel, in one thread for all pairs, off the event loop."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections import deque

_CHUNK = 1 << 18


class _Way:
    """One direction of a pair: from a socket through a pipe to the other."""

    __slots__ = ("ended", "pending", "reader", "sink", "source", "writer")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.pending = 0
        self.ended = False

    def move(self) -> None:
        """As much as goes without waiting. Raises OSError when either side is broken."""
        while True:
            if not self.pending and not self.ended:
                try:
                    self.pending = os.splice(
                        self.source.fileno(),
                        self.writer,
                        _CHUNK,
                        flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE,
                    )
                except BlockingIOError:
                    return
                if not self.pending:
                    self.ended = True
                    with contextlib.suppress(OSError):
                        self.sink.shutdown(socket.SHUT_WR)
            if not self.pending:
                return
            try:
                self.pending -= os.splice(
                    self.reader,
                    self.sink.fileno(),
                    self.pending,
                    flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE,
                )
            except BlockingIOError:
                return

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class Splicer:
    """`join(a, b)` takes both sockets over and closes them when both directions have ended."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._new: deque[tuple[socket.socket, socket.socket]] = deque()
        self._pairs: dict[int, tuple[_Way, _Way]] = {}  # by descriptor: (from it, to it)
        self._stopping = False
        self._thread: threading.Thread | None = None

    def join(self, a: socket.socket, b: socket.socket) -> None:
        """Bytes from one to the other, both ways, until both have ended; both are closed then. Does not block."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="splicer", daemon=True)
            self._thread.start()
        self._new.append((a, b))
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b"x")

    def close(self) -> None:
        """Ends all connections."""
        self._stopping = True
        if self._thread:
            os.write(self._waker, b"x")
            self._thread.join()
        self._epoll.close()
        os.close(self._wake)
        os.close(self._waker)

    def _run(self) -> None:
        while not self._stopping:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                    self._take_new()
                elif descriptor in self._pairs:
                    self._serve(*self._pairs[descriptor])
        for out, back in list(self._pairs.values()):
            self._end(out, back)

    def _take_new(self) -> None:
        while self._new:
            a, b = self._new.popleft()
            try:
                for sock in (a, b):
                    sock.setblocking(False)
                out, back = _Way(a, b), _Way(b, a)
            except OSError:
                a.close()
                b.close()
                continue
            self._pairs[a.fileno()] = (out, back)
            self._pairs[b.fileno()] = (back, out)
            for sock in (a, b):
                self._epoll.register(sock.fileno(), 0)
            self._serve(out, back)

    def _serve(self, out: _Way, back: _Way) -> None:
        try:
            out.move()
            back.move()
        except OSError:
            self._end(out, back)
            return
        if out.ended and back.ended and not out.pending and not back.pending:
            self._end(out, back)
            return
        for way, other in ((out, back), (back, out)):
            wanted = (select.EPOLLIN if not way.ended and not way.pending else 0) | (
                select.EPOLLOUT if other.pending else 0
            )
            self._epoll.modify(way.source.fileno(), wanted)

    def _end(self, out: _Way, back: _Way) -> None:
        for way in (out, back):
            descriptor = way.source.fileno()
            if self._pairs.pop(descriptor, None):
                with contextlib.suppress(OSError):
                    self._epoll.unregister(descriptor)
                way.close()
        out.source.close()
        back.source.close()
