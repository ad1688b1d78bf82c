"""How a container starts: a child of its shim that builds it, starts its first process, and hands over what is to be kept.

The first process is made the shim's child, not ours (CLONE_PARENT), so that it may outlive us and die with the shim.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass

from sampan.node.native import cgroups, process, rootfs, syscalls, terminal, users
from sampan.node.native.ending import finish
from sampan.node.native.logs import open_log

_START_ERROR = 128  # the exit code of a container whose command never ran
_MOST_LAYERS = 240  # descriptors go to the shim in one message (SCM_MAX_FD is 253)
_OF_VOLUME = "\0"  # begins the message of a container that could not be created, for what a volume lacks
BOOT_ID = ""
INPUT, OUTPUT, ERRORS, TERMINAL, LISTENER, LOCK = "i", "o", "e", "t", "l", "k"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a shim needs of its container; `kinds` says, a letter each, what the descriptors are that come with it."""

    directory: str
    log: str
    group: str  # "" without control groups
    own_processes: bool  # a PID namespace of its own
    stdin_once: bool
    pid: int
    kinds: str

    def encode(self) -> bytes:
        flags = f"{self.own_processes:d}{self.stdin_once:d}"
        words = (self.directory, self.log, self.group, flags, str(self.pid), self.kinds)
        return b"\0".join(map(os.fsencode, words))

    @classmethod
    def decode(cls, data: bytes) -> Kept:
        directory, log, group, flags, pid, kinds = map(os.fsdecode, data.split(b"\0"))
        return cls(directory, log, group, flags[0] == "1", flags[1] == "1", int(pid), kinds)


def prepare() -> None:
    """Read once, in the zygote, what each shim needs."""
    global BOOT_ID
    with open("/proc/sys/kernel/random/boot_id") as file:
        BOOT_ID = file.read().strip()
    process.prepare()
    cgroups.layout()
    syscalls.in_user_namespace()
    syscalls.mapped_ids()


def serve(connection: socket.socket, request: int, shim: socket.socket) -> None:
    """Start the container of a request for the shim that is our parent, and answer the agent. Never returns."""
    spec = read_request(request)
    parent = os.getppid()
    directory = spec["dir"]
    os.makedirs(directory, mode=0o700, exist_ok=True)
    state = {
        "shim": parent,
        "shim_start": syscalls.start_ticks(parent),
        "boot": BOOT_ID,
        "pid": 0,
        "pid_start": 0,
        "created_at": time.time(),
        "started_at": 0.0,
    }
    spec["state"] = state
    try:
        program = process.program_for(spec)
    except process.StartError as error:  # there is no container yet that could have failed
        reply(connection, {"error": str(error)})
        os._exit(0)
    try:
        locks = hold_layers(_all_layers(spec))
        child = _Child(spec)
        child.start(program)
    except rootfs.VolumeError as error:
        finish(directory, spec.get("cgroup") or "", spec["pid"] == "own", {"code": _START_ERROR})
        reply(connection, {"error": str(error)})
        os._exit(0)
    except (OSError, ValueError, process.StartError) as error:
        message = describe(error)
        end = {"code": _START_ERROR, "signal": 0, "reason": "StartError", "message": message}
        finish(directory, spec.get("cgroup") or "", spec["pid"] == "own", end)
        reply(connection, {**state, "error": message})
        os._exit(0)
    state |= {"pid": child.pid, "pid_start": syscalls.start_ticks(child.pid), "started_at": time.time()}
    syscalls.write_atomic(f"{directory}/state.json", json.dumps(state).encode())
    child.hand_over(shim, _listen(directory), locks)
    reply(connection, state)
    os._exit(0)


def read_request(file: int) -> dict:
    """The JSON of a request."""
    return json.loads(os.pread(file, os.fstat(file).st_size, 0))


def describe(error: BaseException) -> str:
    """A sentence for the user from what went wrong."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror.lower()}"
    return str(error)


def _all_layers(spec: dict) -> list[str]:
    """Of the container's image and of its image volumes, each once. Raises ValueError when they are too many to hold."""
    volumes = (layer for volume in spec["mounts"] for layer in volume.get("layers") or ())
    layers = list(dict.fromkeys([*spec["layers"], *volumes]))
    if len(layers) > _MOST_LAYERS:
        raise ValueError(
            f"{len(layers)} layers of images and image volumes: at most {_MOST_LAYERS} can be used"
        )
    return layers


def hold_layers(layers: list[str]) -> list[int]:
    """Shared locks, so that the image store does not remove a layer under a container; they end with this process."""
    held = []
    for layer in layers:
        fd = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_SH)
        held.append(fd)
    return held


def reply(connection: socket.socket, message: dict) -> None:
    """Answer the agent that asked."""
    try:
        connection.send(json.dumps(message).encode())
    except OSError:
        pass  # the agent was restarted meanwhile; it reads state.json


def _listen(directory: str) -> socket.socket:
    """The socket that attach and log rotation connect to; bound through a descriptor, since paths may be long."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{fd}/attach.sock")
        listener.listen(16)
    finally:
        os.close(fd)
    return listener


def join(spec: dict) -> None:
    """Enter the sandbox's namespaces; a PID namespace applies to the next fork."""
    for key, flag in (
        ("net", syscalls.CLONE_NEWNET),
        ("ipc", syscalls.CLONE_NEWIPC),
        ("uts", syscalls.CLONE_NEWUTS),
    ):
        if spec.get(key):
            syscalls.enter(spec[key], flag)
    if spec["pid"] == "own":
        syscalls.unshare(syscalls.CLONE_NEWPID)
    elif spec["pid"] != "host":
        syscalls.enter(spec["pid"], syscalls.CLONE_NEWPID)


class _Child:
    """The container's first process and our ends of its streams."""

    def __init__(self, spec: dict) -> None:
        self.spec = spec
        self.pid = 0
        self.streams: dict[str, int] = {}  # kind -> our end

    def start(self, program: bytes) -> None:
        """Fork it, put it in its control group, let it go on, and wait until its execve has succeeded."""
        spec = self.spec
        join(spec)
        go_read, go_write = os.pipe()
        error_read, error_write = os.pipe()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inside, stdio = self._pipes()
        self.pid = syscalls.fork_beside()
        if self.pid == 0:
            os.close(go_write)
            _first_process(spec, program, go_read, error_write, theirs, stdio)
        for fd in {go_read, error_write, *inside}:
            os.close(fd)
        theirs.close()
        problem: OSError | None = None
        try:
            os.write(go_write, b"\n".join([b"go", *map(os.fsencode, self._record_and_limit())]))
        except OSError as error:  # perhaps because it failed already: it says why below
            problem = error
        os.close(go_write)
        if spec.get("tty"):
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            if fds:
                self.streams = {TERMINAL: fds[0]}
        ours.close()
        message = os.read(error_read, 65536).decode(errors="replace")
        os.close(error_read)
        if message or problem is not None:
            _await_end(self.pid)
        if message.startswith(_OF_VOLUME):
            raise rootfs.VolumeError(message.removeprefix(_OF_VOLUME))
        if message:
            raise process.StartError(message)
        if problem is not None:
            raise problem

    def _record_and_limit(self) -> list[str]:
        """While it builds its root: put request and log on disk, make its control group; returns what it is to enter."""
        spec = self.spec
        if spec.get("log") and (log := open_log(spec["log"])) >= 0:
            os.close(log)  # made here, so that whoever hears that the container runs can follow its log
        syscalls.write_atomic(f"{spec['dir']}/config.json", json.dumps(spec).encode())
        limits = spec.get("limits") or {}
        groups = cgroups.create(spec["cgroup"], limits) if spec.get("cgroup") else []
        try:
            syscalls.write_file(f"/proc/{self.pid}/oom_score_adj", str(limits.get("oom_score_adj") or 0))
        except OSError:
            pass  # lowering it may be refused (no CAP_SYS_RESOURCE): then the container keeps ours
        return groups

    def _pipes(self) -> tuple[list[int], tuple[int, int, int]]:
        """(descriptors to close here, (stdin, stdout, stderr) for the child)."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if self.spec.get("tty"):
            return [null], (null, null, null)
        out_read, out_write = os.pipe()
        error_read, error_write = os.pipe()
        self.streams = {OUTPUT: out_read, ERRORS: error_read}
        inside = [null, out_write, error_write]
        source = null
        if self.spec.get("stdin"):
            source, self.streams[INPUT] = os.pipe()
            inside.append(source)
        process.own_pipes(inside, (self.spec.get("user_base") or 0) + (self.spec.get("uid") or 0))
        return inside, (source, out_write, error_write)

    def hand_over(self, shim: socket.socket, listener: socket.socket, locks: list[int]) -> None:
        """Give the shim what it keeps. Exits when it is no longer there: then nobody would keep the container."""
        spec = self.spec
        given = {**self.streams, LISTENER: listener.fileno()}
        kept = Kept(
            directory=spec["dir"],
            log=spec.get("log") or "",
            group=spec.get("cgroup") or "",
            own_processes=spec["pid"] == "own",
            stdin_once=bool(spec.get("stdin_once")),
            pid=self.pid,
            kinds="".join(given) + LOCK * len(locks),
        )
        try:
            socket.send_fds(shim, [kept.encode()], [*given.values(), *locks])
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
            os._exit(1)


def _await_end(pid: int) -> None:
    """Of a process that is the shim's to reap."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    os.close(pidfd)


def _first_process(
    spec: dict, program: bytes, go: int, errors: int, channel: socket.socket, stdio: tuple[int, int, int]
) -> None:
    """In the child: build the root, wait for the control group, become the workload. Never returns."""

    def joined() -> None:
        told = os.read(go, 65536)
        if not told:
            os._exit(127)
        cgroups.enter(map(os.fsdecode, told.split(b"\n")[1:]))
        if cgroups.version():
            syscalls.unshare(syscalls.CLONE_NEWCGROUP)

    try:
        os.setsid()
        syscalls.unshare(syscalls.CLONE_NEWNS)
        own_users = os.open(spec["user"], os.O_RDONLY | os.O_CLOEXEC) if spec.get("user") else -1
        rootfs.build(spec, joined, own_users)
        if own_users >= 0:
            users.enter(own_users)
            syscalls.unshare(syscalls.CLONE_NEWNS)  # mounts that the pod's root may add to, but not take away
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if spec.get("tty"):
            master, slave = terminal.open_pair()
            socket.send_fds(channel, [b"t"], [master])
            os.fchown(slave, spec.get("uid") or 0, -1)
            terminal.take(slave)
        else:
            for number, fd in enumerate(stdio):
                os.dup2(fd, number)
        process.default_signals()
        close_above(2, errors)
        process.run(spec, list(spec["args"]), program, die_with_parent=True)
    except BaseException as error:
        kind = _OF_VOLUME if isinstance(error, rootfs.VolumeError) else ""
        os.write(errors, f"{kind}{describe(error)}".encode()[:65000] or b"unknown error")
    finally:
        os._exit(127)


def close_above(lowest: int, kept: int) -> None:
    """Close every descriptor above `lowest` but `kept`, which closes itself at execve."""
    os.set_inheritable(kept, False)
    os.closerange(lowest + 1, kept)
    os.closerange(kept + 1, 4096)
