"""Webhooks over real TLS connections to this machine."""

import asyncio
import base64
import json
import ssl

import pytest

from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.server.egress.callout import Callout, CalloutError

ANSWER = b'{"kind":"AdmissionReview","response":{"allowed":true}}'


@pytest.fixture
def certificates(tmp_path):
    ca = pki.CA.create("hooks")
    pair = ca.issue("hook", dns=["localhost", "hook.x.svc"], server=True)
    pair.save(tmp_path / "c.crt", tmp_path / "c.key")
    return base64.b64encode(ca.cert).decode(), pki.server_context(tmp_path / "c.crt", tmp_path / "c.key")


@pytest.fixture
async def hook(certificates):
    """A server that keeps what it is sent; `reply` is its whole answer, None for silence."""

    class Hook:
        seen = []
        heads = []
        reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(ANSWER),
            ANSWER,
        )

    silent = []  # held, so that nobody closes them

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(h for h in head.split(b"\r\n") if h.startswith(b"content-length")).split(b":")[1])
        Hook.heads.append(head.decode())
        Hook.seen.append((head.split(b"\r\n")[0].decode(), json.loads(await reader.readexactly(length))))
        if Hook.reply is not None:
            writer.write(Hook.reply)
            writer.close()
        else:
            silent.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificates[1])
    Hook.port = server.sockets[0].getsockname()[1]
    yield Hook
    server.close()


@pytest.fixture
def callout(facts):
    return Callout(facts.lookup, RealClock(), facts.ids)


def config(hook, certificates):
    return {"url": f"https://localhost:{hook.port}/check?a=1", "caBundle": certificates[0]}


async def test_a_url_is_posted_to(hook, certificates, callout):
    assert await callout(config(hook, certificates), {"n": 1}, 2) == json.loads(ANSWER)
    assert hook.seen[-1] == ("POST /check?a=1&timeout=2s HTTP/1.1", {"n": 1})
    assert "user-agent: kube-apiserver-admission\r\n" in hook.heads[-1]  # some log it, some let only it in


async def test_a_service_is_reached_at_a_ready_endpoint(facts, hook, certificates, callout):
    service = {"name": "hook", "namespace": "x", "path": "/v"}
    with pytest.raises(CalloutError, match='service "hook" not found'):
        await callout({"service": service}, {}, 2)
    facts.make("Service", "hook", "x", spec={"ports": [{"port": 443, "name": "https"}]})
    with pytest.raises(CalloutError, match='no endpoints available for service "hook"'):
        await callout({"service": service}, {}, 2)
    piece = {
        "kind": "EndpointSlice",
        "metadata": {"name": "hook-1", "namespace": "x", "labels": {"kubernetes.io/service-name": "hook"}},
        "endpoints": [
            {"addresses": ["127.0.0.1"], "conditions": {"ready": True}},
            {"addresses": ["127.0.0.9"], "conditions": {"ready": False}},
        ],
        "ports": [{"name": "https", "port": hook.port}],
    }
    facts.put(piece, "endpointslices.discovery.k8s.io")
    assert await callout({"service": service, "caBundle": certificates[0]}, {}, 2)
    assert hook.seen[-1][0] == "POST /v?timeout=2s HTTP/1.1"


async def test_failures_have_the_words_people_search_for(hook, certificates, callout):
    with pytest.raises(CalloutError, match=r"dial tcp 127.0.0.1:1: connect: connection refused"):
        await callout({"url": "https://127.0.0.1:1/x"}, {}, 2)
    good = config(hook, certificates)
    with pytest.raises(CalloutError, match="x509: "):
        await callout({**good, "caBundle": base64.b64encode(pki.CA.create("other").cert).decode()}, {}, 2)
    hook.reply = b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"
    with pytest.raises(CalloutError, match="status code 503"):
        await callout(good, {}, 2)
    hook.reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{]"
    with pytest.raises(CalloutError, match="json parse error"):
        await callout(good, {}, 2)
    hook.reply = b""
    with pytest.raises(CalloutError, match="EOF"):
        await callout(good, {}, 2)
    hook.reply = None
    with pytest.raises(CalloutError, match="context deadline exceeded"):
        await callout(good, {}, 0.05)
    with pytest.raises(CalloutError, match="unable to load root certificates"):
        await callout({**good, "caBundle": base64.b64encode(b"no").decode()}, {}, 2)


def test_nothing_older_than_tls_1_2_is_spoken():
    assert pki.client_context(None).minimum_version == ssl.TLSVersion.TLSv1_2
