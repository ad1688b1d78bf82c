"""The few mounts an agent makes itself: tmpfs for memory volumes, and sub-paths held so that nobody can redirect them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat

_libc = ctypes.CDLL(None, use_errno=True)
_BIND, _REC, _NOSUID, _NODEV, _DETACH = 0x1000, 0x4000, 0x2, 0x4, 0x2
_OPENAT2 = 437
_RESOLVE_BENEATH, _RESOLVE_NO_MAGICLINKS = 0x08, 0x02


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {target}: {os.strerror(code)}")


def tmpfs(target: str, size: int | None) -> None:
    """A memory file system at `target`, unless there is one. Raises OSError."""
    if not os.path.ismount(target):
        _mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, f"size={size}" if size else "")


def unmount(target: str) -> None:
    """Take a mount away; one that is not there is fine."""
    with contextlib.suppress(OSError):
        _libc.umount2(target.encode(), _DETACH)


def open_beneath(root: str, path: str) -> int:
    """A path descriptor of root/path that no symlink can lead out of root (openat2). Raises OSError."""
    parent = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        found = _libc.syscall(_OPENAT2, parent, path.encode(), ctypes.byref(how), ctypes.sizeof(how))
        if found < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{path}: {os.strerror(code)}")
        return found
    finally:
        os.close(parent)


def read_beneath(root: str, path: str, most: int) -> bytes:
    """At most `most` bytes of the regular file root/path, which no symlink can lead out of root. Raises OSError."""
    held = open_beneath(root, path)
    try:
        if not stat.S_ISREG(os.fstat(held).st_mode):  # a pipe would keep us waiting
            raise OSError(errno.EINVAL, f"{path} is no regular file")
        with open(f"/proc/self/fd/{held}", "rb") as file:
            return file.read(most)
    finally:
        os.close(held)


def make_beneath(root: str, path: str) -> None:
    """Create the directories of root/path that are missing, with root's mode, following no link out of it."""
    done, mode = "", stat.S_IMODE(os.stat(root).st_mode)
    for part in path.split("/"):
        if part in ("", "."):
            continue
        parent = open_beneath(root, done or ".")
        try:
            step = f"{done}/{part}" if done else part
            try:
                os.close(open_beneath(root, step))
            except FileNotFoundError:
                os.mkdir(part, dir_fd=parent)
                os.chmod(part, mode, dir_fd=parent)
            done = step
        finally:
            os.close(parent)


def hold(root: str, path: str, place: str) -> str:
    """Bind root/path to `place`, so that later changes of links cannot redirect it. Returns what to mount.

    Without the right to mount, the resolved path itself is returned. Raises OSError when it leads out of root.
    """
    if not os.path.lexists(f"{root}/{path}"):
        make_beneath(root, path)
    descriptor = open_beneath(root, path)
    try:
        link = f"/proc/self/fd/{descriptor}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.isdir(link):
            os.makedirs(place, exist_ok=True)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600))
        unmount(place)
        try:
            _mount(f"/proc/self/fd/{descriptor}", place, "", _BIND | _REC)
        except OSError:
            return os.readlink(link)
        return place
    finally:
        os.close(descriptor)
