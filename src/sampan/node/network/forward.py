"""The way out and in for an ordinary user's cluster: a process outside opens sockets, the cluster inside gets them.

A socket belongs to the network namespace it was opened in, wherever its descriptor goes. So the gateway only opens:
connections (still connecting when they are handed over), UDP sockets, listeners on 127.0.0.1. It never waits, and
bytes never pass through it. One JSON datagram a request and a reply, descriptors by SCM_RIGHTS. The inner side is `gateway`.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import socket
from typing import Any

LONGEST = 4096


def run_gateway(channel: socket.socket) -> None:
    """Serves requests on a SEQPACKET socket until its other end is closed. Runs outside, forked by the supervisor."""
    channel.setblocking(True)
    while True:
        try:
            data = channel.recv(LONGEST)
        except InterruptedError:
            continue
        except OSError:
            return
        if not data:
            return
        request = json.loads(data)
        reply: dict[str, Any] = {"id": request["id"]}
        opened: socket.socket | None = None
        try:
            opened = _open(request)
        except (OSError, ValueError, KeyError) as error:
            reply["errno"] = getattr(error, "errno", None) or errno.EINVAL
        try:
            rights = (
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [opened.fileno()]))]
                if opened
                else []
            )
            channel.sendmsg([json.dumps(reply).encode()], rights)
        except OSError:
            return
        finally:
            if opened:
                opened.close()


def _open(request: dict[str, Any]) -> socket.socket:
    address, port, what = request["address"], request["port"], request["op"]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM if what == "udp" else socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        if what == "listen":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address, port))
            opened.listen(1024)
        else:
            with contextlib.suppress(BlockingIOError):
                opened.connect((address, port))
        return opened
    except BaseException:
        opened.close()
        raise
