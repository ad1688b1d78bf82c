"""The five channels of a remote command, over WebSocket (v5, v4, as text, or older) or SPDY/3.1 (v4): one interface.

Source: the remotecommand protocol of Kubernetes (KEP-4006): 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping
from typing import Protocol

from sampan.client.messages import RawStream
from sampan.node.api.spdy import SpdySession, SpdyStream
from sampan.node.api.websocket import WebSocket

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
WEBSOCKET = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
)
SPDY = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_CLOSE = 255
_INVALID = 1007  # RFC 6455, 7.4.1: data that is not of the message's type
_KINDS = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}


class Channels(Protocol):
    """`receive` gives (channel, data); data None: the client closed the channel; (-1, None): it is gone."""

    structured: bool  # the error channel carries a Status (v4 and later)

    async def receive(self) -> tuple[int, bytes | None]: ...

    async def send(self, channel: int, data: bytes) -> None: ...

    async def close(self) -> None: ...


class WebSocketChannels:
    """Each message begins with the channel's number; in those of text that is a digit, and the rest is base64."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._text = "base64." in socket.subprotocol
        self.structured = socket.subprotocol.startswith(("v4.", "v5."))

    async def receive(self) -> tuple[int, bytes | None]:
        """(channel, data): data None closes that channel, channel -1 means all. Text frames carry base64."""
        while True:
            message = await self._socket.receive()
            if message is None:
                return -1, None
            if not message:
                continue
            if self._text:
                try:
                    message = bytes((int(message[:1]),)) + base64.b64decode(message[1:], validate=True)
                except ValueError:
                    await self._socket.close(_INVALID)
                    return -1, None
            if message[0] == _CLOSE and self._socket.subprotocol.startswith("v5."):
                return (message[1] if len(message) > 1 else -1), None
            return message[0], message[1:]

    async def send(self, channel: int, data: bytes) -> None:
        if self._text:
            await self._socket.send_text(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send(bytes((channel,)) + data)

    async def close(self) -> None:
        await self._socket.close()


class SpdyChannels:
    """A stream a channel, told apart by their `streamtype` header."""

    def __init__(self, stream: RawStream, expected: set[int], protocol: str) -> None:
        self.structured = protocol.startswith("v4.")
        self._incoming: asyncio.Queue[tuple[int, bytes | None]] = asyncio.Queue()
        self._streams: dict[int, SpdyStream] = {}
        self._expected = expected
        self._complete = asyncio.Event()
        self._session = SpdySession(stream, self._opened)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def opened(self) -> None:
        """Returns when the client has opened all the streams that were asked for."""
        await self._complete.wait()

    async def _run(self) -> None:
        with contextlib.suppress(OSError):
            await self._session.run()
        self._complete.set()
        self._incoming.put_nowait((-1, None))

    async def _opened(self, stream: SpdyStream) -> None:
        channel = _KINDS.get(stream.headers.get("streamtype", ""), -1)
        self._streams[channel] = stream
        if self._expected <= set(self._streams):
            self._complete.set()
        if channel in (STDIN, RESIZE):
            while data := await stream.read():
                self._incoming.put_nowait((channel, data))
            self._incoming.put_nowait((channel, None))

    async def receive(self) -> tuple[int, bytes | None]:
        return await self._incoming.get()

    async def send(self, channel: int, data: bytes) -> None:
        stream = self._streams.get(channel)
        if stream and data:
            await stream.write(data)

    async def close(self) -> None:
        with contextlib.suppress(OSError):
            for channel in (STDOUT, STDERR, ERROR):
                if channel in self._streams:
                    await self._streams[channel].close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def is_spdy(headers: Mapping[str, str]) -> bool:
    return headers.get("upgrade", "").upper() == "SPDY/3.1"


def spdy_head(headers: Mapping[str, str], known: tuple[str, ...]) -> dict[str, str]:
    """Headers of the 101 answer, with the first protocol of ours that the client offers."""
    offered = [p.strip() for p in headers.get("x-stream-protocol-version", "").split(",") if p.strip()]
    chosen = next((p for p in known if p in offered), "")
    head = {"connection": "Upgrade", "upgrade": "SPDY/3.1"}
    return head | ({"x-stream-protocol-version": chosen} if chosen else {})
