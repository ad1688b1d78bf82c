"""The files of the log: numbered segments, filled with zeros ahead of time so that a sync need not grow the file.

Used by the log's own thread; `drop` also by the one that writes snapshots.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import NamedTuple

SIZE = 16 << 20  # bytes of a segment
SPARE = "spare.tmp"  # the next segment, ready to be used
_ZEROS = bytes(1 << 20)
# A write returns when it is on disk: one call, so that the thread gives up and regains the interpreter only once.
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_DSYNC

log = logging.getLogger(__name__)


class Segment(NamedTuple):
    """A file of the log that is full."""

    path: Path
    last: int  # sequence of its last frame


def number_of(path: Path) -> int:
    return int(path.stem, 16)


def sync_directory(path: Path) -> None:
    """A new or renamed file is there after a crash only when its directory is synced, too. Blocking."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Segments:
    """Appends to the newest segment of `directory`. `full` are the older ones, oldest first."""

    def __init__(self, directory: Path, size: int = SIZE) -> None:
        self.full: list[Segment] = []
        self._directory = directory
        self._size = size
        self._fd = -1
        self._path = directory
        self._offset = 0
        self._number = 0
        self._last = 0  # sequence of the last frame written
        self._lock = threading.Lock()
        self._filler: threading.Thread | None = None

    def resume(self, path: Path | None, offset: int, last: int) -> None:
        """Continue in `path` at `offset`, cutting off what follows; None begins the first segment."""
        self._last = last
        if path is None:
            self._open_next()
            return
        self._number = number_of(path)
        self._path, self._offset = path, offset
        self._fd = os.open(path, _FLAGS)
        os.ftruncate(self._fd, offset)
        if offset < self._size:
            os.posix_fallocate(self._fd, offset, self._size - offset)
        os.fsync(self._fd)
        self._fill_next()

    def append(self, data: bytes, sequence: int) -> None:
        """Write a frame and wait until it is on disk. Any OSError means that it may not be."""
        if self._offset and self._offset + len(data) > self._size:
            self._close_current()
            self._open_next()
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self._offset)
            self._offset += written
            view = view[written:]
        self._last = sequence

    def drop(self, last: int) -> None:
        """Remove full segments with nothing after the frame `last`."""
        with self._lock:
            old = [segment for segment in self.full if segment.last <= last]
            self.full = [segment for segment in self.full if segment.last > last]
        for segment in old:
            segment.path.unlink(missing_ok=True)
        if old:
            sync_directory(self._directory)

    def close(self) -> None:
        if self._filler is not None:
            self._filler.join()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _close_current(self) -> None:
        os.close(self._fd)
        self._fd = -1
        with self._lock:
            self.full.append(Segment(self._path, self._last))

    def _open_next(self) -> None:
        self._number += 1
        self._path = self._directory / f"{self._number:016x}.log"
        if self._filler is not None:
            self._filler.join()
        spare = self._directory / SPARE
        if spare.exists():
            spare.rename(self._path)
            self._fd = os.open(self._path, _FLAGS)
        else:
            self._fd = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            os.posix_fallocate(self._fd, 0, self._size)
        sync_directory(self._directory)
        self._offset = 0
        self._fill_next()

    def _fill_next(self) -> None:
        self._filler = threading.Thread(target=self._fill, name="store-spare", daemon=True)
        self._filler.start()

    def _fill(self) -> None:
        """Real zeros rather than a mere allocation: a sync then has no metadata to write."""
        making = self._directory / "making.tmp"
        try:
            with open(making, "wb", buffering=0) as file:
                os.chmod(making, 0o600)
                left = self._size
                while left:
                    left -= file.write(_ZEROS[: min(left, len(_ZEROS))])
                os.fsync(file.fileno())
            making.rename(self._directory / SPARE)
        except OSError as error:  # the writer will do without, or meet the error itself
            making.unlink(missing_ok=True)
            log.warning(
                "%s: no next segment (%s); the store stops when this one is full", making, error.strerror
            )
