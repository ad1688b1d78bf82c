"""The agent's ends of a running process: exec (descriptors of its pipes or terminal) and attach (the shim's packets)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from sampan.node.descriptors import when
from sampan.node.native import stdio, terminal
from sampan.node.native.channel import Connection, ZygoteError, connect_unix

_CHUNK = 65536


class _Descriptor:
    """A pipe or terminal of ours, non-blocking, closed once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)

    async def read(self) -> bytes:
        while self.fd >= 0:
            try:
                return os.read(self.fd, _CHUNK)
            except BlockingIOError:
                await when(self.fd)
            except OSError:  # EIO: the terminal's other side closed
                return b""
        return b""

    async def write(self, data: bytes) -> None:
        """Raises BrokenPipeError when the reader left."""
        while data:
            if self.fd < 0:
                raise BrokenPipeError("input is closed")
            try:
                data = data[os.write(self.fd, data) :]
            except BlockingIOError:
                await when(self.fd, writable=True)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Execution:
    """A process started by `Runtime.exec`; implements runtime.Exec. `close()` lets go of it without killing it."""

    def __init__(self, connection: Connection, fds: list[int], tty: bool) -> None:
        self._connection = connection
        self._tty = tty
        ends = [_Descriptor(fd) for fd in fds]
        self._stdout = ends[0]
        self._stderr = None if tty else ends[1]
        self._stdin = ends[0] if tty else ends[2] if len(ends) > 2 else None
        self._code: asyncio.Task[int] = asyncio.get_running_loop().create_task(self._result())

    async def _result(self) -> int:
        try:
            reply, _ = await self._connection.recv()
            return int(reply["code"])
        except (ZygoteError, KeyError):
            return 137
        finally:
            self._connection.close()

    async def read_stdout(self) -> bytes:
        return await self._stdout.read()

    async def read_stderr(self) -> bytes:
        return await self._stderr.read() if self._stderr else b""

    async def write(self, data: bytes) -> None:
        if self._stdin:
            with contextlib.suppress(OSError):
                await self._stdin.write(data)

    async def close_stdin(self) -> None:
        if self._tty:
            await self.write(b"\x04")
        elif self._stdin:
            self._stdin.close()

    def resize(self, columns: int, rows: int) -> None:
        if self._tty and self._stdout.fd >= 0:
            terminal.resize(self._stdout.fd, columns, rows)

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def kill(self) -> None:
        self._connection.send(b"kill")

    def close(self) -> None:
        """Close our ends; the process sees its input end and its output break."""
        for end in (self._stdout, self._stderr, self._stdin):
            if end is not None:
                end.close()


class Attachment:
    """A connection to a container's shim; implements runtime.Exec."""

    def __init__(self, sock: socket.socket, tty: bool, exit_code: Callable[[], Any]) -> None:
        self._sock = sock
        self._tty = tty
        self._exit_code = exit_code
        self._out: asyncio.Queue[bytes] = asyncio.Queue(16)
        self._error: asyncio.Queue[bytes] = asyncio.Queue(16)
        self._follows: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pump = asyncio.get_running_loop().create_task(self._receive())

    @classmethod
    async def connect(cls, directory: str, tty: bool, exit_code: Callable[[], Any]) -> Attachment:
        """Raises OSError when the shim is gone or about to go: the caller may read the log instead."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            connect_unix(sock, f"{directory}/attach.sock")
            sock.send(bytes((stdio.FOLLOW,)))
        except OSError:
            sock.close()
            raise
        attached = cls(sock, tty, exit_code)
        if not await attached._follows:
            attached.close()
            raise ConnectionResetError("the container has ended")
        return attached

    async def _receive(self) -> None:
        while True:
            try:
                packet = self._sock.recv(_CHUNK)
            except BlockingIOError:
                await when(self._sock.fileno())
                continue
            except OSError:
                packet = b""
            if not packet:
                break
            if packet[0] == stdio.FOLLOWS:
                self._follows.set_result(True)
                continue
            await (self._out if packet[0] == stdio.STDOUT else self._error).put(packet[1:])
        if not self._follows.done():
            self._follows.set_result(False)
        await self._out.put(b"")
        await self._error.put(b"")

    async def read_stdout(self) -> bytes:
        return await self._out.get()

    async def read_stderr(self) -> bytes:
        return await self._error.get()

    async def _send(self, kind: int, data: bytes = b"") -> None:
        packet = bytes((kind,)) + data
        while True:
            try:
                self._sock.send(packet)
                return
            except BlockingIOError:
                await when(self._sock.fileno(), writable=True)
            except OSError:
                return

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), 32768):
            await self._send(stdio.INPUT, data[at : at + 32768])

    async def close_stdin(self) -> None:
        await self._send(stdio.END_OF_INPUT)

    def resize(self, columns: int, rows: int) -> None:
        try:
            self._sock.send(bytes((stdio.RESIZE,)) + f"{columns} {rows}".encode())
        except OSError:
            pass

    async def wait(self) -> int:
        return await self._exit_code()

    def kill(self) -> None:
        """Detach: an attached client that leaves does not end the container."""
        self.close()

    def close(self) -> None:
        self._pump.cancel()
        self._sock.close()


async def follow(path: str) -> AsyncIterator[bytes]:
    """The log file's bytes, then what is appended, as inotify tells; goes on with a new file after a rotation."""
    watch = _Inotify(os.path.dirname(path))
    file = None
    try:
        while True:
            if file is None:
                with contextlib.suppress(FileNotFoundError):
                    file = open(path, "rb")  # noqa: SIM115
            while file is not None and (data := file.read(_CHUNK)):
                yield data
            if file is not None and _replaced(file, path):
                file.close()
                file = None
                if os.path.exists(path):
                    continue
            await watch.changed()
    finally:
        if file is not None:
            file.close()
        watch.close()


def _replaced(file: Any, path: str) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return True


class _Inotify:
    """Something in a directory was written, made or renamed. inotify(7)."""

    _EVENTS = 0x2 | 0x100 | 0x80  # IN_MODIFY | IN_CREATE | IN_MOVED_TO

    def __init__(self, directory: str) -> None:
        from ctypes import CDLL

        libc = CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        libc.inotify_add_watch(self._fd, os.fsencode(directory), self._EVENTS)

    async def changed(self) -> None:
        await when(self._fd)
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _CHUNK)

    def close(self) -> None:
        os.close(self._fd)
