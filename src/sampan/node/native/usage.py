"""Processor time and memory of containers without control groups (rootless, nothing delegated): summed from /proc."""

from __future__ import annotations

import os

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def by_tree(roots: dict[str, int]) -> dict[str, dict[str, float]]:
    """`roots`: container id -> pid of its first process; each gets the sum over its living descendants."""
    parents: dict[int, int] = {}
    figures: dict[int, tuple[float, int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        pid = int(entry)
        parents[pid] = int(fields[1])
        figures[pid] = ((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE)
    result = {
        id_: {"cpu_seconds": 0.0, "memory_working_set": 0.0, "memory_rss": 0.0, "pids": 0.0} for id_ in roots
    }
    owners = {pid: id_ for id_, pid in roots.items()}
    for pid, (seconds, memory) in figures.items():
        at = pid
        while at and at not in owners:
            at = parents.get(at, 0)
        if at in owners:
            total = result[owners[at]]
            total["cpu_seconds"] += seconds
            total["memory_working_set"] += memory
            total["memory_rss"] += memory
            total["pids"] += 1
    return result
