"""A pod's shared surroundings: network, IPC and UTS namespaces held by bind mounts, so that no process has to.

Only shareProcessNamespace needs a living first process, which reaps what the pod's processes leave behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct

from sampan.node.native import cgroups, shim, syscalls

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1


def serve(connection: socket.socket, request: dict) -> None:
    """Make a sandbox: dir, hostname, sysctls, and which of net, ipc, uts, pid are its own. Never returns.

    Writes sandbox.json first, so that whoever finds it half made knows what to take away; replies {} or {"error"}.
    """
    try:
        os.makedirs(request["dir"], mode=0o700, exist_ok=True)
        _record(request, 0)
        init = _make(request)
        if init:
            _record(request, init)
        shim.reply(connection, {})
    except (OSError, ValueError) as error:
        shim.reply(connection, {"error": shim.describe(error)})
    os._exit(0)


def _record(request: dict, init: int) -> None:
    record = {
        "init": init,
        "init_start": syscalls.start_ticks(init) if init else 0,
        "boot": shim.BOOT_ID,
        "config": request["config"],
        "created_at": request["created_at"],
        "ip": request.get("ip", ""),
    }
    syscalls.write_atomic(f"{request['dir']}/sandbox.json", json.dumps(record).encode())


def _make(request: dict) -> int:
    directory = request["dir"]
    if request.get("cgroup"):
        cgroups.create(request["cgroup"], request.get("limits") or {})
    flags = 0
    for name, flag in _KINDS.items():
        if name in request["own"]:
            flags |= flag
    if flags:
        syscalls.unshare(flags)
    if "uts" in request["own"]:
        socket.sethostname(request["hostname"])
    if "net" in request["own"]:
        loopback_up()
    for name, value in sorted((request.get("sysctls") or {}).items()):
        _sysctl(name, value)
    for name in _KINDS:
        if name in request["own"]:
            _keep(f"/proc/self/ns/{name}", f"{directory}/{name}")
    _shared_memory(f"{directory}/shm")
    return _first_process(directory) if "pid" in request["own"] else 0


_KINDS = {"net": syscalls.CLONE_NEWNET, "ipc": syscalls.CLONE_NEWIPC, "uts": syscalls.CLONE_NEWUTS}


def _keep(source: str, target: str) -> None:
    """A namespace lives as long as a file it is mounted on."""
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    syscalls.mount(source, target, None, syscalls.MS_BIND)


def _shared_memory(directory: str) -> None:
    """/dev/shm belongs to the pod, like its IPC namespace."""
    os.makedirs(directory, exist_ok=True)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("shm", directory, "tmpfs", flags, "mode=1777,size=65536k")


def loopback_up() -> None:
    """Bring up `lo` in the current network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        current = struct.unpack("16sH14s", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", current | _IFF_UP, b""))


def _sysctl(name: str, value: str) -> None:
    """Both "net.ipv4.x" and "net/ipv4/x" name a setting. API reference, Sysctl."""
    path = name if "/" in name else name.replace(".", "/")
    if ".." in path.split("/"):
        raise ValueError(f'sysctl "{name}" is not a valid name')
    try:
        syscalls.write_file(f"/proc/sys/{path}", value)
    except OSError as error:
        raise OSError(error.errno, f'cannot set sysctl "{name}" to "{value}": {error.strerror}') from None


def _first_process(directory: str) -> int:
    """Process 1 of a shared PID namespace: it only reaps."""
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        os.closerange(0, 4096)
        syscalls.set_name("pause")
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            signal.pause()
    _keep(f"/proc/{pid}/ns/pid", f"{directory}/pid")
    return pid
