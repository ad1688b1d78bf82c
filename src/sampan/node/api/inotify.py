"""Waiting for a file to grow without looking again and again (inotify(7))."""

from __future__ import annotations

import asyncio
import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_MODIFY, _MOVE_SELF, _DELETE_SELF = 0x2, 0x800, 0x400
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _DELETE = 0x8, 0x40, 0x80, 0x200


class Watch:
    """`await changed()` returns after the file was written, left by a writer, moved or removed since the last call."""

    mask = _MODIFY | _CLOSE_WRITE | _MOVE_SELF | _DELETE_SELF

    def __init__(self, path: str) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if _libc.inotify_add_watch(self._fd, path.encode(), self.mask) < 0:
            code = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(code, os.strerror(code), path)
        self._event = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            os.read(self._fd, 4096)
        except BlockingIOError:
            return
        self._event.set()

    def wake(self) -> None:
        """Let `changed` return although nothing was written."""
        self._event.set()

    async def changed(self) -> None:
        await self._event.wait()
        self._event.clear()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class DirectoryWatch(Watch):
    """`await changed()` returns after a file of the directory was written, moved or removed."""

    mask = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _DELETE
