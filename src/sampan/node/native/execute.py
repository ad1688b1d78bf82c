"""Running one more process in a container (`kubectl exec`, exec probes, hooks), and sockets inside a sandbox.

The helper is forked from the zygote, enters the container through a pidfd, forks the command, hands its streams to the
agent as descriptors and stays only to report the exit code; the agent carries the bytes itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket

from sampan.node.native import cgroups, process, syscalls, terminal, users
from sampan.node.native.starter import close_above, describe

_ALL = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)


def serve(connection: socket.socket, request: dict) -> None:
    """`request`: pid, pid_start, spec (as in config.json), procs, args, tty, stdin. Never returns.

    Sends {"pid"} with the descriptors (terminal, or stdin stdout stderr), later {"code"}; or {"error"}.
    """
    os.setsid()
    syscalls.set_name("sampan-exec")
    try:
        pid, given = _start(request)
    except (OSError, ValueError, process.StartError) as error:
        with contextlib.suppress(OSError):  # who asked may have ended meanwhile
            connection.send(json.dumps({"error": describe(error)}).encode())
        os._exit(0)
    try:
        socket.send_fds(connection, [json.dumps({"pid": pid}).encode()], given)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
    for fd in given:
        os.close(fd)
    code = _wait(pid, connection)
    try:
        connection.send(json.dumps({"code": code if code >= 0 else 128 - code}).encode())
    except OSError:
        pass
    os._exit(0)


def _start(request: dict) -> tuple[int, list[int]]:
    spec = {**request["spec"], "tty": request.get("tty")}
    program = process.program_for(spec)
    groups = [
        os.open(cgroups.entrance(path), os.O_WRONLY | os.O_CLOEXEC) for path in request.get("procs") or ()
    ]
    try:
        pidfd = os.pidfd_open(request["pid"])
        if syscalls.start_ticks(request["pid"]) != request["pid_start"]:
            raise ProcessLookupError
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.setns(pidfd, _ALL)
    except ProcessLookupError:
        raise ProcessLookupError(errno.ESRCH, "container is not running") from None
    if spec.get("user"):
        users.enter(pidfd)
    error_read, error_write = os.pipe()
    stdio, given = _streams(request)
    child = os.fork()
    if child == 0:
        _become(spec, request, program, groups, error_write, stdio)
    for fd in {error_write, *groups, *stdio}:
        os.close(fd)
    message = os.read(error_read, 65536)
    os.close(error_read)
    if message:
        os.waitpid(child, 0)
        raise process.StartError(message.decode(errors="replace"))
    return child, given


def _streams(request: dict) -> tuple[tuple[int, ...], list[int]]:
    """(for the child, for the agent)."""
    if request.get("tty"):
        master, slave = terminal.open_pair()
        return (slave,), [master]
    if request.get("stdin"):
        in_read, in_write = os.pipe()
    else:
        in_read, in_write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    out_read, out_write = os.pipe()
    error_read, error_write = os.pipe()
    given = [out_read, error_read] + ([in_write] if in_write >= 0 else [])
    return (in_read, out_write, error_write), given


def _become(
    spec: dict, request: dict, program: bytes, groups: list[int], errors: int, stdio: tuple[int, ...]
) -> None:
    """In the child: never returns."""
    try:
        for fd in groups:
            os.write(fd, b"0")
        os.setsid()
        if len(stdio) == 1:
            os.fchown(stdio[0], spec.get("uid") or 0, -1)
            terminal.take(stdio[0])
        else:
            process.own_pipes(stdio, spec.get("uid") or 0)
            for number, fd in enumerate(stdio):
                os.dup2(fd, number)
        process.default_signals()
        close_above(2, errors)
        process.run(spec, list(request["args"]), program, die_with_parent=False)
    except BaseException as error:
        os.write(errors, describe(error).encode()[:65000] or b"unknown error")
    finally:
        os._exit(127)


def _wait(pid: int, connection: socket.socket) -> int:
    """The exit status; a packet from the agent means: kill it."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(connection.fileno(), select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if pidfd in ready:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if connection.fileno() in ready:
            try:
                packet = connection.recv(16)
            except OSError:
                packet = b""
            if packet:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            else:
                poll.unregister(connection.fileno())


def dial(connection: socket.socket, request: dict) -> None:
    """Give the agent two unconnected TCP sockets (IPv4, IPv6) that belong to the sandbox's network."""
    if request.get("net"):
        syscalls.enter(request["net"], syscalls.CLONE_NEWNET)
    made = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            made.append(socket.socket(family, socket.SOCK_STREAM))
        except OSError:
            break
    socket.send_fds(connection, [b"{}"], [one.fileno() for one in made])
    os._exit(0)
