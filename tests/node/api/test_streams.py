"""exec, attach and port-forward as clients speak them: WebSocket v4 and v5, SPDY plain and tunnelled."""

from __future__ import annotations

import asyncio
import base64
import socket
import struct
import zlib

import orjson
import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from sampan.client.messages import Request
from sampan.node.api.spdy import DICTIONARY
from sampan.node.runtime import RuntimeFailure
from sampan.node.simulated import EchoExec

KEY = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}


class Raw:
    """Both ends of a connection in memory: the API has `server`, the test reads and writes here."""

    def __init__(self):
        self.inward: asyncio.Queue[bytes] = asyncio.Queue()
        self.outward: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self):
        return await self.inward.get()

    async def write(self, data):
        self.outward.put_nowait(data)

    def close(self):
        self.outward.put_nowait(b"")


class Socket:
    """A WebSocket client over Raw."""

    def __init__(self, raw):
        self.raw, self.connection, self.ready = raw, Connection(ConnectionType.CLIENT), []

    def send(self, data):
        self.raw.inward.put_nowait(self.connection.send(BytesMessage(data)))

    async def receive(self):
        while not self.ready:
            self.connection.receive_data(await self.raw.outward.get() or None)
            for event in self.connection.events():
                if isinstance(event, BytesMessage):
                    self.ready.append(bytes(event.data))
                elif isinstance(event, TextMessage):
                    self.ready.append(event.data.encode())
                elif isinstance(event, CloseConnection):
                    self.raw.inward.put_nowait(self.connection.send(event.response()))
                    self.ready.append(None)
        return self.ready.pop(0)


async def start(world, path, query, headers):
    response = await world.node.api.handle(Request("GET", path, query, headers))
    if response.upgrade is None:
        return response, None
    raw = Raw()
    raw.task = asyncio.get_running_loop().create_task(response.upgrade(raw))
    return response, raw


async def converse(raw, send):
    """Send messages, and receive until the other end has closed: what came on each channel."""
    client, seen = Socket(raw), {}
    for message in send:
        client.send(message)
    async with asyncio.timeout(60):
        while (message := await client.receive()) is not None:
            seen[message[0]] = seen.get(message[0], b"") + message[1:]
        await raw.task
    return seen


async def run_websocket(world, command, protocol, query="output=1&error=1", send=()):
    world.pod()
    await world.clock.advance(0)
    words = "&".join(f"command={w}" for w in command)
    headers = {**KEY, "sec-websocket-protocol": protocol}
    response, raw = await start(world, "/exec/default/p/c", f"{words}&{query}", headers)
    assert response.status == 101 and response.headers["sec-websocket-protocol"] == protocol
    assert response.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
    return await converse(raw, send)


async def test_exec_gives_output_and_success(world):
    seen = await run_websocket(world, ["echo", "hello"], "v5.channel.k8s.io")
    assert seen[1] == b"hello\n"
    assert orjson.loads(seen[3]) == {"metadata": {}, "status": "Success"}


async def test_exec_gives_the_exit_code(world):
    seen = await run_websocket(world, ["sh", "-c", "exit+3"], "v4.channel.k8s.io")
    status = orjson.loads(seen[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_exec_passes_input_until_it_is_closed(world):
    seen = await run_websocket(
        world, ["cat"], "v5.channel.k8s.io", "input=1&output=1&error=1", [b"\x00abc", b"\xff\x00"]
    )
    assert seen[1].endswith(b"abc") and orjson.loads(seen[3])["status"] == "Success"


@pytest.mark.parametrize("protocol", ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"])
async def test_exec_for_clients_that_speak_text(world, protocol):
    seen = await run_websocket(world, ["echo", "hello"], protocol)
    assert base64.b64decode(seen.pop(ord("1"))) == b"hello\n"
    status = [orjson.loads(base64.b64decode(data))["status"] for data in seen.values()]
    assert status == (["Success"] if protocol.startswith("v4.") else [])


async def test_text_that_is_none_ends_the_connection(world):
    headers = {**KEY, "sec-websocket-protocol": "base64.channel.k8s.io"}
    world.pod()
    await world.clock.advance(0)
    _, raw = await start(world, "/exec/default/p/c", "command=cat&input=1&output=1", headers)
    client = Socket(raw)
    client.send(b"0" + base64.b64encode(b"abc"))
    async with asyncio.timeout(60):
        assert await client.receive() == b"1" + base64.b64encode(b"cat\n")
        assert await client.receive() == b"1" + base64.b64encode(b"abc")
        client.send(b"x")
        while await client.receive() is not None:
            pass
        await raw.task


async def run_attach(world, process, send=(), **container):
    """Attach by WebSocket to a container that `process` stands for; what came on each channel."""
    world.pod(containers=[{"name": "c", "image": "i", "stdin": True, **container}])
    await world.clock.advance(0)

    async def attach(container_id):
        return process

    world.node.runtime.attach = attach
    headers = {**KEY, "sec-websocket-protocol": "v5.channel.k8s.io"}
    _, raw = await start(world, "/attach/default/p/c", "input=1&output=1&error=1", headers)
    return await converse(raw, send)


async def test_who_attached_is_not_told_the_exit_code(world):
    seen = await run_attach(world, EchoExec(["sh", "-c", "exit 3"], stdin=False))
    assert orjson.loads(seen[3])["status"] == "Success"


@pytest.mark.parametrize("once", [False, True])
async def test_the_end_of_the_input_ends_an_attach_where_the_container_reads_on(world, once):
    process = EchoExec([], stdin=True)
    seen = await run_attach(world, process, [b"\x00abc", b"\xff\x00"], stdinOnce=once)
    assert orjson.loads(seen[3])["status"] == "Success"
    assert process._ended.is_set() == once


async def test_a_command_goes_on_when_its_client_has_hung_up(world):
    process = EchoExec([], stdin=True)
    process.kill = lambda: pytest.fail("killed")
    world.pod()
    await world.clock.advance(0)

    async def begin(*args, **options):
        return process

    world.node.runtime.exec = begin
    headers = {**KEY, "sec-websocket-protocol": "v4.channel.k8s.io"}
    _, raw = await start(world, "/exec/default/p/c", "command=cat&input=1&output=1", headers)
    Socket(raw).send(b"\x00all there is")
    raw.inward.put_nowait(b"")
    async with asyncio.timeout(60):
        await raw.task
        assert await process.wait() == 0  # it has read all, and the end


async def test_a_client_that_never_answers_the_close_is_let_go(world):
    world.pod()
    await world.clock.advance(0)
    headers = {**KEY, "sec-websocket-protocol": "v4.channel.k8s.io"}
    _, raw = await start(world, "/exec/default/p/c", "command=true&output=1", headers)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not raw.task.done()
    await world.clock.advance(1)
    async with asyncio.timeout(60):
        await raw.task


@pytest.mark.parametrize("size", [b'{"Width":100,"Height":30}\n', b'{"height":30,"width":100}'])
async def test_sizes_of_a_terminal_reach_it_in_any_spelling(world, size):
    class Terminal(EchoExec):
        sizes = []

        def resize(self, columns, rows):
            self.sizes.append((columns, rows))

    await run_attach(world, Terminal([], stdin=True), [b"\x04" + size, b"\xff\x00"], stdinOnce=True)
    assert Terminal.sizes == [(100, 30)]


async def test_a_failure_to_start_is_an_internal_error(world):
    async def refuse(*args, **options):
        raise RuntimeFailure("ExecError", "no such file")

    world.node.runtime.exec = refuse
    seen = await run_websocket(world, ["nope"], "v5.channel.k8s.io")
    status = orjson.loads(seen[3])
    assert status["code"] == 500 and "error executing command in container: no such file" in status["message"]


@pytest.mark.parametrize(
    "path, query, status",
    [
        ("/exec/default/p/c", "", 400),
        ("/containerLogs/default/p/c", "previous=true", 400),
        ("/containerLogs/default/p/c", "tailLines=x", 400),
        ("/nothing", "", 404),
    ],
)
async def test_refusals_are_statuses(world, path, query, status):
    world.pod()
    await world.clock.advance(0)
    response = await world.node.api.handle(Request("GET", path, query, KEY))
    assert response.status == status and orjson.loads(response.body)["code"] == status


@pytest.mark.parametrize(
    "path, status, said",
    [
        ("/exec/default/none/c?command=x", 404, b"pod does not exist"),
        ("/exec/default/p/c?command=x", 500, b'container not found ("c")'),
        ("/run/default/p/c?cmd=x", 500, b'container not found ("c")'),
        ("/attach/default/p/c", 500, b"container c not found in pod p_default"),
        ("/portForward/default/none", 404, b"pod does not exist"),
    ],
)
async def test_what_has_nothing_to_stream_to_says_so_in_kubelets_plain_words(world, path, status, said):
    """Clients make them "unable to upgrade connection: ..."; a Status they would show as it is."""
    world.pod(annotations={"sampan.dev/simulate": "run=0s"}, restartPolicy="Never")
    await world.clock.advance(60)
    path, _, query = path.partition("?")
    response = await world.node.api.handle(Request("POST", path, query, KEY))
    assert (response.status, response.body) == (status, said)


async def test_an_unknown_subprotocol_is_refused(world):
    world.pod()
    await world.clock.advance(0)
    headers = {**KEY, "sec-websocket-protocol": "v9.other"}
    response, _ = await start(world, "/exec/default/p/c", "command=x", headers)
    assert response.status == 400


async def test_logs_of_a_simulated_container(world):
    world.pod(annotations={"sampan.dev/simulate": "log='hello world'"})
    await world.clock.advance(0)
    response = await world.node.api.handle(Request("GET", "/containerLogs/default/p/c"))
    assert b"".join([c async for c in response.body]) == b"hello world\n"


@pytest.mark.parametrize(
    ("protocol", "said"), [("binary.k8s.io", b"hello world\n"), ("base64.binary.k8s.io", b"aGVsbG8gd29ybGQK")]
)
async def test_logs_over_a_websocket(world, protocol, said):
    world.pod(annotations={"sampan.dev/simulate": "log='hello world'"})
    await world.clock.advance(0)
    headers = {**KEY, "sec-websocket-protocol": protocol}
    response, raw = await start(world, "/containerLogs/default/p/c", "", headers)
    assert (response.status, response.headers["sec-websocket-protocol"]) == (101, protocol)
    client = Socket(raw)
    async with asyncio.timeout(60):
        assert [await client.receive(), await client.receive()] == [said, None]
        await raw.task


# Port-forward


class Spdy:
    """A SPDY client: frames out, frames in. Over a WebSocket when `socket` is given."""

    def __init__(self, raw, tunnel=None):
        self.raw, self.tunnel, self.buffer = raw, tunnel, b""
        self.deflate = zlib.compressobj(zdict=DICTIONARY)

    def _send(self, data):
        if self.tunnel:
            self.tunnel.send(data)
        else:
            self.raw.inward.put_nowait(data)

    def open(self, number, headers, fin=False):
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            block += (
                struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(value)) + value.encode()
            )
        packed = self.deflate.compress(block) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        payload = struct.pack(">IIH", number, 0, 0) + packed
        self._send(struct.pack(">HHI", 0x8003, 1, int(fin) << 24 | len(payload)) + payload)

    def data(self, number, data, fin=False):
        self._send(struct.pack(">II", number, int(fin) << 24 | len(data)) + data)

    async def frame(self):
        while len(self.buffer) < 8 or len(self.buffer) < 8 + int.from_bytes(self.buffer[5:8], "big"):
            self.buffer += await (self.tunnel.receive() if self.tunnel else self.raw.outward.get())
        length = int.from_bytes(self.buffer[5:8], "big")
        head, payload, self.buffer = self.buffer[:8], self.buffer[8 : 8 + length], self.buffer[8 + length :]
        return head, payload

    async def collect(self, numbers):
        """Data of these streams until each has ended."""
        seen, left = dict.fromkeys(numbers, b""), set(numbers)
        while left:
            head, payload = await self.frame()
            number = int.from_bytes(head[:4], "big")
            if number in seen:
                seen[number] += payload
                if head[4] & 1:
                    left.discard(number)
        return seen


@pytest.fixture
async def echo(world):
    """The pod's port 80 answers what it hears in capitals; others refuse."""

    async def serve(reader, writer):
        writer.write((await reader.read(100)).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)

    async def connect(sandbox_id, port):
        if port != 80:
            raise ConnectionRefusedError(111, "Connection refused")
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        return sock

    world.node.runtime.connect = connect
    world.pod()
    await world.clock.advance(0)
    yield
    server.close()


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_port_forward_by_spdy(world, echo, tunnelled):
    if tunnelled:
        headers = {**KEY, "sec-websocket-protocol": "SPDY/3.1+portforward.k8s.io"}
    else:
        headers = {"upgrade": "SPDY/3.1", "x-stream-protocol-version": "portforward.k8s.io"}
    response, raw = await start(world, "/portForward/default/p", "", headers)
    assert response.status == 101
    client = Spdy(raw, Socket(raw) if tunnelled else None)
    async with asyncio.timeout(60):
        for first, port, words in ((1, "80", b"hello"), (5, "80", b"again"), (9, "81", b"x")):
            client.open(first, {"streamtype": "error", "port": port, "requestid": str(first)}, fin=True)
            client.open(first + 2, {"streamtype": "data", "port": port, "requestid": str(first)})
            client.data(first + 2, words, fin=True)
            seen = await client.collect([first, first + 2])
            if port == "80":
                assert seen == {first: b"", first + 2: words.upper()}
            else:
                assert seen[first].startswith(b"failed to connect to localhost:81 inside pod ")
                assert seen[first].endswith(b": dial tcp4 127.0.0.1:81: connect: connection refused")
    raw.task.cancel()


async def test_port_forward_by_websocket_channels(world, echo):
    headers = {**KEY, "sec-websocket-protocol": "v4.channel.k8s.io"}
    _, raw = await start(world, "/portForward/default/p", "port=80&port=81", headers)
    client = Socket(raw)
    async with asyncio.timeout(60):
        first = [await client.receive() for _ in range(4)]
        assert first == [b"\x00P\x00", b"\x01P\x00", b"\x02Q\x00", b"\x03Q\x00"]
        message = await client.receive()
        assert message[0] == 3 and b"localhost:81" in message
    raw.task.cancel()


async def test_port_forward_for_clients_that_speak_text(world, echo):
    headers = {**KEY, "sec-websocket-protocol": "v4.base64.channel.k8s.io"}
    _, raw = await start(world, "/portForward/default/p", "port=80", headers)
    client = Socket(raw)
    async with asyncio.timeout(60):
        assert [await client.receive() for _ in range(2)] == [b"0UAA=", b"1UAA="]
        client.send(b"0" + base64.b64encode(b"hello"))
        assert await client.receive() == b"0" + base64.b64encode(b"HELLO")
    raw.task.cancel()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("v5.channel.k8s.io, v4.channel.k8s.io, v3.channel.k8s.io", "v4.channel.k8s.io"),
        ("v2.channel.k8s.io, channel.k8s.io", "v2.channel.k8s.io"),
        ("", ""),
    ],
)
async def test_exec_by_spdy(world, offered, chosen):
    world.pod()
    await world.clock.advance(0)
    headers = {"upgrade": "SPDY/3.1", "x-stream-protocol-version": offered}
    query = "command=echo&command=hi&output=1&error=1"
    head, raw = await start(world, "/exec/default/p/c", query, headers)
    assert head.headers.get("x-stream-protocol-version", "") == chosen
    client = Spdy(raw)
    for number, kind in ((1, "error"), (3, "stdout"), (5, "stderr")):
        client.open(number, {"streamtype": kind})
    async with asyncio.timeout(60):
        seen = await client.collect([1, 3, 5])
    assert seen[3] == b"hi\n"
    assert orjson.loads(seen[1])["status"] == "Success" if chosen[:2] == "v4" else seen[1] == b""
