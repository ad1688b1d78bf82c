"""Certificates of nodes over the memory cluster: the first one, its renewal, and requests nobody should grant."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from sampan.base import pki
from sampan.client.messages import User
from sampan.node.certificates import CLIENT, SERVING, Refused, Rotation, request
from sampan.testing import Cluster

NODE = User("system:node:node-1", ("system:nodes", "system:authenticated"))
JOINING = User("system:bootstrap:abcdef", ("system:bootstrappers", "system:authenticated"))
CSRS = "certificatesigningrequests.certificates.k8s.io"


@pytest.fixture
async def cluster():
    async with Cluster(signer=pki.CA.fixed()) as cluster:
        yield cluster


async def ask(cluster, user, signer=CLIENT, **names):
    client = cluster.plane.client(user, "kubelet")
    asking = asyncio.ensure_future(request(client, cluster.clock, "node-1", signer, **names))
    for _ in range(5):
        await cluster.settle()
        if asking.done():
            break
        await cluster.advance(1)
    return asking


@pytest.mark.parametrize("user", [NODE, JOINING])
async def test_a_node_gets_its_client_certificate(cluster, user):
    pair = (await ask(cluster, user)).result()
    assert pki.peer_of(ssl.PEM_cert_to_DER_cert(pair.cert.decode()))["cn"] == "system:node:node-1"
    begin, end = pki.lifetime(pair.cert)
    assert end - begin > 300 * 86_400


async def test_a_serving_certificate_is_for_the_nodes_own_addresses(cluster):
    (address,) = [
        a["address"]
        for a in (await cluster.client.get("nodes", "node-1"))["status"]["addresses"]
        if a["type"] == "InternalIP"
    ]
    assert (await ask(cluster, NODE, SERVING, dns=["node-1"], ips=[address])).result().cert
    foreign = await ask(cluster, NODE, SERVING, dns=["node-1"], ips=["10.0.0.1"])
    assert not foreign.done(), "nobody approves another's address"
    foreign.cancel()


async def test_a_denied_request_says_so(cluster):
    asking = await ask(cluster, NODE, SERVING, ips=["10.0.0.1"])
    (waiting,) = (await cluster.client.list(CSRS))["items"]
    denied = {"type": "Denied", "status": "True", "reason": "No", "message": "not today"}
    change = {"status": {"conditions": [denied]}}
    await cluster.client.patch(CSRS, waiting["metadata"]["name"], change, subresource="approval")
    await cluster.settle()
    with pytest.raises(Refused, match="not today"):
        asking.result()


async def test_a_pair_is_renewed_before_its_end_and_told(cluster, tmp_path):
    cert, key, told = tmp_path / "n.crt", tmp_path / "n.key", []
    issue = pki.CA.fixed().issue
    issue("system:node:node-1", ("system:nodes",), now=cluster.clock.now(), days=0.01).save(cert, key)
    first = cert.read_bytes()
    client = cluster.plane.client(NODE, "kubelet")
    rotation = Rotation(
        client, cluster.clock, cluster.ids, "node-1", CLIENT, cert, key, lambda *pair: told.append(pair)
    )
    begin, end = pki.lifetime(first)
    assert 0.7 <= (rotation.due() - begin) / (end - begin) <= 0.9
    running = asyncio.ensure_future(rotation.run())
    await cluster.settle()
    assert not told
    for _ in range(3):
        await cluster.advance(300)
    running.cancel()
    assert told == [(cert, key)] and cert.read_bytes() != first
    assert key.stat().st_mode & 0o777 == 0o600
