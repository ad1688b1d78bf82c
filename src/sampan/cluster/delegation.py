"""The control groups of an ordinary user: where his session was given one to divide (version 2 only).

systemd does that for `systemd-run --user --scope -p Delegate=yes`. What is in that group must move into one below before
controllers can be handed on: no group has both processes and groups with limits (Documentation/admin-guide/cgroup-v2).
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
VARIABLE = "SAMPAN_CGROUP"  # tells the processes of a cluster below which group theirs lie
HOW = "systemd-run --user --scope -p Delegate=yes sampan up"
_LEAF = "sampan-session"
_WANTED = ("cpu", "memory", "pids")


def find(root: Path = ROOT, membership: Path = Path("/proc/self/cgroup")) -> Path | None:
    """The group that is this process's to divide, with a memory controller; None without. Changes nothing."""
    try:
        own = membership.read_text().partition("0::/")[2].split("\n")[0]
        group = root / own
        if group.name == _LEAF:
            group = group.parent
        if not own or not (root / "cgroup.controllers").exists() or not _given(group):
            return None
        return group if "memory" in (group / "cgroup.controllers").read_text().split() else None
    except OSError:
        return None


def _given(group: Path) -> bool:
    """It is ours and says that it was delegated, or begins where the groups of others end."""
    if not all(os.access(group / name, os.W_OK) for name in ("cgroup.procs", "cgroup.subtree_control")):
        return False
    with contextlib.suppress(OSError):
        if os.getxattr(group, "user.delegate") == b"1":
            return True
    return not os.access(group.parent, os.W_OK)


def claim(root: Path = ROOT, membership: Path = Path("/proc/self/cgroup")) -> str:
    """Make the group ready to be divided and say where it is, below `root`; "" when there is none."""
    group = find(root, membership)
    if group is None:
        return ""
    try:
        leaf = group / _LEAF
        leaf.mkdir(exist_ok=True)
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
        there = (group / "cgroup.controllers").read_text().split()
        for name in _WANTED:
            if name in there:
                (group / "cgroup.subtree_control").write_text(f"+{name}")
    except OSError:
        return ""
    return str(group.relative_to(root))
