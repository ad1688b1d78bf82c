"""User namespaces of pods (`hostUsers: false`): root inside is nobody outside. KEP-127; user_namespaces(7).

The pod's ids 0 to 65535 are a range of the machine's that nothing else uses. Layers and volumes are not chowned: their
mounts are idmapped, so that root in the pod is root on the disk and nowhere else.
"""

from __future__ import annotations

import os
import zlib

from sampan.node.native import syscalls

COUNT = 65536
_FIRST, _RANGES = 16384, 8192  # ranges from 2^30 on: above what machines give to users and other runtimes


def base(pod_uid: str) -> int:
    """The first id of a pod's range on the machine, the same each time it is asked."""
    return COUNT * (_FIRST + zlib.crc32(pod_uid.encode()) % _RANGES)


def make(first: int) -> tuple[int, int]:
    """A child in a new user namespace with the range mapped: (its pid, a descriptor; closing that ends the child).

    The namespace lives as long as the child, or what it is kept by. Raises OSError.
    """
    if syscalls.mapped_ids() < first + COUNT:
        raise OSError(1, "hostUsers: false needs more user ids than this node has (it runs rootless)")
    ready_read, ready_write = os.pipe()
    hold_read, hold_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold_write)
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(ready_write, b"x")
            os.read(hold_read, 1)
        finally:
            os._exit(0)
    os.close(hold_read)
    os.close(ready_write)
    try:
        if not os.read(ready_read, 1):
            raise OSError(28, "the kernel gives no user namespace (user.max_user_namespaces?)")
        for name in ("uid_map", "gid_map"):
            syscalls.write_file(f"/proc/{pid}/{name}", f"0 {first} {COUNT}\n")
    except OSError:
        release(pid, hold_write)
        raise
    finally:
        os.close(ready_read)
    return pid, hold_write


def release(pid: int, hold: int) -> None:
    """End the child of make()."""
    os.close(hold)
    os.waitpid(pid, 0)


def enter(namespace: int) -> None:
    """Become root of a user namespace (a descriptor of it, or a pidfd of a process in it)."""
    syscalls.setns(namespace, syscalls.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def idmapped(source: str, namespace: int) -> int:
    """A detached copy of the mount at `source` whose ids 0 to 65535 are those of the namespace. Raises OSError."""
    tree = syscalls.open_tree(source, recursive=False)
    try:
        syscalls.mount_setattr(tree, syscalls.ATTR_IDMAP, users=namespace)
    except OSError as error:
        os.close(tree)
        raise OSError(
            error.errno, f"the file system of {source} cannot map user ids: {error.strerror}"
        ) from None
    return tree
