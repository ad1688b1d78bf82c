"""Control groups of both versions behind one set of functions; paths are relative, such as "sampan/n1/besteffort/podX".

Version 1 (also "hybrid") has a hierarchy a controller, and moving a process into each costs about a millisecond, so a
container joins only those it needs. Version 2 has one, where controllers are switched on level by level.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable

from sampan.node.native.syscalls import write_file

_ROOT = "/sys/fs/cgroup"
_PERIOD = 100_000  # microseconds of a CPU quota period
_layout: dict[str, str] | None = None  # controller -> mount point; {"": root} for version 2


def layout() -> dict[str, str]:
    """Controller to mount point; version 2 is the single key ""; empty when there are none."""
    global _layout
    if _layout is None:
        if os.path.exists(f"{_ROOT}/cgroup.controllers"):
            _layout = {"": _ROOT}
        else:
            _layout = _version1()
    return _layout


def _version1() -> dict[str, str]:
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            if kind == "cgroup":
                for option in options.split()[-1].split(","):
                    if option in ("cpu", "cpuacct", "memory", "pids"):
                        found.setdefault(option, left.split()[4])
    return found


def version() -> int:
    """1, 2, or 0 when the machine has no usable control groups."""
    table = layout()
    return 2 if "" in table else 1 if table else 0


def _directories(path: str, controllers: list[str] | None = None) -> list[str]:
    table = layout()
    if "" in table:
        return [f"{table['']}/{path}"]
    return sorted(
        {f"{root}/{path}" for name, root in table.items() if controllers is None or name in controllers}
    )


def needed(limits: dict) -> list[str]:
    """The version 1 controllers a group with these limits must be in; memory and cpuacct give the statistics."""
    wanted = ["memory", "cpuacct"]
    if limits.get("cpu_shares") or limits.get("cpu_quota"):
        wanted.append("cpu")
    if limits.get("pids"):
        wanted.append("pids")
    return wanted + [name for name in limits.get("controllers") or () if name not in wanted]


def procs(path: str, limits: dict) -> list[str]:
    """The files a pid is written to, to join the group that create() made with these limits."""
    return [f"{directory}/cgroup.procs" for directory in _directories(path, needed(limits))]


def entrance(procs_file: str) -> str:
    """The file of a group through which a process with one thread moves itself into it, by writing 0.

    Version 1 then need not stop all forks of the machine, which takes 6-14 ms for moving anyone else.
    """
    return procs_file.removesuffix("cgroup.procs") + "tasks" if version() == 1 else procs_file


def enter(procs_files: Iterable[str]) -> None:
    """Move this process into the groups of these files of create()."""
    for file in procs_files:
        write_file(entrance(file), "0")


def create(path: str, limits: dict) -> list[str]:
    """Make a group with its limits (keys of runtime.Limits); returns the cgroup.procs files a member is written to."""
    if version() == 2:
        _enable_below_root(path)
    for directory in _directories(path, needed(limits)):
        os.makedirs(directory, exist_ok=True)
    update(path, limits)
    return procs(path, limits)


def _enable_below_root(path: str) -> None:
    """Version 2: a controller must be enabled in every group above the one that uses it."""
    at = layout()[""]
    for part in ["", *path.split("/")[:-1]]:
        at = f"{at}/{part}" if part else at
        os.makedirs(at, exist_ok=True)
        try:
            with open(f"{at}/cgroup.controllers") as file:
                there = file.read().split()
            with open(f"{at}/cgroup.subtree_control") as file:
                enabled = file.read().split()
        except OSError:
            continue
        for name in ("cpu", "memory", "pids"):
            if name in there and name not in enabled:
                try:
                    write_file(f"{at}/cgroup.subtree_control", f"+{name}")
                except OSError:
                    pass  # not delegated to us: the limit is reported as unenforced by `doctor`


def update(path: str, limits: dict) -> None:
    """Write the limits that are set; those that are None stay as they are, -1 takes one away (quota, memory).

    Raises OSError naming the file.
    """
    table = layout()
    shares, quota = limits.get("cpu_shares"), limits.get("cpu_quota")
    memory, pids = limits.get("memory"), limits.get("pids")
    if "" in table:
        group = f"{table['']}/{path}"
        if shares:
            _set(f"{group}/cpu.weight", max(1, min(10000, 1 + (shares - 2) * 9999 // 262142)))
        if quota:
            _set(f"{group}/cpu.max", f"{quota if quota > 0 else 'max'} {_PERIOD}")
        if memory:
            _set(f"{group}/memory.max", memory if memory > 0 else "max")
            _set(f"{group}/memory.oom.group", 1)
        if pids:
            _set(f"{group}/pids.max", pids)
        return
    if shares and "cpu" in table:
        _set(f"{table['cpu']}/{path}/cpu.shares", max(2, shares))
    if quota and "cpu" in table:
        _set(f"{table['cpu']}/{path}/cpu.cfs_quota_us", quota)
    if memory and "memory" in table:
        _set(f"{table['memory']}/{path}/memory.limit_in_bytes", memory)
    if pids and "pids" in table:
        _set(f"{table['pids']}/{path}/pids.max", pids)


def _set(file: str, value: object) -> None:
    if os.path.exists(file):
        write_file(file, str(value))


def _number(file: str, key: str = "") -> int:
    """A counter, or the counter `key` of a file of "key value" lines; 0 when absent."""
    if key:
        return _numbers(file).get(key, 0)
    try:
        with open(file) as opened:
            text = opened.read().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _numbers(file: str) -> dict[str, int]:
    """The counters of a file of "key value" lines."""
    try:
        with open(file) as opened:
            rows = [line.split() for line in opened]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def oom_kills(path: str) -> int:
    """How many processes of this group the kernel killed for want of memory."""
    table = layout()
    if "" in table:
        return _number(f"{table['']}/{path}/memory.events", "oom_kill")
    if "memory" in table:
        return _number(f"{table['memory']}/{path}/memory.oom_control", "oom_kill")
    return 0


def stats(path: str) -> dict[str, float]:
    """cpu_seconds, memory_usage, memory_working_set, memory_rss, page faults, pids; {} when the group is gone."""
    table = layout()
    new = "" in table
    if not new and "memory" not in table:
        return {}
    group = f"{table['' if new else 'memory']}/{path}"
    if not os.path.isdir(group):
        return {}
    memory = _numbers(f"{group}/memory.stat")
    of = "" if new else "total_"  # version 1 gives the figures of the group alone, too
    usage = _number(f"{group}/{'memory.current' if new else 'memory.usage_in_bytes'}")
    if new:
        cpu = _number(f"{group}/cpu.stat", "usage_usec") / 1e6
        pids = _number(f"{group}/pids.current")
    else:
        cpu = _number(f"{table.get('cpuacct', '')}/{path}/cpuacct.usage") / 1e9
        pids = len(members(path))
    return {
        "cpu_seconds": cpu,
        "memory_usage": usage,
        "memory_working_set": max(0, usage - memory.get(f"{of}inactive_file", 0)),
        "memory_rss": memory.get("anon" if new else "total_rss", 0),
        "page_faults": memory.get(f"{of}pgfault", 0),
        "major_page_faults": memory.get(f"{of}pgmajfault", 0),
        "pids": pids,
    }


def members(path: str) -> list[int]:
    """The processes in this group and below, as pids of our own PID namespace."""
    found: set[int] = set()
    for directory in _directories(path):
        for at, _, _ in os.walk(directory):
            try:
                with open(f"{at}/cgroup.procs") as file:
                    found.update(int(line) for line in file if line.strip() != "0")
            except OSError:
                continue
    return sorted(found)


def kill(path: str) -> None:
    """SIGKILL everything in the group and below, again until nobody is left (or half a second has passed)."""
    if version() == 2:
        try:
            write_file(f"{layout()['']}/{path}/cgroup.kill", "1")
            return
        except OSError:
            pass
    for _ in range(50):
        pids = members(path)
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.01)


def remove(path: str, patience: float = 0.5) -> bool:
    """Remove the group and those below it; False when processes remained for `patience` seconds."""
    gone = True
    for directory in _directories(path):
        for at, _, _ in os.walk(directory, topdown=False):
            gone = _rmdir(at, patience) and gone
    return gone


def remove_empty(path: str) -> None:
    """Remove the group itself where nobody uses it; groups below it (of other clusters, for example) keep it."""
    for directory in _directories(path):
        _rmdir(directory, 0.0)


def _rmdir(directory: str, patience: float) -> bool:
    until = time.monotonic() + patience
    while True:
        try:
            os.rmdir(directory)
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > until:
                return False
            time.sleep(0.002)


def sweep(path: str) -> bool:
    """Kill and remove everything under `path`: what a node that died with SIGKILL left behind."""
    kill(path)
    return remove(path)


def usable(path: str) -> bool:
    """Whether we may make groups under `path`; without (rootless, not delegated) nothing is limited."""
    if not version():
        return False
    try:
        for directory in _directories(path):
            os.makedirs(directory, exist_ok=True)
    except OSError:
        return False
    return True
