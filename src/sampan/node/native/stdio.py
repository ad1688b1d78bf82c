"""The shim's loop: copies a container's output to its log and to attached clients, their input to the container.

Attached clients speak packets (SOCK_SEQPACKET): one byte says what, the rest is data. From the client: 0 input, 1 end of
input, 2 terminal size ("columns rows"), 3 reopen the log, 4 send output from now on (the first one also
gets what there was before). To the client: 0 that it gets output now, 1 stdout, 2 stderr.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque

from sampan.node.native import terminal
from sampan.node.native.logs import LogWriter

INPUT, END_OF_INPUT, RESIZE, REOPEN, FOLLOW = 0, 1, 2, 3, 4
FOLLOWS, STDOUT, STDERR = 0, 1, 2
_CHUNK = 65536
_BACKLOG = 1 << 20  # bytes kept for a slow client before it is let go
_MISSED = 1 << 16  # bytes kept for the first client of a container that waits for input: its prompt, say

_NAMES = {STDOUT: b"stdout", STDERR: b"stderr"}


class Streams:
    """Runs until the container's output has ended and the container itself has (its pidfd is readable)."""

    def __init__(
        self,
        log: LogWriter,
        outputs: dict[int, int],
        stdin: int,
        master: int,
        listener: socket.socket,
        once: bool,
    ) -> None:
        """`outputs`: descriptor -> STDOUT or STDERR; `stdin`: our end of the input, -1 for none; `master`: terminal or -1."""
        self._log = log
        self._outputs = dict(outputs)
        self._stdin = stdin
        self._master = master
        self._listener = listener
        self._once = once
        self._clients: dict[int, socket.socket] = {}
        self._queues: dict[int, list[bytes]] = {}
        self._missed: deque[bytes] | None = deque() if stdin >= 0 else None
        self._input = b""
        self._ending = False
        self._poll = select.poll()

    def run(self, pidfd: int) -> None:
        """Serve until everything of the container ended. A grandchild that keeps the pipe open does not hold us."""
        for fd in self._outputs:
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
        if self._stdin >= 0:
            os.set_blocking(self._stdin, False)
        self._listener.setblocking(False)
        self._poll.register(self._listener.fileno(), select.POLLIN)
        self._poll.register(pidfd, select.POLLIN)
        alive = True
        while alive:
            for fd, event in self._poll.poll():
                if fd == self._stdin and event & ~select.POLLIN:
                    self._feed()
                if fd == pidfd:
                    alive = False
                elif fd in self._outputs and event & ~select.POLLOUT:
                    self._output(fd)
                elif fd == self._listener.fileno():
                    self._accept()
                elif fd in self._clients:
                    self._client(fd, event)
        for fd in list(self._outputs):  # what it wrote before it died
            while fd in self._outputs and self._output(fd):
                pass
            if fd in self._outputs:
                self._ended(fd)
        for fd in list(self._clients):
            if fd in self._queues:
                self._clients[fd].setblocking(True)
                self._flush(fd)
            self._drop(fd)

    def _output(self, fd: int) -> bool:
        """Move one chunk; False when there is no more for now."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # a terminal whose last user left
            data = b""
        if not data:
            self._ended(fd)
            return False
        stream = self._outputs[fd]
        self._log.write(_NAMES[stream], data)
        packets = [bytes((stream,)) + data[at : at + 32768] for at in range(0, len(data), 32768)]
        for client in list(self._queues):
            self._queues[client] += packets
            self._flush(client)
        if self._missed is not None:
            self._missed += packets
            while sum(map(len, self._missed)) > _MISSED:
                self._missed.popleft()
        return True

    def _ended(self, fd: int) -> None:
        self._log.finish(_NAMES[self._outputs.pop(fd)])
        try:
            self._poll.unregister(fd)
        except KeyError:
            pass
        if fd != self._master:
            os.close(fd)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._poll.register(client.fileno(), select.POLLIN)

    def _client(self, fd: int, event: int) -> None:
        if event & select.POLLOUT:
            self._flush(fd)
        if fd not in self._clients or not event & ~select.POLLOUT:
            return
        try:
            packet = self._clients[fd].recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._drop(fd)
            return
        kind, data = packet[0], packet[1:]
        if kind == INPUT:
            self._input += data
            self._feed()
        elif kind == END_OF_INPUT and self._once:
            self._ending = True
            self._feed()
        elif kind == RESIZE and self._master >= 0:
            columns, rows = data.split()
            terminal.resize(self._master, int(columns), int(rows))
        elif kind == REOPEN:
            self._log.reopen()
        elif kind == FOLLOW:
            self._queues[fd] = [bytes((FOLLOWS,)), *(self._missed or ())]
            self._missed = None
            self._flush(fd)

    def _feed(self) -> None:
        """Give the container its input; what does not fit waits and input of all clients with it."""
        if self._stdin < 0:
            self._input = b""
            return
        try:
            while self._input:
                self._input = self._input[os.write(self._stdin, self._input[:_CHUNK]) :]
        except BlockingIOError:
            self._poll.register(
                self._stdin, select.POLLOUT if self._stdin != self._master else select.POLLIN | select.POLLOUT
            )
            self._listen_to_clients(False)
            return
        except OSError:
            self._input = b""
        if self._stdin == self._master:
            if self._master in self._outputs:
                self._poll.register(self._master, select.POLLIN)
        else:
            try:
                self._poll.unregister(self._stdin)
            except KeyError:
                pass
        self._listen_to_clients(True)
        if self._ending and self._stdin != self._master:
            os.close(self._stdin)
            self._stdin = -1

    def _listen_to_clients(self, wanted: bool) -> None:
        for fd in self._clients:
            events = (select.POLLIN if wanted else 0) | (select.POLLOUT if self._queues.get(fd) else 0)
            self._poll.register(fd, events)

    def _flush(self, fd: int) -> None:
        queue = self._queues[fd]
        try:
            while queue:
                self._clients[fd].send(queue[0])
                queue.pop(0)
        except BlockingIOError:
            if sum(map(len, queue)) > _BACKLOG:
                self._drop(fd)
                return
        except OSError:
            self._drop(fd)
            return
        self._poll.register(fd, select.POLLIN | (select.POLLOUT if queue else 0))

    def _drop(self, fd: int) -> None:
        client = self._clients.pop(fd, None)
        self._queues.pop(fd, None)
        if client is None:
            return
        try:
            self._poll.unregister(fd)
        except KeyError:
            pass
        client.close()
        if self._once and self._stdin >= 0 and self._stdin != self._master and not self._clients:
            self._ending = True
            self._feed()
