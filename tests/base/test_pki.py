import ssl
import stat

import pytest
from cryptography import x509

from sampan.base import pki

NOW = 1_767_225_600.0


@pytest.fixture(scope="module")
def ca():
    return pki.CA.fixed()


def test_the_fixed_authority_is_the_same_every_time(ca):
    assert pki.CA.fixed().cert == ca.cert
    assert pki.fixed_key() == pki.fixed_key()


def test_a_leaf_carries_user_groups_names_and_ends_before_its_authority(ca):
    pair = ca.issue(
        "system:node:n1", ["system:nodes"], dns=["n1"], ips=["10.0.0.1", "::1"], server=True, now=NOW
    )
    cert = x509.load_pem_x509_certificate(pair.cert)
    peer = pki.peer_of(ssl.PEM_cert_to_DER_cert(pair.cert.decode()))
    assert (peer["cn"], peer["o"]) == ("system:node:n1", ["system:nodes"])
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]
    assert [str(i) for i in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]
    assert pki.expires(pair.cert) == NOW + 365 * pki.DAY
    assert pki.expires(ca.issue("x", days=99_999, now=NOW).cert) == pki.expires(ca.cert)


def test_a_request_is_signed_with_its_own_subject(ca):
    csr, _ = pki.certificate_request("jane", ["dev", "ops"])
    assert pki.request_subject(csr) == ("jane", ("dev", "ops"))
    cert = ca.sign_request(csr, ["client auth", "digital signature"], NOW, 600)
    assert pki.expires(cert) == NOW + 600
    assert pki.peer_of(ssl.PEM_cert_to_DER_cert(cert.decode()))["cn"] == "jane"
    with pytest.raises(ValueError):
        ca.sign_request(b"nonsense", [], NOW)


def test_files_are_kept_and_keys_are_private(tmp_path):
    cert, key = tmp_path / "pki/ca.crt", tmp_path / "pki/ca.key"
    first = pki.CA.load_or_create(cert, key, "test")
    assert pki.CA.load_or_create(cert, key, "test").cert == first.cert
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(p.name for p in key.parent.iterdir()) == ["ca.crt", "ca.key"]
    signing = pki.load_or_create_signing_key(tmp_path / "sa.key")
    assert pki.load_or_create_signing_key(tmp_path / "sa.key") == signing


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext):
    """A whole TLS handshake in memory; returns the certificate the client showed (DER)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    two = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [one, two]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return two.getpeercert(binary_form=True)


@pytest.mark.parametrize("with_certificate", [True, False])
def test_a_client_may_but_need_not_show_a_certificate(tmp_path, with_certificate):
    ca = pki.CA.create("test")
    for name, server in (("server", True), ("client", False)):
        pair = ca.issue(name, ["g"], dns=["localhost"], server=server)
        pair.save(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
    server = pki.server_context(tmp_path / "server.crt", tmp_path / "server.key", ca.cert)
    files = (tmp_path / "client.crt", tmp_path / "client.key") if with_certificate else ()
    shown = _handshake(server, pki.client_context(ca.cert, *files))
    assert (pki.peer_of(shown)["cn"] if shown else None) == ("client" if with_certificate else None)
