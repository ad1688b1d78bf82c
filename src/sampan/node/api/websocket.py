"""WebSocket for the kubelet's streams (RFC 6455), by wsproto over an upgraded connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from sampan.node.api.http import HttpRequest, Stream


def is_websocket(request: HttpRequest) -> bool:
    return request.headers.get("upgrade", "").lower() == "websocket"


class WebSocket:
    """One side of an accepted connection; messages are bytes."""

    def __init__(self, stream: Stream, connection: WSConnection, subprotocol: str) -> None:
        self.subprotocol = subprotocol
        self._stream = stream
        self._connection = connection
        self._partial = bytearray()
        self._closed = False
        self._ready: list[bytes] = []
        self._writing = asyncio.Lock()

    async def receive(self) -> bytes | None:
        """The next whole message; None when the other side has closed or gone."""
        while not self._ready:
            if self._closed:
                return None
            data = await self._stream.read()
            try:
                self._connection.receive_data(data or None)
                await self._events()
            except (RemoteProtocolError, LocalProtocolError, OSError):
                self._closed = True
        return self._ready.pop(0)

    async def _events(self) -> None:
        for event in self._connection.events():
            if isinstance(event, BytesMessage | TextMessage):
                piece = event.data if isinstance(event.data, bytes | bytearray) else event.data.encode()
                self._partial += piece
                if event.message_finished:
                    self._ready.append(bytes(self._partial))
                    self._partial.clear()
            elif isinstance(event, Ping):
                await self._write(self._connection.send(event.response()))
            elif isinstance(event, CloseConnection):
                self._closed = True
                with contextlib.suppress(LocalProtocolError):
                    await self._write(self._connection.send(event.response()))

    async def send(self, data: bytes) -> None:
        """One binary message. Raises OSError when the other side is gone."""
        if self._closed:
            raise ConnectionResetError("the WebSocket is closed")
        try:
            await self._write(self._connection.send(BytesMessage(data)))
        except LocalProtocolError as error:
            raise ConnectionResetError("the WebSocket is closed") from error

    async def _write(self, data: bytes) -> None:
        async with self._writing:
            await self._stream.write(data)

    async def close(self, code: int = 1000) -> None:
        """Say goodbye and wait for the answer."""
        if self._closed:
            return
        with contextlib.suppress(OSError, LocalProtocolError):
            await self._write(self._connection.send(CloseConnection(code)))
            while await self.receive() is not None:
                pass


async def accept(request: HttpRequest, stream: Stream, protocols: Sequence[str]) -> WebSocket | None:
    """Complete the handshake with the first of `protocols` that the client offers.

    A client that offers none of them is refused (400, as the original does); one that offers nothing gets "".
    """
    connection = WSConnection(ConnectionType.SERVER)
    headers = [(k.encode(), v.encode()) for k, v in request.headers.items()]
    try:
        connection.initiate_upgrade_connection(headers, request.path)
        event = next(iter(connection.events()))
    except (RemoteProtocolError, StopIteration):
        await stream.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return None
    assert isinstance(event, Request)
    offered = event.subprotocols
    chosen = next((p for p in protocols if p in offered), "")
    if offered and not chosen:
        await stream.write(connection.send(RejectConnection(status_code=400)))
        return None
    await stream.write(connection.send(AcceptConnection(subprotocol=chosen or None)))
    return WebSocket(stream, connection, chosen)
