"""Both sides of a machine's joining, as far as no second machine is needed; the rest is tests/e2e/network/test_machines.py."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from sampan.api import meta
from sampan.base import jws, pki
from sampan.base.clock import RealClock
from sampan.base.errors import SampanError
from sampan.cluster import cluster_info, join, tokens
from sampan.cluster.config import ClusterConfig
from sampan.cluster.join import Invitation
from sampan.testing import Cluster

CONFIG = ClusterConfig("x", port=6443, fabric="10.89.7.0/24", machine="192.0.2.1", first_machine="192.0.2.1")
CA = pki.CA.fixed()
HASH = pki.public_key_hash(CA.cert)
TOKEN = "abcdef.0123456789abcdef"


def test_a_cluster_that_keeps_to_itself_offers_nothing() -> None:
    assert cluster_info.objects(ClusterConfig("x", port=6443, fabric="10.89.7.0/24"), CA.cert.decode()) == []


def info(config: ClusterConfig = CONFIG) -> dict[str, str]:
    """cluster-info as the token of the tests has signed it."""
    found = next(o for o in cluster_info.objects(config, CA.cert.decode()) if meta.name(o) == "cluster-info")
    text = found["data"]["kubeconfig"]
    return {"kubeconfig": text, "jws-kubeconfig-abcdef": jws.sign(text, *TOKEN.split("."))}


def test_what_token_and_hash_vouch_for_is_believed() -> None:
    assert join.believe(info(), Invitation.read("192.0.2.1", TOKEN, HASH)) == CA.cert.decode()


@pytest.mark.parametrize(
    ("changed", "token", "ca_hash", "words"),
    [
        ({}, TOKEN, "sha256:" + "0" * 64, "not the one that was meant"),
        ({}, "abcdef.fedcba9876543210", HASH, "another secret"),
        ({}, "abcdee.0123456789abcdef", HASH, "does not know token abcdee"),
        ({"kubeconfig": "clusters: []"}, TOKEN, HASH, "cannot be read"),
        ({"kubeconfig": "]["}, TOKEN, HASH, "cannot be read"),
        ({"jws-kubeconfig-abcdef": "x"}, TOKEN, HASH, "another secret"),
    ],
)
def test_what_they_do_not_vouch_for_is_not(
    changed: dict[str, str], token: str, ca_hash: str, words: str
) -> None:
    with pytest.raises(SampanError) as raised:
        join.believe(info() | changed, Invitation.read("192.0.2.1", token, ca_hash))
    assert words in raised.value.message and raised.value.hint


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("https://192.0.2.1:41025", "https://192.0.2.1:41025"),
        ("192.0.2.1:41025", "https://192.0.2.1:41025"),
        ("192.0.2.1", "https://192.0.2.1:6443"),
        ("https://[2001:db8::1]:6443/", "https://[2001:db8::1]:6443"),
    ],
)
def test_addresses_of_a_cluster(server: str, expected: str) -> None:
    assert Invitation.read(server, TOKEN, HASH).server == expected


@pytest.mark.parametrize(
    ("server", "token", "ca_hash"),
    [
        ("http://192.0.2.1:6443", TOKEN, HASH),
        ("https://192.0.2.1:64430000", TOKEN, HASH),
        ("https://192.0.2.1/path", TOKEN, HASH),
        ("", TOKEN, HASH),
        ("192.0.2.1", "abc.def", HASH),
        ("192.0.2.1", TOKEN, "sha256:abc"),
        ("192.0.2.1", TOKEN, HASH.removeprefix("sha256:")),
    ],
)
def test_what_is_no_invitation(server: str, token: str, ca_hash: str) -> None:
    with pytest.raises(SampanError):
        Invitation.read(server, token, ca_hash)


@pytest.mark.parametrize(("days", "words"), [(2, "not valid yet"), (-800, "no longer valid")])
async def test_clocks_that_differ_are_named(days: float, words: str, tmp_path: Path) -> None:
    """A server whose certificate was made on another day than the one that is here."""
    pair = CA.issue("kube-apiserver", ips=["127.0.0.1"], server=True, now=RealClock().now() + days * 86_400)
    pair.save(tmp_path / "crt", tmp_path / "key")
    context = pki.server_context(tmp_path / "crt", tmp_path / "key")
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ssl.SSLCertVerificationError) as failed:
        await asyncio.open_connection("127.0.0.1", port, ssl=pki.client_context(CA.cert))
    told = join._untrusted(failed.value, "https://127.0.0.1", RealClock().now())
    assert words in told.message and "clocks" in told.hint
    server.close()


async def test_a_token_is_made_listed_and_deleted() -> None:
    async with Cluster(nodes=0, objects=cluster_info.objects(CONFIG, CA.cert.decode())) as cluster:
        making = asyncio.ensure_future(tokens.create(cluster.client, cluster.clock, 60.0, "for a test"))
        await cluster.settle()
        token = await making
        invitation = Invitation.read("192.0.2.1", str(token), HASH)
        told = await cluster.client.get("configmaps", "cluster-info", "kube-public")
        assert join.believe(told["data"], invitation) == CA.cert.decode()
        assert await tokens.present(cluster.client) == [token]
        await cluster.advance(61)
        assert await tokens.present(cluster.client) == []
        with pytest.raises(SampanError, match="no token") as refused:
            await tokens.delete(cluster.client, token.id, "sampan token list --name boat")
        assert "sampan token list --name boat" in refused.value.hint
