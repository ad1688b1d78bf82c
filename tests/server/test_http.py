"""HTTP as a client sees it, over real sockets: keep-alive, pipelining, limits, streams, upgrades, certificates."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from sampan.base.clock import RealClock
from sampan.client.messages import Request, Response
from sampan.server.http import Listener, serve
from sampan.server.incoming import BODY_LIMIT


async def _answer(request: Request) -> Response:
    if request.path == "/stream":

        async def parts():
            for number in range(3):
                yield b"%d;" % number

        return Response(200, {}, parts())
    if request.path == "/upgrade":

        async def echo(raw):
            while data := await raw.read():
                await raw.write(data.upper())

        return Response(101, {"upgrade": "echo", "connection": "upgrade"}, b"", echo)
    text = f"{request.method} {request.path}?{request.query} {len(request.body)}"
    return Response(200, {"content-type": "text/plain"}, text.encode())


@pytest.fixture
async def listener():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    listener = await serve(_answer, [sock], None, RealClock())
    yield listener
    await listener.close(0.1)


async def _open(listener: Listener):
    return await asyncio.open_connection(*listener.addresses[0][:2])


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer of known length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    assert headers.pop("date").endswith(" gmt") and headers.pop("cache-control") == "no-cache, private"
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def test_keeps_the_connection_and_answers_pipelined_requests_in_order(listener):
    reader, writer = await _open(listener)
    writer.write(
        b"GET /a%20b?x=%20 HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    )
    status, headers, body = await _read(reader)
    assert (status, headers["content-length"], body) == (200, "16", b"GET /a b?x=%20 0")
    assert (await _read(reader))[2] == b"POST /b? 3"
    writer.close()


async def test_streams_in_chunks(listener):
    reader, writer = await _open(listener)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
    assert await reader.readuntil(b"0\r\n\r\n") == b"2\r\n0;\r\n2\r\n1;\r\n2\r\n2;\r\n0\r\n\r\n"
    writer.close()


async def test_a_body_over_the_limit_is_413(listener):
    reader, writer = await _open(listener)
    writer.write(
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (BODY_LIMIT + 1)
    )
    status, headers, body = await _read(reader)
    assert (status, headers["connection"]) == (413, "close")
    assert b'"reason":"RequestEntityTooLarge"' in body
    writer.close()


async def test_asks_for_an_expected_body(listener):
    reader, writer = await _open(listener)
    writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"ab")
    assert (await _read(reader))[2] == b"POST /? 2"
    writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"nonsense\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", 431)],
)
async def test_refuses_what_is_no_request(listener, sent, status):
    reader, writer = await _open(listener)
    writer.write(sent)
    assert (await _read(reader))[0] == status
    assert await reader.read() == b""
    writer.close()


async def test_head_has_no_body(listener):
    reader, writer = await _open(listener)
    writer.write(b"HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head = await reader.read()
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 10" in head
    writer.close()


async def test_a_head_of_a_stream_leaves_the_connection_clean(listener):
    reader, writer = await _open(listener)
    writer.write(b"HEAD /stream HTTP/1.1\r\nHost: h\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
    assert (await _read(reader))[2] == b"GET /a? 0"
    writer.close()


async def test_every_answer_has_the_id_of_its_request():
    sock, seen = socket.socket(), []
    sock.bind(("127.0.0.1", 0))

    async def handle(request):
        seen.append(request.headers["audit-id"])  # what an audit log says
        return await _answer(request)

    listener = await serve(handle, [sock], None, RealClock(), audit="11111111-2222-4333-8444-")
    reader, writer = await _open(listener)
    asked = b"GET /a HTTP/1.1\r\nHost: h\r\n"
    writer.write(asked + b"\r\n" + asked + b"\r\n" + asked + b"Audit-Id: mine" + b"x" * 99 + b"\r\n\r\n")
    ids = [(await _read(reader))[1]["audit-id"] for _ in range(3)]
    assert ids[2] == "mine" + "x" * 60
    for _ in range(600):
        writer.write(asked + b"\r\n")
        ids.append((await _read(reader))[1]["audit-id"])
    assert len(set(ids)) == 603 and [i[:64] for i in seen] == ids
    assert all(re.fullmatch("11111111-2222-4333-8444-[0-9a-f]{12}", i) for i in ids if i != ids[2])
    writer.close()
    await listener.close(0.1)


async def test_an_upgrade_is_handed_the_raw_connection(listener):
    reader, writer = await _open(listener)
    writer.write(b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nabc")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert await reader.readexactly(3) == b"ABC"
    writer.write(b"def")
    assert await reader.readexactly(3) == b"DEF"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


async def test_an_unknown_upgrade_is_answered_plainly(listener):
    reader, writer = await _open(listener)
    writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert (await _read(reader))[2] == b"GET /x? 0"
    writer.close()
