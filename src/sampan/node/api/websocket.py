"""WebSocket for the kubelet's streams (RFC 6455): the handshake is ours, the framing wsproto's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from sampan.base.clock import Clock
from sampan.client.messages import RawStream, Response

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_BASE64 = "base64.binary.k8s.io"
_GOODBYE = 1.0  # seconds that a client has to answer our close; some wait for the connection to end instead
_ONE_WAY = ("binary.k8s.io", _BASE64)  # of what is only read: bytes as they are, or as text


def is_websocket(headers: Mapping[str, str]) -> bool:
    return headers.get("upgrade", "").lower() == "websocket"


def handshake(headers: Mapping[str, str], protocols: Sequence[str]) -> tuple[str, dict[str, str]] | None:
    """(chosen subprotocol, headers of the 101 answer); None when the client offers only unknown ones or is no client.

    `protocols` are in order of our preference; a client that offers nothing gets "".
    """
    key = headers.get("sec-websocket-key", "")
    offered = [p.strip() for p in headers.get("sec-websocket-protocol", "").split(",") if p.strip()]
    chosen = next((p for p in protocols if p in offered), "")
    if not key or (offered and not chosen):
        return None
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
    answer = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": accept}
    if chosen:
        answer["sec-websocket-protocol"] = chosen
    return chosen, answer


def one_way(headers: Mapping[str, str], chunks: AsyncIterator[bytes], clock: Clock) -> Response | None:
    """An answer that sends `chunks` as messages and closes; None when the client offers only unknown subprotocols."""
    found = handshake(headers, _ONE_WAY)
    if found is None:
        return None
    protocol, head = found

    async def send(socket: WebSocket) -> None:
        async for chunk in chunks:
            if protocol == _BASE64:
                await socket.send_text(base64.b64encode(chunk).decode())
            else:
                await socket.send(chunk)

    async def upgrade(stream: RawStream) -> None:
        socket = WebSocket(stream, protocol, clock)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(send(socket)), loop.create_task(socket.drain())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await socket.close()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return Response(101, head, upgrade=upgrade)


class WebSocket:
    """The server's side of a connection after its handshake; messages are bytes."""

    def __init__(self, stream: RawStream, subprotocol: str, clock: Clock) -> None:
        self.subprotocol = subprotocol
        self._clock = clock
        self._stream = stream
        self._connection = Connection(ConnectionType.SERVER)
        self._partial = bytearray()
        self._closed = False
        self._ready: list[bytes] = []
        self._writing = asyncio.Lock()
        self._reading = asyncio.Lock()

    async def receive(self) -> bytes | None:
        """The next whole message; None when the other side has closed or gone."""
        async with self._reading:
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

    async def send_text(self, data: str) -> None:
        """One text message. Raises OSError when the other side is gone."""
        if self._closed:
            raise ConnectionResetError("the WebSocket is closed")
        await self._write(self._connection.send(TextMessage(data)))

    async def drain(self) -> None:
        """Read what nobody wants to know until the other side has closed or gone."""
        while await self.receive() is not None:
            pass

    async def _write(self, data: bytes) -> None:
        async with self._writing:
            await self._stream.write(data)

    async def close(self, code: int = 1000) -> None:
        """Say goodbye and wait a moment for the answer: an end with bytes unread would cost the client our last ones."""
        if self._closed:
            return
        with contextlib.suppress(OSError, LocalProtocolError):  # TimeoutError is an OSError
            await self._write(self._connection.send(CloseConnection(code)))
            async with self._clock.timeout(_GOODBYE):
                await self.drain()
