"""Who may speak to a node: the API server's certificate and administrators, over TLS only."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from sampan.base import pki


@pytest.fixture
async def served(world, tmp_path):
    ca = pki.CA.create("test")
    (tmp_path / "ca.crt").write_bytes(ca.pair.cert)
    ca.issue("node", ips=["127.0.0.1"], server=True).save(tmp_path / "s.crt", tmp_path / "s.key")
    api = world.node.api
    port = await api.serve(
        "127.0.0.1", 0, cert=tmp_path / "s.crt", key=tmp_path / "s.key", client_ca=tmp_path / "ca.crt"
    )
    yield ca, port, tmp_path
    await api.close()


async def get(served, path, name="", groups=()):
    ca, port, directory = served
    context = ssl.create_default_context(cadata=ca.pair.cert.decode())
    if name:
        ca.issue(name, groups).save(directory / "c.crt", directory / "c.key")
        context.load_cert_chain(directory / "c.crt", directory / "c.key")
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    return answer


@pytest.mark.parametrize(
    "name, groups, line",
    [
        ("kube-apiserver-kubelet-client", (), b"HTTP/1.1 200 OK"),
        ("admin", ("system:masters",), b"HTTP/1.1 200 OK"),
        ("system:node:n1", ("system:nodes",), b"HTTP/1.1 403 Forbidden"),
    ],
)
async def test_only_the_api_server_is_let_in(served, name, groups, line):
    assert (await get(served, "/pods", name, groups)).startswith(line)


async def test_without_a_certificate_there_is_no_answer(served):
    try:
        answer = await get(served, "/pods")
    except OSError:
        answer = b""
    assert answer == b""


async def test_what_a_node_tells_of_itself(world, served):
    world.pod()
    await world.clock.advance(0)
    admin = ("admin", ("system:masters",))
    assert b'"kind":"PodList"' in await get(served, "/pods", *admin)
    assert b'"podRef"' in await get(served, "/stats/summary", *admin)
    assert b"kubelet_active_pods 1\n" in await get(served, "/metrics", *admin)
    assert b'container_memory_working_set_bytes{container="c",namespace="default",pod="p"}' in await get(
        served, "/metrics/resource", *admin
    )
