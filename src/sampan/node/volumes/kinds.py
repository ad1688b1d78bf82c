"""Volumes that are a directory or file of the node: emptyDir, hostPath, and claims that lead to one of those."""

from __future__ import annotations

import contextlib
import os
import stat

from sampan.api import quantity
from sampan.base.objects import Object
from sampan.node.pods.problems import VolumeError
from sampan.node.qos import pod_limits
from sampan.node.volumes import mounting
from sampan.node.volumes.atomic import give

_CHECKS = {
    "Directory": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}


def in_memory(directory: str, size: int | None = None) -> None:
    """A directory of at most `size` bytes that is never on a disk. Blocking."""
    os.makedirs(directory, exist_ok=True)
    with contextlib.suppress(PermissionError):  # a plain directory serves where tmpfs may not be mounted
        mounting.tmpfs(directory, size)
    os.chmod(directory, 0o1777)


def memory_size(source: Object, pod: Object, allocatable: Object) -> int | None:
    """Bytes of an emptyDir in memory: its own limit, the pod's or the node's, whichever is the least.

    Source: "Volumes", emptyDir: what lies in memory counts for its containers.
    """
    said = (quantity.value(text) for text in (source.get("sizeLimit"), allocatable.get("memory")) if text)
    return min((size for size in (*said, pod_limits(pod).memory) if size), default=None)


def empty_dir(directory: str, source: Object, group: int | None, size: int | None = None) -> None:
    """A fresh directory for the pod's life; in memory when it says so, of at most `size` bytes. Blocking."""
    if source.get("medium") == "Memory":
        in_memory(directory, size)
    else:
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o777)
    give_group(directory, group)


def host_path(source: Object) -> str:
    """The path itself, after the check its type asks for. Blocking. Raises VolumeError."""
    path, kind = source["path"], source.get("type", "")
    if kind == "DirectoryOrCreate":
        if not os.path.exists(path):
            os.makedirs(path, mode=0o755, exist_ok=True)
        kind = "Directory"
    elif kind == "FileOrCreate":
        if not os.path.exists(path):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        kind = "File"
    if not kind:
        return path
    check, name = _CHECKS[kind]
    try:
        right = check(os.stat(path).st_mode)
    except OSError:
        right = False
    if not right:
        raise VolumeError(f"hostPath type check failed: {path} is not a {name}")
    return path


def make_missing(path: str) -> None:
    """A node's directory that is not there when a container wants it is made then, whatever was checked at set-up.

    Blocking. Raises VolumeError. Source: containerd makes the missing source of any mount; kubelet relies on it.
    """
    try:
        if not os.path.exists(path):
            os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        refusal = VolumeError(f'failed to mkdir "{path}": {(error.strerror or str(error)).lower()}')
        refusal.reason = "CreateContainerError"
        raise refusal from None


def persistent(volume: Object) -> str:
    """The directory of a PersistentVolume of this node. Blocking. Raises VolumeError for kinds that need drivers."""
    spec, name = volume["spec"], volume["metadata"]["name"]
    if "hostPath" in spec:
        return host_path({"type": "DirectoryOrCreate", **spec["hostPath"]})
    if "local" in spec:
        path = spec["local"]["path"]
        if not os.path.exists(path):
            error = VolumeError(f'path "{path}" does not exist')
            error.step = "MountVolume.NewMounter initialization"
            raise error
        return path
    raise VolumeError(f'PersistentVolume "{name}" is of a kind that this node has no driver for')


def give_group(directory: str, group: int | None, change: str = "Always") -> None:
    """fsGroup: all files belong to the group, which may read and write; new ones inherit it. Blocking."""
    if group is None:
        return
    if change == "OnRootMismatch" and os.stat(directory).st_gid == group:
        return
    with contextlib.suppress(PermissionError):
        for base, _, names in os.walk(directory):
            _share(base, group, 0o2770)
            for name in names:
                if not os.path.islink(f"{base}/{name}"):
                    _share(f"{base}/{name}", group, 0o660)


def _share(path: str, group: int, mode: int) -> None:
    give(path, -1, group)
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | mode)
