"""How the end of a container is put on record."""

from __future__ import annotations

import json
import os
import signal
import time

from sampan.node.native import cgroups, syscalls

_LONGEST = 4096  # bytes of a state: one block


def finish(directory: str, group: str, own_processes: bool, end: dict, pid: int = 0) -> None:
    """Clean the control group, then say how it ended: when exit.json is there, nothing of the container runs.

    `end`: code, signal, reason and message. `pid`: its first process, for who has no group. `own_processes`: they died
    with the first one, since they had a PID namespace.
    """
    if group:
        if not own_processes:
            cgroups.kill(group)
        cgroups.remove(group)
    elif not own_processes and pid:
        try:
            os.killpg(pid, signal.SIGKILL)
        except OSError:
            pass
    record = {**end, "finished_at": time.time()}
    try:
        syscalls.write_atomic(f"{directory}/exit.json", json.dumps(record).encode())
    except OSError:
        _write_over_state(directory, record)


def _write_over_state(directory: str, record: dict) -> None:
    """The disk is full: the end takes the place of the state, whose block is there, and says what that said, too.

    Raises OSError.
    """
    path = f"{directory}/state.json"
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        whole = json.dumps({**json.loads(os.read(fd, _LONGEST)), **record}).encode()
        os.pwrite(fd, whole, 0)  # longer than what was there
    finally:
        os.close(fd)
    os.rename(path, f"{directory}/exit.json")
