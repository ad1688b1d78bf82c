"""Connections of the server to others, over real TLS on this machine."""

import asyncio

import pytest

from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.client.messages import Request
from sampan.cluster.connector import FrontProxyConnector
from sampan.server.aggregation.aggregator import Backend


@pytest.fixture
async def extension(tmp_path):
    """An aggregated server that believes the front proxy only; what it was asked is in `seen`."""
    front, own = pki.CA.create("front-proxy-ca"), pki.CA.create("extension")
    front.issue("front-proxy-client").save(
        tmp_path / "front-proxy-client.crt", tmp_path / "front-proxy-client.key"
    )
    own.issue("x", dns=["x.y.svc"], server=True).save(tmp_path / "x.crt", tmp_path / "x.key")
    context = pki.server_context(tmp_path / "x.crt", tmp_path / "x.key", front.cert)
    seen = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        peer = writer.get_extra_info("ssl_object").getpeercert(True)
        seen.append((pki.peer_of(peer)["cn"] if peer else "", head.decode().split("\r\n")))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-own: yes\r\nconnection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    yield seen, Backend("127.0.0.1", port, "x.y.svc", own.cert.decode(), False), tmp_path
    server.close()


async def test_an_aggregated_server_sees_the_front_proxys_certificate(extension):
    seen, backend, directory = extension
    connector = FrontProxyConnector(directory, RealClock())
    groups = [("X-Remote-Group", "a"), ("X-Remote-Group", "b")]
    answer = await connector(backend, Request("GET", "/apis/a b", "x=1", {}, repeated=groups))
    assert (answer.status, answer.body, answer.headers["x-own"]) == (200, b"{}", "yes")
    assert "connection" not in answer.headers
    [(peer, head)] = seen
    assert peer == "front-proxy-client" and head[0] == "GET /apis/a%20b?x=1 HTTP/1.1"
    assert "X-Remote-Group: a" in head and "X-Remote-Group: b" in head


async def test_a_certificate_for_another_name_or_by_another_authority_is_refused(extension):
    seen, backend, directory = extension
    connector = FrontProxyConnector(directory, RealClock())
    other = pki.CA.create("other").cert.decode()
    for wrong in (backend._replace(name="z.y.svc"), backend._replace(authorities=other)):
        with pytest.raises(OSError, match="certificate verify failed"):
            await connector(wrong, Request("GET", "/"))
    assert not seen
    answer = await connector(backend._replace(name="z.y.svc", lax=True), Request("GET", "/"))
    assert answer.status == 200
