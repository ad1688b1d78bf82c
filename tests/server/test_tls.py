"""The server behind real TLS: who a client's certificate says it is, and a certificate renewed while serving."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.client.https import HttpsTransport
from sampan.client.messages import Request, Response
from sampan.server import http

CA = pki.CA.create("test-ca")


async def _who(request: Request) -> Response:
    peer = request.peer or {}
    return Response(200, {}, f"{peer.get('cn')} {','.join(peer.get('o', []))}".encode())


@pytest.fixture
def handshake():
    """Seconds that TLS may take to begin."""
    return 10.0


@pytest.fixture
async def serving(tmp_path, handshake, monkeypatch):
    """(listener, its TLS context, directory of its certificate)."""
    CA.issue("first", dns=["localhost"], ips=["127.0.0.1"], server=True).save(
        tmp_path / "crt", tmp_path / "key"
    )
    context = pki.server_context(tmp_path / "crt", tmp_path / "key", CA.cert)
    monkeypatch.setattr(http, "_HANDSHAKE_TIMEOUT", handshake)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    listener = await http.serve(_who, [sock], context, RealClock())
    yield listener, context, tmp_path
    await listener.close(0.1)


async def _ask(listener, **identity) -> bytes:
    port = listener.addresses[0][1]
    transport = HttpsTransport(f"https://127.0.0.1:{port}", ca=CA.cert, clock=RealClock(), **identity)
    try:
        return (await transport(Request("GET", "/"))).body
    finally:
        await transport.close()


async def test_a_certificate_names_the_user_and_groups(serving):
    alice = CA.issue("alice", ["team-a", "team-b"])
    assert await _ask(serving[0], cert=alice.cert, key=alice.key) == b"alice team-a,team-b"
    assert await _ask(serving[0]) == b"None "


async def test_a_stranger_s_certificate_is_refused(serving):
    mallory = pki.CA.create("other").issue("mallory", ["system:masters"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await _ask(serving[0], cert=mallory.cert, key=mallory.key)


async def test_a_renewed_certificate_is_shown_to_new_connections(serving):
    listener, context, directory = serving
    CA.issue("second", dns=["localhost"], ips=["127.0.0.1"], server=True).save(
        directory / "crt", directory / "key"
    )
    context.load_cert_chain(directory / "crt", directory / "key")
    trusting = ssl.create_default_context(cadata=CA.cert.decode())
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection(
        *listener.addresses[0][:2], ssl=trusting, server_hostname="localhost"
    )
    shown = writer.get_extra_info("ssl_object")
    assert dict(part[0] for part in shown.getpeercert()["subject"])["commonName"] == "second"
    assert shown.selected_alpn_protocol() == "http/1.1"
    writer.close()


@pytest.mark.parametrize("handshake", [1.0])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_plain_http_is_told_that_this_is_tls(serving, handshake, method):
    reader, writer = await asyncio.open_connection("127.0.0.1", serving[0].addresses[0][1])
    writer.write(f"{method} / HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert await reader.readline() == b"HTTP/1.0 400 Bad Request\r\n"
    while await reader.readline() != b"\r\n":
        pass
    assert await reader.readline() == b"Client sent an HTTP request to an HTTPS server.\n"
    writer.write(b"more")  # which helps nobody
    assert await reader.read() == b""
    writer.close()
