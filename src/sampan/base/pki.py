"""Certificates and keys: one small authority on P-256, whose files an owner alone can read.

A cluster signs its own servers, nodes and administrators. All keys are on P-256 but those that others' programs load:
many Java clients (fabric8's, by it Spark and Jenkins) read no key but RSA. `now` is in seconds since the epoch; None is the machine's.
Sources: RFC 5280; Kubernetes' "PKI certificates and requirements" (CN is the user, O its groups).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import hashlib
import ipaddress
import os
import secrets
import ssl
import string
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sampan.base import tls, tls_plain
from sampan.base.clock import RealClock

DAY = 86_400.0
_AUTHORITY_DAYS = 3650
_LEAF_DAYS = 365
_BACKDATE = 300.0  # seconds: a node whose clock is a little behind must not refuse a fresh certificate
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
_Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate (or chain) and its private key, both PEM."""

    cert: bytes
    key: bytes

    def save(self, cert_path: Path, key_path: Path) -> None:
        """Both files, each replaced in one step; the key is readable by its owner only."""
        write_file(key_path, self.key, 0o600)
        write_file(cert_path, self.cert, 0o644)

    @classmethod
    def load(cls, cert_path: Path, key_path: Path) -> KeyPair:
        return cls(cert_path.read_bytes(), key_path.read_bytes())


class CA:
    """Signs certificates. `cert` is its own, as PEM: what others must trust."""

    def __init__(self, pair: KeyPair) -> None:
        self.pair = pair
        self.cert = pair.cert
        self._certificate = x509.load_pem_x509_certificate(pair.cert)
        self._key = load_key(pair.key)

    @classmethod
    def create(cls, common_name: str, now: float | None = None) -> CA:
        """A new authority, valid for ten years."""
        return cls(_self_signed(ec.generate_private_key(ec.SECP256R1()), common_name, now, None))

    @classmethod
    def fixed(cls) -> CA:
        """The same authority every time, byte for byte, from 2026 on: for tests only, its key is public."""
        key = seeded_key("sampan")
        serial = int.from_bytes(hashlib.sha256(b"sampan").digest()[:8], "big") | 1
        return cls(_self_signed(key, "sampan-test", 1_767_225_600.0, serial))

    @classmethod
    def load_or_create(
        cls, cert_path: Path, key_path: Path, common_name: str, now: float | None = None
    ) -> CA:
        """The authority in these files; a missing one is made and saved. Blocking file work."""
        if cert_path.exists() and key_path.exists():
            return cls(KeyPair.load(cert_path, key_path))
        ca = cls.create(common_name, now)
        ca.pair.save(cert_path, key_path)
        return ca

    def issue(
        self,
        common_name: str,
        organizations: Sequence[str] = (),
        *,
        dns: Iterable[str] = (),
        ips: Iterable[str] = (),
        server: bool = False,
        client: bool = True,
        days: float = _LEAF_DAYS,
        now: float | None = None,
        for_all: bool = False,
    ) -> KeyPair:
        """A new key and certificate. CN and O become user and groups when a client shows it.

        for_all: with a key that every client can load, RSA of 2048 bits as PKCS #1; it takes 10 to 100 ms to find one.
        """
        key = rsa.generate_private_key(65537, 2048) if for_all else ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(n) for n in dns] + [x509.IPAddress(ipaddress.ip_address(i)) for i in ips]
        usages = [u for u, wanted in ((_SERVER, server), (_CLIENT, client)) if wanted]
        cert = self._sign(_name(common_name, organizations), key.public_key(), names, usages, now, days * DAY)
        form = (
            serialization.PrivateFormat.TraditionalOpenSSL if for_all else serialization.PrivateFormat.PKCS8
        )
        return KeyPair(cert, _key_pem(key, form))

    def sign_request(
        self,
        csr: bytes,
        usages: Sequence[str],
        now: float | None = None,
        seconds: float = _LEAF_DAYS * DAY,
    ) -> bytes:
        """The certificate (PEM) for a request (PEM). `usages` as in certificates.k8s.io, e.g. "client auth".

        Raises ValueError when the request cannot be read or its own signature is wrong.
        """
        request = x509.load_pem_x509_csr(csr)
        if not request.is_signature_valid:
            raise ValueError("certificate request is signed by another key")
        try:
            names = list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            names = []
        extended = [_USAGES[u] for u in usages if u in _USAGES]
        public = request.public_key()
        return self._sign(request.subject, public, names, extended, now, seconds)

    def _sign(
        self,
        subject: x509.Name,
        public: object,
        names: Sequence[x509.GeneralName],
        usages: list[x509.ObjectIdentifier],
        now: float | None,
        seconds: float,
    ) -> bytes:
        now = _now(now)
        not_after = min(_moment(now + seconds), self._certificate.not_valid_after_utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(public)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now - _BACKDATE))
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
_USAGES = {
    "server auth": _SERVER,
    "client auth": _CLIENT,
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
}


def _self_signed(
    key: ec.EllipticCurvePrivateKey, common_name: str, now: float | None, serial: int | None
) -> KeyPair:
    now = _now(now)
    name = _name(common_name, ())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(_moment(now - _BACKDATE))
        .not_valid_after(_moment(now + _AUTHORITY_DAYS * DAY))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if serial is None:
        cert = builder.sign(key, hashes.SHA256())
    else:
        cert = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return KeyPair(cert.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _now(now: float | None) -> float:
    return RealClock().now() if now is None else now


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _key_pem(key: PrivateKey, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


# Keys on their own: what service-account tokens are signed with (ES256).


def new_key() -> bytes:
    """A new private key on P-256, PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def seeded_key(seed: str) -> ec.EllipticCurvePrivateKey:
    """The key that belongs to this text; for tests only."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big") % (_CURVE_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def fixed_key(seed: str = "sampan-tokens") -> bytes:
    """The same private key (PEM) every time; for tests only."""
    return _key_pem(seeded_key(seed))


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A private key from PEM. Raises ValueError unless it is an elliptic-curve key."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic-curve private key")
    return key


def secret(length: int) -> str:
    """Letters and digits nobody can guess."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(length))


def load_or_create_signing_key(path: Path) -> bytes:
    """The private key (PEM) in this file; a missing one is made and saved with mode 0600."""
    if path.exists():
        return path.read_bytes()
    pem = new_key()
    write_private(path, pem)
    return pem


def certificate_request(
    common_name: str, organizations: Sequence[str] = (), *, dns: Iterable[str] = (), ips: Iterable[str] = ()
) -> tuple[bytes, bytes]:
    """A new key and a signing request for it, both PEM: `(request, key)`. What a joining node sends."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name, organizations))
    names = [x509.DNSName(n) for n in dns] + [x509.IPAddress(ipaddress.ip_address(i)) for i in ips]
    if names:
        request = request.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _key_pem(key)


POD_KEYS = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
_CURVES: dict[str, tuple[ec.EllipticCurve, _Digest]] = {
    "ECDSAP256": (ec.SECP256R1(), hashes.SHA256()),
    "ECDSAP384": (ec.SECP384R1(), hashes.SHA384()),
    "ECDSAP521": (ec.SECP521R1(), hashes.SHA512()),
}


def empty_request(kind: str) -> tuple[bytes, bytes]:
    """A new key of a kind in `POD_KEYS` (PEM, PKCS #8) and a request (DER) that says nothing but who holds it:
    `(request, key)`. RSA takes seconds, in which the interpreter is free. Raises ValueError for another kind."""
    key: PrivateKey
    digest: _Digest | None = hashes.SHA256()
    if kind in _CURVES:
        curve, digest = _CURVES[kind]
        key = ec.generate_private_key(curve)
    elif kind == "ED25519":
        key, digest = ed25519.Ed25519PrivateKey.generate(), None
    elif kind in POD_KEYS:
        key = rsa.generate_private_key(65537, int(kind.removeprefix("RSA")))
    else:
        raise ValueError(f"unknown key type {kind!r}")
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    return request.public_bytes(serialization.Encoding.DER), _key_pem(key)


def public_key(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """The public key of a certificate or request, DER. Raises ValueError, UnsupportedAlgorithm."""
    return holder.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def dns_names(cert: x509.Certificate) -> list[str]:
    """The DNS names that a certificate is for. Raises ValueError."""
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return list(names.get_values_for_type(x509.DNSName))


def pem_blocks(text: str) -> list[tuple[str, bytes]]:
    """`(label, content)` of the blocks in a text, without their headers and what stands between them (RFC 7468, RFC 1421).
    What is no base64 is left out."""
    found, label, body = [], "", ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("-----BEGIN ") and line.endswith("-----"):
            label, body = line[11:-5], ""
        elif label and line == f"-----END {label}-----":
            with contextlib.suppress(binascii.Error):
                found.append((label, base64.b64decode(body, validate=True)))
            label = ""
        elif ":" not in line:
            body += line
    return found


def request_subject(csr: bytes) -> tuple[str, tuple[str, ...]]:
    """`(common name, organizations)` a signing request (PEM) asks for. Raises ValueError."""
    subject = x509.load_pem_x509_csr(csr).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else "", tuple(str(g.value) for g in groups)


def request_names(csr: bytes) -> tuple[set[str], set[str]]:
    """`(DNS names, addresses)` a signing request (PEM) asks for. Raises ValueError."""
    try:
        found = (
            x509.load_pem_x509_csr(csr).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except x509.ExtensionNotFound:
        return set(), set()
    if any(not isinstance(name, x509.DNSName | x509.IPAddress) for name in found):
        raise ValueError("only DNS names and addresses are expected")
    return set(found.get_values_for_type(x509.DNSName)), set(
        map(str, found.get_values_for_type(x509.IPAddress))
    )


def certificate_names(cert: bytes) -> tuple[set[str], set[str]]:
    """`(DNS names, addresses)` the first certificate in a PEM text is good for."""
    try:
        found = (
            x509.load_pem_x509_certificate(cert)
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value
        )
    except x509.ExtensionNotFound:
        return set(), set()
    addresses = found.get_values_for_type(x509.IPAddress)
    return set(found.get_values_for_type(x509.DNSName)), {str(address) for address in addresses}


def public_key_hash(cert: bytes) -> str:
    """`sha256:HEX` of a certificate's public key, by which kubeadm pins an authority (RFC 7469, 2.4)."""
    return f"sha256:{hashlib.sha256(public_key(x509.load_pem_x509_certificate(cert))).hexdigest()}"


def lifetime(cert: bytes) -> tuple[float, float]:
    """From when to when the first certificate in a PEM text holds, in seconds since the epoch."""
    found = x509.load_pem_x509_certificate(cert)
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def expires(cert: bytes) -> float:
    """When the first certificate in a PEM text ends, in seconds since the epoch."""
    return x509.load_pem_x509_certificate(cert).not_valid_after_utc.timestamp()


def write_private(path: Path, data: bytes) -> None:
    """Replace a file that only its owner may read."""
    write_file(path, data, 0o600)


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Replace a file in one step: readers see the old or the new content, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(handle, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


# TLS settings.


def server_context(cert_path: Path, key_path: Path, client_ca: bytes | None = None) -> ssl.SSLContext:
    """For a listener. With `client_ca` a client may show a certificate, which must then be good (CERT_OPTIONAL).

    To renew the certificate call `load_cert_chain` on the same context: new connections get the new one.
    """
    context = tls_plain.ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert_path, key_path)
    context.set_alpn_protocols(["http/1.1"])
    if client_ca:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_ca.decode())
    return context


def client_context(
    ca: bytes | None, cert_path: Path | None = None, key_path: Path | None = None
) -> ssl.SSLContext:
    """For a connection to a server whose certificate `ca` (PEM) signed; without one, the system's authorities."""
    context = tls.client_context(data=ca.decode() if ca else "")
    if cert_path:
        context.load_cert_chain(cert_path, key_path)
    return context


def peer_of(der: bytes) -> dict[str, object]:
    """What `Request.peer` holds for a client's certificate (DER): `{"cn", "o", "der"}`."""
    subject = x509.load_der_x509_certificate(der).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return {"cn": str(names[0].value) if names else "", "o": [str(g.value) for g in groups], "der": der}
