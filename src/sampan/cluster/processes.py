"""Starting and stopping child processes with the standard library alone, for the supervisor."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sampan.cluster import delegation

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    fds: Mapping[str, Sequence[int]] | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run `argv` with its output appended to `log`; it dies with this process. Returns its pid.

    `fds`: environment variable -> descriptors that stay open in the child, whose numbers the variable lists.
    """
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    pid = os.fork()
    if pid:
        os.close(output)
        return pid
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for caught in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(caught, signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        environment = {**os.environ, **one_thread(), **(env or {})}
        for variable, numbers in (fds or {}).items():
            for number in numbers:
                os.set_inheritable(number, True)
            environment[variable] = ",".join(map(str, numbers))
        os.execve(argv[0], list(argv), environment)
    except BaseException as error:
        os.write(2, f"cannot run {argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def report_ready() -> None:
    """A child tells the supervisor that it serves."""
    number = int(os.environ["SAMPAN_READY_FD"])
    os.write(number, b"ready")
    os.close(number)


def cgroup(cluster: str, node: str = "") -> str:
    """The control group below which everything of a node, or of a whole cluster, runs."""
    return "/".join(filter(None, (os.environ.get(delegation.VARIABLE), "sampan", cluster, node)))


def one_thread() -> dict[str, str]:
    """Numeric libraries start a thread a core, and malloc an arena a thread: neither helps here, both cost memory."""
    return {
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "PYTHONUNBUFFERED": "1",
    }


def stop(pids: Sequence[int], grace: float) -> None:
    """SIGTERM to all, SIGKILL to those left after `grace` seconds; returns when every one is gone."""
    left = {pid: os.pidfd_open(pid) for pid in pids if alive(pid)}
    for pid in left:
        signal_quietly(pid, signal.SIGTERM)
    end = time.monotonic() + grace
    killed = False
    while left:
        pause = None if killed else max(0.0, end - time.monotonic())
        gone, _, _ = select.select(list(left.values()), [], [], pause)
        for pid, fd in list(left.items()):
            if fd in gone:
                os.close(fd)
                del left[pid]
        if left and not killed and time.monotonic() >= end:
            killed = True
            for pid in left:
                signal_quietly(pid, signal.SIGKILL)


def reap() -> None:
    """Take leave of children that have ended: not every machine's process 1 does it for us."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def signal_quietly(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def alive(pid: int) -> bool:
    """False for zombies too: they have ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
