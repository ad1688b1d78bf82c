"""The image's idea of users: USER of its configuration, and names, resolved in its own /etc/passwd and /etc/group."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from sampan.node.native import syscalls
from sampan.node.runtime import Image

_LARGEST = 1 << 20


def resolve(image: Image, user: str) -> tuple[int, int, list[int]]:
    """(uid, gid, supplementary groups) of "name", "uid", "name:group", "uid:gid"; "" is root. Blocking.

    Raises ValueError with the sentence other runtimes use when the name is unknown.
    """
    name, _, group = user.partition(":")
    passwd = _table(image.layers, "etc/passwd")
    groups = _table(image.layers, "etc/group")
    name = name or "0"
    line = next((one for one in passwd if name in (one[0], one[2])), None) if passwd else None
    if line is not None:
        uid, gid, login = int(line[2]), int(line[3]), line[0]
    elif name.isdigit():
        uid, gid, login = int(name), 0, ""
    else:
        raise ValueError(f"unable to find user {name}: no matching entries in passwd file")
    if group:
        found = next((one for one in groups if group in (one[0], one[2])), None)
        if found is None and not group.isdigit():
            raise ValueError(f"unable to find group {group}: no matching entries in group file")
        return uid, int(found[2]) if found else int(group), []
    extra = [int(one[2]) for one in groups if login and login in one[3].split(",") and int(one[2]) != gid]
    return uid, gid, sorted(extra)


def home(image: Image, uid: int) -> str:
    """The home directory the image gives a user; "" when it does not know it. Blocking."""
    rows = _table(image.layers, "etc/passwd")
    return next((one[5] for one in rows if len(one) > 5 and int(one[2]) == uid), "")


def _table(layers: Sequence[str], path: str) -> list[list[str]]:
    """The lines of the uppermost layer that has the file, split at colons; bad lines are left out."""
    for layer in layers:
        root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = syscalls.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        finally:
            os.close(root)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return []
            text = os.read(fd, _LARGEST).decode("utf-8", "replace")
        finally:
            os.close(fd)
        rows = [line.split(":") for line in text.splitlines()]
        return [
            row
            for row in rows
            if len(row) > 3 and row[2].isdigit() and (path.endswith("group") or row[3].isdigit())
        ]
    return []
