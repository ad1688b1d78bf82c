"""The process that forks: small, single-threaded, everything computed beforehand, its memory shared with all it makes.

It accepts a connection and forks at once, so a slow client or a failing request never stops it; the fork reads the
request (a memfd with JSON: environments can be larger than a packet) and becomes a shim, an exec helper or a sandbox.
"""

from __future__ import annotations

import array  # noqa: F401  (socket.send_fds imports it: have it before the fork)
import gc
import json
import os
import signal
import socket
import sys
import traceback

from sampan.node.native import execute, sandbox, shim, starter, syscalls

_HANDLERS = {
    "exec": execute.serve,
    "sandbox": sandbox.serve,
    "dial": execute.dial,
}


def listen(path: str) -> socket.socket:
    """The zygote's socket, for root alone."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        server.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)
        os.umask(before)
    server.listen(1024)
    return server


def serve(path: str) -> None:
    """Fork for ever. Our children reap themselves (SIGCHLD ignored); when we die they are process 1's."""
    syscalls.set_name("sampan-zygote")
    starter.prepare()
    server = listen(path)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            _handle(connection)
        connection.close()


def _handle(connection: socket.socket) -> None:
    """In the fork. Never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        op, fds, _, _ = socket.recv_fds(connection, 64, 4)
        if not fds:
            os._exit(0)
        if op == b"container":
            shim.serve(connection, fds[0])
        else:
            request = starter.read_request(fds[0])
            os.close(fds[0])
            _HANDLERS[op.decode()](connection, request)
    except BaseException:
        text = traceback.format_exc()
        try:
            connection.send(json.dumps({"error": f"internal: {text[-2000:]}"}).encode())
            os.write(2, text.encode(errors="replace"))
        except OSError:
            pass
    finally:
        os._exit(1)


if __name__ == "__main__":
    serve(sys.argv[1])
