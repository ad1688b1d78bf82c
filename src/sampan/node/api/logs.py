"""A container's log as `kubectl logs` wants it: from a CRI-format file, from some point, to some limit, and onwards.

Line format: `TIME STREAM TAG text`; a line with tag P has no end of its own (KEP "kubelet-cri-logging").
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from glob import escape, glob
from typing import Any, BinaryIO

from sampan.base.clock import rfc3339_parse
from sampan.node.api.inotify import Watch
from sampan.node.api.query import Query

_CHUNK = 64 * 1024


@dataclass(slots=True)
class LogOptions:
    """PodLogOptions. `since`: seconds since the epoch; `stream`: "" for both, else stdout or stderr."""

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    limit: int | None = None
    timestamps: bool = False
    previous: bool = False
    stream: bytes = b""


def parse(request: Query, now: float) -> LogOptions:
    """Raises ValueError with what is wrong."""
    options = LogOptions(
        follow=request.flag("follow"),
        timestamps=request.flag("timestamps"),
        previous=request.flag("previous"),
    )
    if request.first("tailLines"):
        options.tail = int(request.first("tailLines"))
        if options.tail < 0:
            raise ValueError("tailLines: must be greater than or equal to 0")
    if request.first("limitBytes"):
        options.limit = int(request.first("limitBytes"))
    if request.first("sinceSeconds"):
        options.since = now - int(request.first("sinceSeconds"))
    elif request.first("sinceTime"):
        options.since = rfc3339_parse(request.first("sinceTime"))
    stream = request.first("stream", "All").lower()
    if stream in ("stdout", "stderr"):
        options.stream = stream.encode()
    return options


class Formatter:
    """CRI lines in, what a user reads out. Keeps state: a partial line continues, the limit counts."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit
        self._inside = False  # the last line was partial
        self.full = False  # the limit is reached

    def feed(self, lines: list[bytes]) -> bytes:
        """The bytes to send for these lines, which may be none. Lines that are not of the format are passed over."""
        out = []
        for line in lines:
            words = line.split(b" ", 3)
            if len(words) < 3:
                continue
            time, stream, tag = words[:3]
            text = words[3] if len(words) == 4 else b""
            if self._options.stream and stream != self._options.stream:
                continue
            if self._options.since is not None and _seconds(time) < self._options.since:
                continue
            if self._options.timestamps and not self._inside:
                text = time + b" " + text
            self._inside = tag.startswith(b"P")
            out.append(text if self._inside else text + b"\n")
        data = b"".join(out)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.full = self._left <= 0
        return data


def _seconds(time: bytes) -> float:
    """Nine digits of a second are more than Python parses: six are kept."""
    text = time.decode("ascii", "replace")
    try:
        head, dot, rest = text.partition(".")
        if dot:
            digits = rest.rstrip("Z")
            return rfc3339_parse(f"{head}.{digits[:6]}Z" if rest.endswith("Z") else text)
        return rfc3339_parse(text)
    except ValueError:
        return 0.0


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines of a file begin. Blocking."""
    end = file.seek(0, os.SEEK_END)
    if lines == 0:
        return end
    position, found = end, 0
    while position > 0:
        start = max(position - _CHUNK, 0)
        file.seek(start)
        block = file.read(position - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if start + at + 1 < end:
                found += 1
                if found == lines:
                    return start + at + 1
        position = start
    return 0


async def read(
    path: str, options: LogOptions, ended: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncIterator[bytes]:
    """The log from a file. With `follow` it goes on until `ended()` returns (the container is dead) and all is read.

    Raises FileNotFoundError.
    """
    formatter, file = Formatter(options), _LogFile(path)
    over: asyncio.Task[None] | None = None
    try:
        if options.tail is not None:
            await asyncio.to_thread(file.skip_to_last, options.tail)
        if options.follow:
            file.follow()
            over = asyncio.get_running_loop().create_task(ended())
            over.add_done_callback(file.wake)
        while not formatter.full:
            dead = over is None or over.done()
            lines = file.lines()
            if lines is not None:
                if data := formatter.feed(lines):
                    yield data
            elif dead:
                return
            else:
                await file.changed()
    finally:
        if over:
            over.cancel()
        file.close()


class _LogFile:
    """A log and, where it is rotated meanwhile, the file that takes its place."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = _open(path)
        self._fresh: BinaryIO | None = None  # the one in its place, to be read when this one is
        self._rest = b""  # a line whose end is not written yet
        self._watch: Watch | None = None

    def skip_to_last(self, lines: int) -> None:
        """Begin with the last `lines` lines. Blocking."""
        self._file.seek(tail_offset(self._file, lines))

    def lines(self) -> list[bytes] | None:
        """The next whole lines; None when all is read that is there by now."""
        while not (block := self._file.read(_CHUNK)):
            if not self._rotated():
                return None
        *lines, self._rest = (self._rest + block).split(b"\n")
        return lines

    def _rotated(self) -> bool:
        """At the end of the file, whether there is more: what it got while it was rotated, then what is in its place."""
        if self._fresh is None:
            self._fresh = _reopened(self._path, self._file)
            return self._fresh is not None
        self._file.close()
        self._file, self._rest, self._fresh = self._fresh, b"", None
        if self._watch:
            self.follow()
        return True

    def follow(self) -> None:
        """Watch the file for what is written to it."""
        if self._watch:
            self._watch.close()
        self._watch = Watch(f"/proc/self/fd/{self._file.fileno()}")  # itself, whatever its name is by now

    async def changed(self) -> None:
        """Returns when something is written to the file that `follow` watches, or after `wake`."""
        assert self._watch is not None
        await self._watch.changed()

    def wake(self, _: object = None) -> None:
        if self._watch:
            self._watch.wake()

    def close(self) -> None:
        self._file.close()
        if self._fresh:
            self._fresh.close()
        if self._watch:
            self._watch.close()


def _open(path: str) -> BinaryIO:
    """The log; while it is rotated there is no file of that name for a moment, but the one that was just renamed."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        rotated = max(glob(f"{escape(path)}.*"), default=path)
        return open(path if rotated.endswith(".gz") else rotated, "rb")


def _reopened(path: str, file: BinaryIO) -> BinaryIO | None:
    """The file now at `path`, if it is another one."""
    try:
        if os.stat(path).st_ino != os.fstat(file.fileno()).st_ino:
            return open(path, "rb")
    except FileNotFoundError:
        pass
    return None
