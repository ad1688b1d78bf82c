"""How much disk directories take and file systems have left. Everything here blocks: call it in a thread."""

from __future__ import annotations

import os
from collections.abc import Iterable

from sampan.node.pressure import Observation


def usage(paths: Iterable[str]) -> tuple[int, int]:
    """(bytes, inodes) of what lies under `paths`, each file once, without what is mounted there; 0 for what is gone."""
    total, inodes = 0, 0
    for path in paths:
        try:
            device = os.lstat(path).st_dev
        except OSError:
            continue
        seen: set[int] = set()
        waiting = [path]
        while waiting:
            try:
                entries = os.scandir(waiting.pop())
            except OSError:
                continue
            with entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if status.st_dev != device or (status.st_nlink > 1 and status.st_ino in seen):
                        continue
                    directory = entry.is_dir(follow_symlinks=False)
                    if status.st_nlink > 1 and not directory:
                        seen.add(status.st_ino)
                    total += status.st_blocks * 512
                    inodes += 1
                    if directory:
                        waiting.append(entry.path)
    return total, inodes


def space(path: str) -> tuple[Observation, Observation]:
    """(bytes, inodes) of the file system that holds `path`, as an unprivileged user would have them."""
    status = os.statvfs(path)
    left = Observation(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)
    return left, Observation(status.f_favail, status.f_files)


def processes() -> Observation:
    """How many more processes and threads the machine takes."""
    most = min(_number("/proc/sys/kernel/pid_max"), _number("/proc/sys/kernel/threads-max"))
    with open("/proc/loadavg") as file:
        running = int(file.read().split()[3].partition("/")[2])
    return Observation(max(most - running, 0), most)


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())
