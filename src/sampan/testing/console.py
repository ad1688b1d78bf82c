"""What a person does at a terminal, for tests: read a container's log, run a command in it. No sockets are involved."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection

from sampan.api.status import ApiError
from sampan.client.client import read_body
from sampan.client.messages import Request, Response, Transport, User

_STDOUT, _STDERR, _ERROR = 1, 2, 3  # channels of v5.channel.k8s.io
_UPGRADE = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "c2FtcGFuIGluIGEgdGVzdA==",
    "sec-websocket-protocol": "v5.channel.k8s.io",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


async def read_logs(handle: Transport, user: User, path: str, query: Mapping[str, str]) -> str:
    """The log at a pod's `path`. Raises ApiError."""
    response = await handle(Request("GET", f"{path}/log", urlencode(query), {}, user=user))
    body = await read_body(response)
    _refused(response, body)
    return body.decode()


async def run(
    handle: Transport, user: User, path: str, command: Sequence[str], container: str = ""
) -> Finished:
    """Run `command` in a container of the pod at `path`. Raises ApiError, also when it cannot be started."""
    words = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "true")]
    query = urlencode(words + ([("container", container)] if container else []))
    response = await handle(Request("GET", f"{path}/exec", query, _UPGRADE, user=user))
    if response.upgrade is None:
        body = await read_body(response)
        _refused(response, body)
        raise ApiError(500, "InternalError", body.decode())
    wire = _Wire()
    task = asyncio.ensure_future(response.upgrade(wire))
    try:
        channels = await _collect(wire)
    finally:
        wire.hang_up()
        await task
    return _finished(channels)


class _Wire:
    """An upgraded connection in memory: the server reads and writes here, the caller's end are `sent` and `received`."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self.sent.get()

    async def write(self, data: bytes) -> None:
        self.received.put_nowait(data)

    def close(self) -> None:
        self.received.put_nowait(b"")

    def hang_up(self) -> None:
        self.sent.put_nowait(b"")


async def _collect(wire: _Wire) -> dict[int, bytes]:
    """Everything the channels say until the server closes them."""
    protocol, channels = Connection(ConnectionType.CLIENT), dict[int, bytes]()
    partial = b""
    while data := await wire.received.get():
        protocol.receive_data(data)
        for event in protocol.events():
            if isinstance(event, BytesMessage):
                partial += bytes(event.data)
                if event.message_finished and partial:
                    channels[partial[0]] = channels.get(partial[0], b"") + partial[1:]
                    partial = b""
            elif isinstance(event, CloseConnection):
                wire.sent.put_nowait(protocol.send(event.response()))
                return channels
    return channels


def _finished(channels: Mapping[int, bytes]) -> Finished:
    status: dict[str, Any] = orjson.loads(channels.get(_ERROR) or b"{}")
    code = 0
    if status.get("status") != "Success":
        causes = status.get("details", {}).get("causes") or []
        codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
        if not codes:
            raise ApiError.from_status(status)
        code = int(codes[0])
    return Finished(code, channels.get(_STDOUT, b"").decode(), channels.get(_STDERR, b"").decode())


def _refused(response: Response, body: bytes) -> None:
    if response.status >= 400:
        raise ApiError.from_status(orjson.loads(body))
