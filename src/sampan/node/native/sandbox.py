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

from sampan.node.native import cgroups, starter, syscalls, users

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1


def serve(connection: socket.socket, request: dict) -> None:
    """Make a sandbox: dir, hostname, sysctls, and which of net, ipc, uts, pid are its own. Never returns.

    Writes sandbox.json first, so that whoever finds it half made knows what to take away; replies {} or {"error"}.
    """
    try:
        os.makedirs(request["dir"], mode=0o700, exist_ok=True)
        _record(request, 0)
        recorded = os.pipe()
        init = _make(request, recorded)
        if init:
            _record(request, init)
            os.write(recorded[1], b"x")
        starter.reply(connection, {})
    except (OSError, ValueError) as error:
        starter.reply(connection, {"error": starter.describe(error)})
    os._exit(0)


def _record(request: dict, init: int) -> None:
    record = {
        "init": init,
        "init_start": syscalls.start_ticks(init) if init else 0,
        "boot": starter.BOOT_ID,
        "config": request["config"],
        "created_at": request["created_at"],
        "ip": request.get("ip", ""),
    }
    syscalls.write_atomic(f"{request['dir']}/sandbox.json", json.dumps(record).encode())


def _make(request: dict, recorded: tuple[int, int]) -> int:
    """Returns the pid of its first process, 0 when it has none; that one ends unless told that it was `recorded`."""
    directory = request["dir"]
    if request.get("cgroup"):
        cgroups.create(request["cgroup"], request.get("limits") or {})
    _shared_memory(f"{directory}/shm", request.get("user_base") or 0)
    if "user" in request["own"]:
        return _make_for_users(request, recorded)
    _namespaces(request)
    for name in _KINDS:
        if name in request["own"]:
            _keep(f"/proc/self/ns/{name}", f"{directory}/{name}")
    if "pid" not in request["own"]:
        return 0
    pid = _first_process(recorded)
    _keep(f"/proc/{pid}/ns/pid", f"{directory}/pid")
    return pid


def _namespaces(request: dict) -> None:
    """Leave the node's namespaces for the pod's own, and set these up."""
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
        _open_to_all(in_user_namespace="user" in request["own"])
    for name, value in sorted((request.get("sysctls") or {}).items()):
        _sysctl(name, value)


def _make_for_users(request: dict, recorded: tuple[int, int]) -> int:
    """The same for a pod with users of its own: its namespaces belong to its user namespace, so a child makes them."""
    directory = request["dir"]
    holder, hold = users.make(request["user_base"])
    try:
        _keep(f"/proc/{holder}/ns/user", f"{directory}/user")
    finally:
        users.release(holder, hold)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            fd = os.open(f"{directory}/user", os.O_RDONLY | os.O_CLOEXEC)
            users.enter(fd)
            _namespaces(request)
            pid = _first_process(recorded) if "pid" in request["own"] else 0
            theirs.send(json.dumps({"pid": pid}).encode())
            theirs.recv(1)  # until they are kept
        except (OSError, ValueError) as error:
            theirs.send(json.dumps({"error": starter.describe(error)}).encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        answer = json.loads(ours.recv(65536) or b'{"error": "the sandbox could not be made"}')
        if "error" in answer:
            os.waitpid(child, 0)
            raise ValueError(answer["error"])
        for name in _KINDS:
            if name in request["own"]:
                _keep(f"/proc/{child}/ns/{name}", f"{directory}/{name}")
        if answer["pid"]:
            _keep(f"/proc/{answer['pid']}/ns/pid", f"{directory}/pid")
        ours.send(b"x")
    os.waitpid(child, 0)
    return answer["pid"]


_KINDS = {"net": syscalls.CLONE_NEWNET, "ipc": syscalls.CLONE_NEWIPC, "uts": syscalls.CLONE_NEWUTS}


def _keep(source: str, target: str) -> None:
    """A namespace lives as long as a file it is mounted on."""
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    syscalls.mount(source, target, None, syscalls.MS_BIND)


def _shared_memory(directory: str, owner: int) -> None:
    """/dev/shm belongs to the pod, like its IPC namespace."""
    os.makedirs(directory, exist_ok=True)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("shm", directory, "tmpfs", flags, f"mode=1777,size=65536k,uid={owner},gid={owner}")


def loopback_up() -> None:
    """Bring up `lo` in the current network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        current = struct.unpack("16sH14s", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", current | _IFF_UP, b""))


def _open_to_all(in_user_namespace: bool) -> None:
    """Ports below 1024 and ping need no privilege inside a pod, as with containerd; older kernels go without."""
    settings = {"ip_unprivileged_port_start": "0"}
    if not in_user_namespace:  # the group range names groups that do not exist there
        settings["ping_group_range"] = "0 2147483647"
    for name, value in settings.items():
        try:
            syscalls.write_file(f"/proc/sys/net/ipv4/{name}", value)
        except OSError:
            pass


def _sysctl(name: str, value: str) -> None:
    """Both "net.ipv4.x" and "net/ipv4/x" name a setting. API reference, Sysctl."""
    path = name if "/" in name else name.replace(".", "/")
    if ".." in path.split("/"):
        raise ValueError(f'sysctl "{name}" is not a valid name')
    try:
        syscalls.write_file(f"/proc/sys/{path}", value)
    except OSError as error:
        raise OSError(error.errno, f'cannot set sysctl "{name}" to "{value}": {error.strerror}') from None


def _first_process(recorded: tuple[int, int]) -> int:
    """Process 1 of a shared PID namespace: it only reaps. Should we be killed before it is on disk, it ends as well."""
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        os.close(recorded[1])
        if not os.read(recorded[0], 1):
            os._exit(0)
        os.closerange(0, 4096)
        syscalls.set_name("pause")
        syscalls.set_title("/pause")
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            signal.pause()
    return pid
