"""The Linux calls Python 3.11 does not offer, through ctypes: mounts, namespaces, capabilities, prctl, pidfds.

Everything under `node.native` except `runtime`, `channel`, `streams` and `records` runs in the zygote, so it imports little
and only from the standard library. Every function raises OSError that names the call.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

_MNT_DETACH = 2

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_IDMAP = 0x100000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40

# Numbers that differ between machines; those from 424 on are the same everywhere.
_PIVOT_ROOT, _CAPSET, _CLONE = (41, 91, 220) if platform.machine() == "aarch64" else (155, 126, 56)
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _bytes(text: str | bytes | None) -> bytes | None:
    return os.fsencode(text) if text is not None else None


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for new ones (PID: for the next child)."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def fork_beside() -> int:
    """fork(), but the child is our parent's. For a process of one thread, whose child soon becomes another program."""
    return _check(_libc.syscall(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0), "clone")


def setns(fd: int, flags: int = 0) -> None:
    """Enter the namespace of `fd`, or with a pidfd several at once."""
    _check(_libc.setns(fd, flags), f"setns {flags:#x}")


def enter(path: str, flags: int) -> None:
    """Enter the namespace kept at `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, flags)
    finally:
        os.close(fd)


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    _check(
        _libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(data)),
        f"mount {kind or source or ''} on {target}",
    )


def umount(target: str) -> None:
    """umount2(2), lazily."""
    _check(_libc.umount2(_bytes(target), _MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.syscall(_PIVOT_ROOT, _bytes(new), _bytes(old)), f"pivot_root {new}")


def prctl(option: int, a: int | bytes | object = 0, b: object = 0, c: int = 0, d: int = 0) -> None:
    """prctl(2)."""
    _check(_libc.prctl(option, a, b, c, d), f"prctl {option}")


def set_name(name: str) -> None:
    """The process's short name, as `ps` and `top` show it (15 bytes)."""
    _libc.prctl(PR_SET_NAME, os.fsencode(name)[:15], 0, 0, 0)


def set_title(title: str) -> None:
    """The process's command line, as `ps` shows it, in place of its arguments. proc_pid_cmdline(5).

    A last byte that is not NUL tells the kernel that the line ends at the first NUL.
    """
    with open("/proc/self/stat", "rb") as file:
        numbers = file.read().rpartition(b")")[2].split()
    start, end = int(numbers[45]), int(numbers[46])  # arg_start and arg_end of proc_pid_stat(5)
    if end - start > 1:
        room = end - start - 1
        ctypes.memmove(start, os.fsencode(title)[: room - 1].ljust(room, b"\0") + b".", room + 1)


def capset(effective: int, permitted: int, inheritable: int = 0) -> None:
    """Set this process's capability masks. capset(2), version 3."""
    low = 0xFFFFFFFF
    data = struct.pack(
        "IIIIII",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> 32,
        permitted >> 32,
        inheritable >> 32,
    )
    _check(_libc.syscall(_CAPSET, struct.pack("II", 0x20080522, 0), data), "capset")


def open_tree(path: str, recursive: bool = True) -> int:
    """A detached copy of the mount at `path` (its propagation peers kept), for move_mount()."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _check(_libc.syscall(_OPEN_TREE, _AT_FDCWD, _bytes(path), flags), f"open_tree {path}")


def move_mount(tree: int, target: int) -> None:
    """Attach a detached mount on the file or directory that `target` is open on."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _check(_libc.syscall(_MOVE_MOUNT, tree, b"", target, b"", flags), "move_mount")


def mount_setattr(
    fd: int, set_flags: int = 0, propagation: int = 0, recursive: bool = False, users: int = 0
) -> None:
    """Change flags or propagation of a mount (of all below it with `recursive`). mount_setattr(2), Linux 5.12.

    `users` is the descriptor of the user namespace for ATTR_IDMAP.
    """
    attr = struct.pack("QQQQ", set_flags, 0, propagation, users)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _check(_libc.syscall(_MOUNT_SETATTR, fd, b"", flags, attr, len(attr)), "mount_setattr")


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open `path` as a process with its root at fd `root` would see it: no link leads out. openat2(2), Linux 5.6."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return _check(_libc.syscall(_OPENAT2, root, _bytes(path), how, len(how)), f"open {path}")


@functools.cache
def in_user_namespace() -> bool:
    """Whether uid 0 here is not the machine's root."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


@functools.cache
def mapped_ids() -> int:
    """How many uids exist here; 1 means chown and setgroups cannot work."""
    with open("/proc/self/uid_map") as file:
        return sum(int(line.split()[2]) for line in file)


def start_ticks(pid: int) -> int:
    """When `pid` started, in clock ticks since boot; 0 when it is gone or a zombie. Tells a reused pid. proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def write_file(path: str, text: str) -> None:
    """Write an existing control file (proc, sys, cgroup) in one call."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a whole file so that a reader sees all of it or nothing."""
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(temporary, path)
