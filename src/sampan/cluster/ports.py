"""Ports of this machine: is one free, and if not, who has it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sampan.base.errors import SampanError

_LISTENING = "0A"


def free(port: int, host: str = "127.0.0.1") -> int:
    """`port` itself if it can be listened on (0 finds one), else 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return 0
        return probe.getsockname()[1]


def taken(port: int, host: str = "127.0.0.1") -> SampanError:
    """What a person is told of a port in use."""
    by = holder(port)
    return SampanError(
        f"port {port} of {host} is taken" + (f" by {by}" if by else ""), "Choose another: --port N"
    )


def holder(port: int) -> str:
    """`NAME (pid N)` of the process that listens on a TCP port, "" when it cannot be told."""
    sockets = _sockets(port)
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in sockets for fd in (path / "fd").iterdir()):
                return f"{(path / 'comm').read_text().strip()} (pid {path.name})"
        except OSError:
            continue  # it ended, or belongs to somebody else
    return ""


def _sockets(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found
