"""Whether the disk has room for a cluster's store: said before a start, and while the store still writes.

The store writes to segments that were filled with zeros ahead of time. So a full disk hurts it only when a segment ends
and there is no next one: until then everything is well, and there is time to free what is needed.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sampan.base.errors import SampanError
from sampan.cluster.paths import Paths
from sampan.store.segments import SIZE, SPARE

_REST = 4 << 20  # keys, sockets, the first lines of logs
FULL = (errno.ENOSPC, errno.EDQUOT)


def check(paths: Paths) -> None:
    """Raises SampanError when a start would end in a full disk."""
    segments = list(paths.store.glob("*.log"))
    lacking = _REST + (0 if segments else SIZE) - _free(paths.data)
    if lacking > 0:
        raise SampanError("the disk has no room for the cluster", _free_some(lacking, paths))


def refused(paths: Paths) -> SampanError:
    """What to say after the disk took no more."""
    return SampanError("the disk is full", _free_some(SIZE + _REST - _free(paths.data), paths))


def warning(paths: Paths) -> str:
    """What to do before the store stops for want of a next segment, "" as long as there is one or room for it."""
    lacking = SIZE + _REST - _free(paths.data)
    if lacking <= 0 or (paths.store / SPARE).exists():
        return ""
    return (
        f"the disk is nearly full, and the API ends when its store has no room: {_free_some(lacking, paths)}"
    )


def _free_some(lacking: int, paths: Paths) -> str:
    return f"free {-(-lacking // 10**6)} MB on the file system of {paths.data}"


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
