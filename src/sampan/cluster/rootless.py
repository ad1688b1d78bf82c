"""How an ordinary user's cluster becomes root in namespaces of its own.

The supervisor forks a gateway that stays outside: it writes the id maps, connects outwards and listens inwards on its
behalf, since the network namespace inside has no way out of its own. Then the supervisor enters a user, mount and
network namespace, where all else runs the same code as for root.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

_NEWNS, _NEWUSER, _NEWNET = 0x20000, 0x10000000, 0x40000000
_MS_REC, _MS_SLAVE = 16384, 1 << 19
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Gateway:
    """The process outside; `fd` is a SEQPACKET socket to it (requests of `node.network.forward`)."""

    pid: int
    fd: int

    def close(self) -> None:
        os.close(self.fd)


def subordinate_range() -> tuple[int, int] | None:
    """(first id, count) from /etc/subuid when newuidmap could use it; None means a single id must do."""
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    user = pwd.getpwuid(os.getuid()).pw_name
    ranges = []
    for file in ("/etc/subuid", "/etc/subgid"):
        found = None
        try:
            for line in Path(file).read_text().splitlines():
                name, start, count = line.split(":")
                if name in (user, str(os.getuid())) and int(count) >= 65536:
                    found = int(start), int(count)
        except (OSError, ValueError):
            return None
        ranges.append(found)
    return ranges[0] if ranges[0] and ranges[0] == ranges[1] else None


def enter() -> Gateway:
    """Fork the gateway, then move this process into its namespaces as uid 0. Raises OSError with the failing step."""
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.getpid()
    entered_r, entered_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_gateway(child, inside, outside, entered_r, entered_w, mapped_w)
    outside.close()
    os.close(mapped_w)
    unshare_user()
    os.write(entered_w, b"x")
    answer = os.read(mapped_r, 4096)
    for fd in (entered_r, entered_w, mapped_r):
        os.close(fd)
    if answer != b"ok":
        raise OSError(f"writing the id maps failed: {answer.decode(errors='replace') or 'the gateway died'}")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "private mounts")
    return Gateway(pid, inside.detach())


def unshare_user() -> None:
    """Move this process into new user, mount and network namespaces. Raises OSError when the machine forbids it."""
    _check(_libc.unshare(_NEWUSER | _NEWNS | _NEWNET), "ordinary users may not make user namespaces here")


def remove_tree(directory: Path) -> None:
    """Remove files that belong to subordinate ids, in a child that is root over them. Raises OSError."""
    entered_r, entered_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            unshare_user()
            os.write(entered_w, b"x")
            os.read(mapped_r, 1)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            shutil.rmtree(directory)
            os._exit(0)
        except OSError:
            os._exit(1)
    try:
        os.read(entered_r, 1)
        _write_maps(child)
        os.write(mapped_w, b"x")
    finally:
        for fd in (entered_r, entered_w, mapped_r, mapped_w):
            os.close(fd)
        _, status = os.waitpid(child, 0)
    if status:
        raise OSError(f"{directory} could not be removed: some of its files belong to other users")


def subordinate_mapped() -> bool:
    """Whether more than one uid exists in this user namespace."""
    return sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()) > 1


def _be_gateway(
    child: int, inside: socket.socket, outside: socket.socket, entered_r: int, entered_w: int, mapped_w: int
) -> None:
    try:
        _libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        os.close(entered_w)
        inside.close()
        os.read(entered_r, 1)
        try:
            _write_maps(child)
        except OSError as error:
            os.write(mapped_w, str(error).encode() or b"unknown")
            os._exit(1)
        os.write(mapped_w, b"ok")
        os.close(mapped_w)
        from sampan.node.network import forward

        forward.run_gateway(outside)
    finally:
        os._exit(0)


def _write_maps(child: int) -> None:
    """Raises OSError."""
    import subprocess  # here, since it brings `threading`: the supervisor's forks, which all pods are, would pay for that

    uid, gid = os.getuid(), os.getgid()
    ids = subordinate_range()
    if ids:
        for tool, own in (("newuidmap", uid), ("newgidmap", gid)):
            arguments = [tool, str(child), "0", str(own), "1", "1", str(ids[0]), "65536"]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(f"{tool}: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path(f"/proc/{child}/{file}").write_text(text)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
