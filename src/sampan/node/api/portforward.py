"""port-forward: bytes between a client's streams and TCP connections inside a pod.

Three ways in: SPDY/3.1 over an upgrade, the same tunnelled in a WebSocket (kubectl since 1.30, KEP-4006), and the
WebSocket channels of `portforward.k8s.io`, where each port has a data and an error channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from sampan.base.clock import Clock
from sampan.client.messages import RawStream, Response
from sampan.node.api.channels import Channels, WebSocketChannels, is_spdy, spdy_head
from sampan.node.api.query import Query, text
from sampan.node.api.spdy import SpdySession, SpdyStream
from sampan.node.api.websocket import WebSocket, handshake, is_websocket
from sampan.node.runtime import RuntimeFailure

Dial = Callable[[int], Awaitable[socket.socket]]  # port -> connected socket
_TUNNEL = "SPDY/3.1+portforward.k8s.io"
_PLAIN = ("portforward.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io", "v4.base64.channel.k8s.io")


def serve(query: Query, dial: Dial, pod: str, clock: Clock) -> Response:
    """`pod` is the name used in error texts."""
    if is_websocket(query.headers):
        found = handshake(query.headers, (_TUNNEL, *_PLAIN))
        if found is None:
            return text(400, "no subprotocol of the client is supported\n")
        protocol, head = found
        values = query.values.get("ports", []) + query.values.get("port", [])
        ports = [int(p) for value in values for p in value.split(",")]

        async def websocket(stream: RawStream) -> None:
            socket = WebSocket(stream, protocol, clock)
            if protocol == _TUNNEL:
                await _Forwarder(_Tunnel(socket), dial, pod).run()
            else:
                await _channels(WebSocketChannels(socket), ports, dial, pod)

        return Response(101, head, upgrade=websocket)
    if is_spdy(query.headers):

        async def spdy(stream: RawStream) -> None:
            await _Forwarder(stream, dial, pod).run()

        return Response(101, spdy_head(query.headers, ("portforward.k8s.io",)), upgrade=spdy)
    return text(400, "Upgrade request required\n")


class _Tunnel:
    """SPDY's bytes as binary messages."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while (data := await self._socket.receive()) is not None:
            if data:
                return data
        return b""

    async def write(self, data: bytes) -> None:
        await self._socket.send(data)


class _Forwarder:
    """Pairs each connection's error and data streams by their request id."""

    def __init__(self, transport: Any, dial: Dial, pod: str) -> None:
        self._session = SpdySession(transport, self._opened)
        self._errors: dict[str, asyncio.Future[SpdyStream]] = {}
        self._dial = dial
        self._pod = pod

    async def run(self) -> None:
        with contextlib.suppress(OSError):
            await self._session.run()

    def _error_stream(self, request_id: str) -> asyncio.Future[SpdyStream]:
        return self._errors.setdefault(request_id, asyncio.get_running_loop().create_future())

    async def _opened(self, stream: SpdyStream) -> None:
        request_id = stream.headers.get("requestid", "")
        if stream.headers.get("streamtype") == "error":
            self._error_stream(request_id).set_result(stream)
            return
        errors = await self._error_stream(request_id)
        port = int(stream.headers.get("port", "0"))
        problem = await _forward(port, stream.read, stream.write, self._dial, self._pod)
        if problem:
            await errors.write(problem.encode())
        await stream.close()
        await errors.close()
        self._errors.pop(request_id, None)


async def _forward(
    port: int,
    read: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], Awaitable[None]],
    dial: Dial,
    pod: str,
) -> str:
    """Copies both ways until both ends are done. Returns what went wrong, "" for nothing."""
    try:
        sock = await dial(port)
    except (OSError, RuntimeFailure) as error:
        number = getattr(error, "errno", None)
        cause = (
            f"dial tcp4 127.0.0.1:{port}: connect: {os.strerror(number).lower()}" if number else str(error)
        )
        return f"failed to connect to localhost:{port} inside pod {pod}: {cause}"
    reader, writer = await asyncio.open_connection(sock=sock)

    async def inward() -> None:
        while data := await read():
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    task = asyncio.get_running_loop().create_task(inward())
    try:
        while data := await reader.read(65536):
            await write(data)
    except OSError as error:
        return f"error forwarding port {port} to pod {pod}: {error}"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.close()
    return ""


async def _channels(channels: Channels, ports: list[int], dial: Dial, pod: str) -> None:
    """Channel 2i carries the i-th port's data, 2i+1 its errors; each begins with the port as two bytes."""
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in ports]
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await channels.send(channel, struct.pack("<H", port))

    async def one(index: int, port: int) -> None:
        async def write(data: bytes) -> None:
            await channels.send(2 * index, data)

        problem = await _forward(port, queues[index].get, write, dial, pod)
        if problem:
            await channels.send(2 * index + 1, problem.encode())

    async def inward() -> None:
        while (received := await channels.receive())[0] >= 0:
            channel, data = received
            if data != b"" and channel % 2 == 0 and channel // 2 < len(queues):
                queues[channel // 2].put_nowait(data or b"")  # None: the client has no more to send
        for queue in queues:
            queue.put_nowait(b"")

    loop = asyncio.get_running_loop()
    forwards = [loop.create_task(one(i, p)) for i, p in enumerate(ports)]
    reading = loop.create_task(inward())
    try:
        await asyncio.gather(*forwards)
        await channels.close()
    except OSError:
        pass
    finally:
        for task in (*forwards, reading):
            task.cancel()
        await asyncio.gather(*forwards, reading, return_exceptions=True)
