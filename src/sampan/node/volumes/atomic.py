"""Files that change all at once: a directory whose entries lead through `..data` to the newest set.

A reader sees the old files or the new ones, never a mixture (the way ConfigMap and Secret volumes promise).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping
from typing import NamedTuple

_DATA, _NEW = "..data", "..data_tmp"


class File(NamedTuple):
    """One file of a payload; `mode` as in chmod. `uid` None leaves the owner."""

    data: bytes
    mode: int
    uid: int | None = None


def write(directory: str, payload: Mapping[str, File], stamp: str, group: int | None = None) -> bool:
    """Make `directory` show exactly `payload` (relative path -> File). Returns whether anything changed.

    stamp: unique name of this set, such as a time. group: fsGroup, which then may read every file.
    """
    os.makedirs(directory, exist_ok=True)
    if _current(directory) == {path: f.data for path, f in payload.items()}:
        return False
    fresh = f"{directory}/..{stamp}"
    shutil.rmtree(fresh, ignore_errors=True)
    os.mkdir(fresh, 0o755)
    for path, file in sorted(payload.items()):
        _write_file(fresh, path, file, group)
    _own(fresh, group)
    old = _target(directory)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory}/{_NEW}")
    os.symlink(f"..{stamp}", f"{directory}/{_NEW}")
    os.rename(f"{directory}/{_NEW}", f"{directory}/{_DATA}")
    _link(directory, payload)
    if old and old != f"..{stamp}":
        shutil.rmtree(f"{directory}/{old}", ignore_errors=True)
    return True


def _write_file(root: str, path: str, file: File, group: int | None) -> None:
    target = f"{root}/{path}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    mode = file.mode | 0o440 if group is not None else file.mode
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(file.data)
        give(out.fileno(), -1 if file.uid is None else file.uid, -1 if group is None else group)
        os.fchmod(out.fileno(), mode)


def _own(root: str, group: int | None) -> None:
    for base, directories, _ in os.walk(root):
        for name in [".", *directories]:
            os.chmod(f"{base}/{name}", 0o755)
            if group is not None:
                give(f"{base}/{name}", -1, group)


def give(path: str | int, uid: int, gid: int) -> None:
    """chown where we may. An id that does not exist in an ordinary user's namespace (EINVAL) has no files: whoever
    runs as it is refused when the container starts, with words that say so."""
    try:
        os.chown(path, uid, gid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise


def _target(directory: str) -> str:
    try:
        return os.readlink(f"{directory}/{_DATA}")
    except OSError:
        return ""


def _current(directory: str) -> dict[str, bytes] | None:
    target = _target(directory)
    if not target:
        return None
    root = f"{directory}/{target}"
    found = {}
    for base, _, names in os.walk(root):
        for name in names:
            with open(f"{base}/{name}", "rb") as file:
                found[os.path.relpath(f"{base}/{name}", root)] = file.read()
    return found


def _link(directory: str, payload: Mapping[str, File]) -> None:
    """One link for each top-level name; links of names that are gone go too."""
    wanted = {path.partition("/")[0] for path in payload}
    for name in os.listdir(directory):
        if not name.startswith("..") and name not in wanted:
            os.unlink(f"{directory}/{name}")
    for name in sorted(wanted):
        if not os.path.lexists(f"{directory}/{name}"):
            os.symlink(f"{_DATA}/{name}", f"{directory}/{name}")
