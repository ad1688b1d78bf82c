"""What `up` signs: the names of the API server, a key that clients of all kinds can load, and nothing for others' eyes."""

from __future__ import annotations

import ssl

import pytest

from sampan.base import pki
from sampan.cluster import credentials
from sampan.cluster.config import ClusterConfig

CONFIG = ClusterConfig("x", fabric="10.89.7.0/24")


@pytest.fixture
def signed(tmp_path):
    credentials.ensure(CONFIG, tmp_path)
    return tmp_path


def test_pods_may_call_the_server_by_every_name_that_dns_has_for_it(signed):
    dns, ips = pki.certificate_names((signed / "apiserver.crt").read_bytes())
    service = "kubernetes.default.svc"
    assert {"kubernetes", "kubernetes.default", service, f"{service}.cluster.local"} <= dns
    assert CONFIG.api_service_ip in ips


def test_java_clients_can_load_the_administrators_key(signed):
    assert (signed / "admin.key").read_text().startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    ssl.create_default_context().load_cert_chain(signed / "admin.crt", signed / "admin.key")
    peer = pki.peer_of(ssl.PEM_cert_to_DER_cert((signed / "admin.crt").read_text()))
    assert (peer["cn"], peer["o"]) == ("kubernetes-admin", ["system:masters"])


def test_what_is_there_is_kept_and_keys_are_private(signed):
    before = {path.name: path.read_bytes() for path in signed.iterdir()}
    credentials.ensure(CONFIG, signed)
    assert {path.name: path.read_bytes() for path in signed.iterdir()} == before
    keys = list(signed.glob("*.key"))
    assert len(keys) == 7 and {path.stat().st_mode & 0o777 for path in keys} == {0o600}
