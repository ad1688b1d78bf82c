"""One container's keeper: starts its first process, carries its output, records how it ended.

A shim is forked from the zygote and outlives it and the agent; when the shim itself is killed its container dies with it
(PDEATHSIG). What it writes under the container's directory is the truth a restarted agent reads:
config.json (the request and who we are), state.json (pids and times, once it runs), exit.json (when all is over).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import time

from sampan.node.native import cgroups, process, rootfs, syscalls, terminal, users
from sampan.node.native.logs import LogWriter
from sampan.node.native.stdio import STDERR, STDOUT, Streams

_START_ERROR = 128  # the exit code of a container whose command never ran
BOOT_ID = ""


def prepare() -> None:
    """Read once, in the zygote, what each shim needs."""
    global BOOT_ID
    with open("/proc/sys/kernel/random/boot_id") as file:
        BOOT_ID = file.read().strip()
    process.prepare()
    cgroups.layout()
    syscalls.in_user_namespace()
    syscalls.mapped_ids()


def serve(connection: socket.socket, spec: dict) -> None:
    """Live one container's life; `spec` is made by NativeRuntime._spec(). Never returns."""
    if _hung_up(connection):
        os._exit(0)  # the agent died with its wish; the next one would not know of what we start
    os.setsid()
    syscalls.set_name("sampan-shim")
    directory = spec["dir"]
    os.makedirs(directory, mode=0o700, exist_ok=True)
    state = {
        "shim": os.getpid(),
        "shim_start": syscalls.start_ticks(os.getpid()),
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
        locks = hold_layers(spec["layers"])
        child = _Child(spec)
        child.start(program)
    except (OSError, ValueError, process.StartError) as error:
        message = describe(error)
        _finish(spec, _START_ERROR, 0, "StartError", message)
        reply(connection, {**state, "error": message})
        os._exit(0)
    state |= {"pid": child.pid, "pid_start": syscalls.start_ticks(child.pid), "started_at": time.time()}
    syscalls.write_atomic(f"{directory}/state.json", json.dumps(state).encode())
    listener = _listen(directory)
    reply(connection, state)
    connection.close()
    spec["env"] = locks  # the shim lives long: let the largest part go, keep the layers
    child.carry(spec, listener)
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    killed = bool(spec.get("cgroup")) and cgroups.oom_kills(spec["cgroup"]) > 0
    reason = "OOMKilled" if killed and code != 0 else "Completed" if code == 0 else "Error"
    _finish(spec, code if code >= 0 else 128 - code, -code if code < 0 else 0, reason, "", child.pid)
    os._exit(0)


def _hung_up(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def describe(error: BaseException) -> str:
    """A sentence for the user from what went wrong."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror.lower()}"
    return str(error)


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


def _finish(spec: dict, code: int, signal_number: int, reason: str, message: str, group: int = 0) -> None:
    """Clean the control group, then say how it ended: when exit.json is there, nothing of the container runs."""
    if spec.get("cgroup"):
        if spec["pid"] != "own":
            cgroups.kill(spec["cgroup"])
        cgroups.remove(spec["cgroup"])
    elif spec["pid"] != "own" and group:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            pass
    record = {
        "code": code,
        "signal": signal_number,
        "reason": reason,
        "message": message,
        "finished_at": time.time(),
    }
    syscalls.write_atomic(f"{spec['dir']}/exit.json", json.dumps(record).encode())


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
        self.outputs: dict[int, int] = {}
        self.stdin = -1
        self.master = -1

    def start(self, program: bytes) -> None:
        """Fork it, put it in its control group, let it go on, and wait until its execve has succeeded."""
        spec = self.spec
        join(spec)
        go_read, go_write = os.pipe()
        error_read, error_write = os.pipe()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inside, stdio = self._pipes()
        self.pid = os.fork()
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
                self.master = self.stdin = fds[0]
                self.outputs = {self.master: STDOUT}
        ours.close()
        message = os.read(error_read, 65536).decode(errors="replace")
        os.close(error_read)
        if message or problem is not None:
            os.waitpid(self.pid, 0)
            raise process.StartError(message) if message else problem  # type: ignore[misc]

    def _record_and_limit(self) -> list[str]:
        """While it builds its root: put the request on disk and make its control group; returns what it is to enter."""
        spec = self.spec
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
        self.outputs = {out_read: STDOUT, error_read: STDERR}
        inside = [null, out_write, error_write]
        source = null
        if self.spec.get("stdin"):
            source, self.stdin = os.pipe()
            inside.append(source)
        return inside, (source, out_write, error_write)

    def carry(self, spec: dict, listener: socket.socket) -> None:
        """Carry its streams until it ends."""
        pidfd = os.pidfd_open(self.pid)
        once = bool(spec.get("stdin_once"))
        log = LogWriter(spec.get("log") or "")
        Streams(log, self.outputs, self.stdin, self.master, listener, once).run(pidfd)


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
        os.write(errors, describe(error).encode()[:65000] or b"unknown error")
    finally:
        os._exit(127)


def close_above(lowest: int, kept: int) -> None:
    """Close every descriptor above `lowest` but `kept`, which closes itself at execve."""
    os.set_inheritable(kept, False)
    os.closerange(lowest + 1, kept)
    os.closerange(kept + 1, 4096)
