"""A container's output: lines in the CRI log format, and copies to whoever is attached.

Format, one line: "2024-01-02T03:04:05.123456789Z stdout F text"; a line longer than 16 KiB is cut into parts tagged P.
kubernetes/design-proposals "kubelet-cri-logging".
"""

from __future__ import annotations

import os
import time

_PART = 16384


def timestamp(nanoseconds: int) -> bytes:
    """RFC 3339 with nine digits, UTC."""
    whole, fraction = divmod(nanoseconds, 1_000_000_000)
    t = time.gmtime(whole)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (*t[:6], fraction)


def open_log(path: str) -> int:
    """A descriptor to append to the log at `path`, which is made where it is missing; -1 when it cannot be had."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError:
        return -1


class LogWriter:
    """Appends to one log file; a full disk loses lines, never the container."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._pending: dict[bytes, bytes] = {}
        self.reopen()

    def reopen(self) -> None:
        """Open the path anew: the old file was rotated away. Who follows that one looks for the next when it is closed."""
        old, self._fd = self._fd, open_log(self._path) if self._path else -1
        if old >= 0:
            os.close(old)

    def write(self, stream: bytes, data: bytes) -> None:
        """Take what was read from `stream` (b"stdout" or b"stderr"); whole lines are written at once."""
        lines = (self._pending.get(stream, b"") + data).split(b"\n")
        rest = lines.pop()
        head = timestamp(time.time_ns()) + b" " + stream
        out: list[bytes] = []
        for line in lines:
            while len(line) > _PART:
                out.append(head + b" P " + line[:_PART] + b"\n")
                line = line[_PART:]
            out.append(head + b" F " + line + b"\n")
        while len(rest) >= _PART:
            out.append(head + b" P " + rest[:_PART] + b"\n")
            rest = rest[_PART:]
        self._pending[stream] = rest
        if out:
            self._append(b"".join(out))

    def finish(self, stream: bytes) -> None:
        """The stream ended; what came without a line end is a part."""
        rest = self._pending.pop(stream, b"")
        if rest:
            self._append(timestamp(time.time_ns()) + b" " + stream + b" P " + rest + b"\n")

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, data)
        except OSError:
            pass
