"""Certificates that Go accepts are accepted, those of strangers are not."""

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sampan.base import tls

NAME = "hook.example"


def pair(directory):
    """A certificate that signed itself and says nothing about keys, as `openssl req -x509` of old made them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 7, now - day, now + day)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    pem = serialization.Encoding.PEM
    chain = directory / "chain.pem"
    chain.write_bytes(
        made.sign(key, hashes.SHA256()).public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain


def shake_hands(client, chain):
    """A handshake in memory. Raises ssl.SSLCertVerificationError."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(chain)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there, server_hostname=NAME),
        serving.wrap_bio(there, back, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version()


def test_a_certificate_without_key_identifiers_is_good_enough(tmp_path):
    chain = pair(tmp_path)
    assert shake_hands(tls.client_context(file=str(chain)), chain) == "TLSv1.3"
    text = chain.read_text().partition("-----BEGIN PRIVATE")[0]
    assert shake_hands(tls.client_context(data=text), chain) == "TLSv1.3"


def test_a_stranger_is_refused_unless_nobody_asks(tmp_path):
    chain = pair(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls.client_context(), chain)
    assert shake_hands(tls.client_context(verify=False), chain) == "TLSv1.3"
