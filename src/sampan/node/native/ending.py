"""How the end of a container is put on record."""

from __future__ import annotations

import json
import os
import signal
import time

from sampan.node.native import cgroups, syscalls


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
    syscalls.write_atomic(f"{directory}/exit.json", json.dumps(record).encode())
