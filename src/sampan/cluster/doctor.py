"""What this machine has of what a cluster can use, and what each lack costs. Looks only; changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sampan.cluster import delegation, losses, rootless
from sampan.cluster.paths import default_data_root, is_root
from sampan.node.network import obstacles

_NETLINK_NETFILTER = 12
_NO_CGROUPS = "limits of containers are not enforced: no OOMKilled, figures of use from /proc"


@dataclass(frozen=True, slots=True)
class Finding:
    """`state` is ok, lacking (something works less) or missing (nothing works without it)."""

    what: str
    state: str
    detail: str
    cost: str = ""
    remedy: str = ""


def examine() -> list[Finding]:
    """All findings, in the order a person would ask."""
    return [finding for check in _CHECKS for finding in check()]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield Finding("Python 3.11", "ok" if good else "missing", f"{version} at {sys.executable}")


def _kubectl() -> Iterator[Finding]:
    path = shutil.which("kubectl")
    yield (
        Finding("kubectl", "ok", path)
        if path
        else Finding(
            "kubectl",
            "lacking",
            "not on the PATH",
            "no command-line client",
            "kubernetes.io/docs/tasks/tools",
        )
    )


def _user() -> Iterator[Finding]:
    if is_root():
        yield Finding("user", "ok", "root: nodes have cgroup limits, Services are reachable from the host")
        return
    yield Finding(
        "user",
        "lacking",
        "an ordinary user: the cluster lives in a user namespace",
        losses.CUT_OFF,
    )
    yield from _user_namespaces()
    ids = rootless.subordinate_range()
    if ids:
        yield Finding("subordinate ids", "ok", f"{ids[1]} from {ids[0]}")
    else:
        yield Finding(
            "subordinate ids",
            "lacking",
            "no newuidmap, or no range of 65536 in /etc/subuid and /etc/subgid",
            losses.SINGLE,
            "apt-get install uidmap; usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        )


def _user_namespaces() -> Iterator[Finding]:
    child = os.fork()
    if child == 0:
        try:
            rootless.unshare_user()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        yield Finding("user namespaces", "ok", "an ordinary user may make them")
    else:
        remedy = "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or user.max_user_namespaces above 0"
        yield Finding("user namespaces", "missing", os.strerror(code), "no nodes without root", remedy)


def _kernel() -> Iterator[Finding]:
    filesystems = Path("/proc/filesystems").read_text().split()
    module = Path(f"/lib/modules/{os.uname().release}/kernel/fs/overlayfs")
    if "overlay" in filesystems or module.exists():
        yield Finding("overlayfs", "ok", "image layers are shared between containers")
    else:
        yield Finding("overlayfs", "missing", "not in this kernel", "no containers", "modprobe overlay")
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER):
            yield Finding("nftables", "ok", "Services are balanced by the kernel")
    except OSError as error:
        yield Finding(
            "nftables", "missing", error.strerror or str(error), "no Services", "modprobe nf_tables"
        )
    seccomp = Path("/proc/sys/kernel/seccomp/actions_avail").exists()
    yield (
        Finding("seccomp", "ok", "system calls of containers are filtered")
        if seccomp
        else Finding("seccomp", "lacking", "not in this kernel", "containers' system calls are not filtered")
    )


def _cgroups() -> Iterator[Finding]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        have, kind = set(unified.read_text().split()), "v2"
    else:
        have, kind = {p.name for p in Path("/sys/fs/cgroup").glob("*")}, "v1"
    delegated = None if is_root() else delegation.find()
    if delegated:
        have = set((delegated / "cgroup.controllers").read_text().split())
    missing = {"cpu", "memory", "pids"} - have
    if not is_root() and kind == "v2" and not delegated:
        yield Finding("cgroups", "lacking", "v2, but none is delegated to you", _NO_CGROUPS, delegation.HOW)
    elif not is_root() and kind == "v1":
        yield Finding(
            "cgroups",
            "lacking",
            "v1 cannot be delegated to an ordinary user",
            _NO_CGROUPS,
        )
    elif missing:
        names = ", ".join(sorted(missing))
        yield Finding("cgroups", "lacking", f"{kind} without {names}", f"no limits of {names}")
    else:
        yield Finding("cgroups", "ok", f"{kind} with cpu, memory and pids")


def _forwarding() -> Iterator[Finding]:
    """Of no concern to an ordinary user: nothing is forwarded by the host."""
    if not is_root():
        return
    found = obstacles.find()
    for obstacle in found:
        cost = f"it drops {obstacle.lost}: no images, no internet, or no Ready node"
        yield Finding("forwarding", "lacking", f"{obstacle.what} drops", cost, obstacle.remedy)
    if not found:
        yield Finding(
            "forwarding", "ok", "the host's firewall lets nodes reach the outside, or `up` sees to it"
        )


def _disk() -> Iterator[Finding]:
    root = default_data_root()
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free
    text = f"{free / 1e9:.1f} GB free in {root}"
    enough = free > 1e9
    yield Finding(
        "disk", "ok" if enough else "lacking", text, "" if enough else "images and logs may not fit"
    )


_CHECKS: list[Callable[[], Iterator[Finding]]] = [
    _python,
    _kubectl,
    _user,
    _kernel,
    _forwarding,
    _cgroups,
    _disk,
]
