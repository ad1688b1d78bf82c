"""A client over real TLS sockets: connections are kept, streams stream, a server that goes away is an error in time."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from sampan.base.clock import RealClock
from sampan.base.pki import CA, server_context
from sampan.client.https import HttpsTransport
from sampan.client.messages import Request


class TrivialServer:
    """`answer(method, target, headers, body, writer)` writes what it likes; False closes the connection."""

    def __init__(self):
        self.connections = 0
        self.requests = []
        self.peers = []
        self.answer = self.hello

    async def hello(self, method, target, headers, body, writer):
        text = f"{method} {target} {body.decode()}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-A: 1\r\nx-a: 2\r\n\r\n" % len(text))
        if method != "HEAD":
            writer.write(text)
        return True

    async def serve(self, reader, writer):
        self.connections += 1
        self.peers.append(writer.get_extra_info("peercert"))
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = first.split(" ")
                self.requests.append((method, target, headers, body))
                if not await self.answer(method, target, headers, body, writer):
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def tls(tmp_path):
    ca = CA.create("test")
    ca.issue("server", ips=["127.0.0.1"], server=True).save(tmp_path / "crt", tmp_path / "key")
    server = TrivialServer()
    context = server_context(tmp_path / "crt", tmp_path / "key", ca.cert)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    server.ca = ca
    made = []

    def connect(**options):
        made.append(HttpsTransport(server.url, **{"ca": ca.cert.decode(), "clock": RealClock(), **options}))
        return made[-1]

    server.connect = connect
    yield server
    for transport in made:
        await transport.close()
    listener.close()


async def test_requests_share_a_connection(tls):
    transport = tls.connect(token="secret")
    for n in range(3):
        answer = await transport(Request("POST", "/api/a b", "x=1", {"accept": "y"}, b"body%d" % n))
        assert (answer.status, answer.body) == (200, b"POST /api/a%%20b?x=1 body%d" % n)
        assert answer.headers["x-a"] == "1, 2"
    assert tls.connections == 1
    assert tls.requests[0][2]["authorization"] == "Bearer secret" and tls.requests[0][2]["accept"] == "y"
    assert (await transport(Request("HEAD", "/"))).body == b""


async def test_many_at_once_use_few_connections(tls):
    transport = tls.connect()
    answers = await asyncio.gather(*[transport(Request("GET", f"/{n}")) for n in range(200)])
    assert [a.body for a in answers] == [b"GET /%d " % n for n in range(200)]
    assert tls.connections <= 16


async def test_a_certificate_identifies_the_client(tls, tmp_path):
    pair = tls.ca.issue("system:node:n1", ["system:nodes"])
    await tls.connect(cert=pair.cert.decode(), key=pair.key.decode())(Request("GET", "/"))
    pair.save(tmp_path / "c", tmp_path / "k")
    await tls.connect(cert=str(tmp_path / "c"), key=str(tmp_path / "k"))(Request("GET", "/"))
    for peer in tls.peers:
        assert ("commonName", "system:node:n1") in [pair for rdn in peer["subject"] for pair in rdn]


async def test_an_unknown_authority_is_refused(tls):
    with pytest.raises(ssl.SSLError):
        await tls.connect(ca=CA.create("other").cert.decode())(Request("GET", "/"))
    assert (await tls.connect(ca=None, verify=False)(Request("GET", "/"))).status == 200


async def test_a_stream_is_read_as_it_comes_and_its_end_closes_it(tls):
    more = asyncio.Event()

    async def stream(method, target, headers, body, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await more.wait()
        writer.write(b"3\r\ntwo\r\n")
        await asyncio.sleep(60 if target == "/forever" else 0)
        writer.write(b"0\r\n\r\n")
        return True

    tls.answer = stream
    transport = tls.connect()
    answer = await transport(Request("GET", "/"))
    chunks = aiter(answer.body)
    assert await anext(chunks) == b"one"
    more.set()
    assert [chunk async for chunk in chunks] == [b"two"]
    tls.answer = tls.hello
    await transport(Request("GET", "/"))
    assert tls.connections == 1  # it was read to its end, so it was kept
    tls.answer = stream
    answer = await transport(Request("GET", "/forever"))
    async for _ in answer.body:
        break
    await answer.body.aclose()
    assert not transport._idle


async def test_a_stream_that_breaks_off_is_an_error(tls):
    async def broken(method, target, headers, body, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        return False

    tls.answer = broken
    answer = await tls.connect()(Request("GET", "/"))
    with pytest.raises(ConnectionError):
        async for _ in answer.body:
            pass


async def test_a_slow_reader_holds_the_server_back(tls):
    sent = 0

    async def flood(method, target, headers, body, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(400):
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")
        return True

    tls.answer = flood
    answer = await tls.connect()(Request("GET", "/"))
    await asyncio.sleep(0.3)
    assert sent < 300
    assert sum([len(chunk) async for chunk in answer.body]) == 400 * 0x10000


async def test_a_kept_connection_that_the_server_closed_is_replaced(tls):
    async def once(method, target, headers, body, writer):
        await tls.hello(method, target, headers, body, writer)
        return False

    tls.answer = once
    transport = tls.connect()
    for n in range(3):
        assert (await transport(Request("POST", f"/{n}"))).status == 200
        while transport._idle and transport._idle[0].open:
            await asyncio.sleep(0.001)
    assert tls.connections == 3


async def test_an_answer_that_never_comes_is_a_timeout(tls):
    async def silent(method, target, headers, body, writer):
        await asyncio.sleep(60)

    tls.answer = silent
    with pytest.raises(TimeoutError):
        await tls.connect(answer=0.05)(Request("GET", "/"))


async def test_nobody_listening_is_an_os_error():
    with pytest.raises(OSError):
        await HttpsTransport("https://127.0.0.1:1", clock=RealClock())(Request("GET", "/"))


async def test_an_upgrade_gives_the_raw_stream(tls):
    async def echo(method, target, headers, body, writer):
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nfirst")
        return True

    tls.answer = echo
    transport = tls.connect()
    request = Request("GET", "/exec", "", {"connection": "Upgrade", "upgrade": "echo"})
    status, headers, reader, writer = await transport.upgrade(request)
    assert (status, headers["upgrade"]) == (101, "echo")
    assert await reader.readexactly(5) == b"first"
    writer.write(b"POST /raw HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n")
    assert (await reader.read(20)).startswith(b"HTTP/1.1 101")
    assert tls.requests[-1][1] == "/raw"
    writer.close()


async def test_a_refused_upgrade_says_why(tls):
    status, _, reader, writer = await tls.connect().upgrade(Request("GET", "/exec"))
    assert (status, await reader.read(), writer) == (200, b"GET /exec ", None)
