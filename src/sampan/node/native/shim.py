"""One container's keeper: carries its output, records its end.

A shim is forked from the zygote and outlives it and the agent; when the shim itself is killed its container dies with it
(PDEATHSIG). It lives as long as its container, and the zygote's memory is shared only where nobody writes, which Python
does to all it looks at: so the work of starting is a child's (`starter`), which hands over what is to be kept and goes.

What both write under the container's directory is the truth a restarted agent reads: config.json (the request and who we
are), state.json (pids and times, once it runs), exit.json (when all is over).
"""

from __future__ import annotations

import os
import select
import signal
import socket

from sampan.node.native import cgroups, starter, syscalls
from sampan.node.native.ending import finish
from sampan.node.native.logs import LogWriter
from sampan.node.native.stdio import STDERR, STDOUT, Streams

_LONGEST = 16384
_MOST_DESCRIPTORS = 253  # in one message (SCM_MAX_FD)


def serve(connection: socket.socket, request: int) -> None:
    """Live one container's life; `request` is a file with what requests.container() made. Never returns."""
    if _hung_up(connection):
        os._exit(0)  # the agent died with its wish; the next one would not know of what we start
    os.setsid()
    syscalls.set_name("sampan-shim")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        ours.close()
        starter.serve(connection, request, theirs)
    theirs.close()
    connection.close()
    os.close(request)
    words, descriptors, _, _ = socket.recv_fds(ours, _LONGEST, _MOST_DESCRIPTORS)
    ours.close()
    _, status = os.waitpid(child, 0)
    if (
        status or not words
    ):  # it failed, which it has told, or was killed, and nobody knows of what it started
        _kill_children()
        os._exit(0)
    _keep(starter.Kept.decode(words), descriptors)
    os._exit(0)


def _hung_up(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _kill_children() -> None:
    own = os.getpid()
    with open(f"/proc/{own}/task/{own}/children") as file:
        for pid in map(int, file.read().split()):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _keep(kept: starter.Kept, descriptors: list[int]) -> None:
    """Carry the container's streams until it ends, and record how."""
    by_kind = dict(
        zip(kept.kinds, descriptors, strict=True)
    )  # of the layers' locks it is enough to have them
    terminal = by_kind.get(starter.TERMINAL, -1)
    outputs = {terminal: STDOUT} if terminal >= 0 else {}
    for kind, stream in ((starter.OUTPUT, STDOUT), (starter.ERRORS, STDERR)):
        if kind in by_kind:
            outputs[by_kind[kind]] = stream
    stdin = by_kind.get(starter.INPUT, terminal)
    listener = socket.socket(fileno=by_kind[starter.LISTENER])
    log = LogWriter(kept.log)
    Streams(log, outputs, stdin, terminal, listener, kept.stdin_once).run(os.pidfd_open(kept.pid))
    _, status = os.waitpid(kept.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    killed = bool(kept.group) and cgroups.oom_kills(kept.group) > 0
    end = {
        "code": code if code >= 0 else 128 - code,
        "signal": -code if code < 0 else 0,
        "reason": "OOMKilled" if killed and code != 0 else "Completed" if code == 0 else "Error",
        "message": "",
    }
    finish(kept.directory, kept.group, kept.own_processes, end, kept.pid)
