"""A signer of certificates for pods, such as users of Kubernetes bring: what it writes into a request's status."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from sampan.base import pki
from sampan.base.clock import rfc3339

REQUESTS = "podcertificaterequests.certificates.k8s.io"
SIGNER = "example.com/tester"


def certificate(request: dict[str, Any], now: float, seconds: float, *names: str) -> str:
    """A certificate (PEM) for the key of a request."""
    key = x509.load_der_x509_csr(base64.b64decode(request["spec"]["stubPKCS10Request"])).public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request["spec"]["podName"])])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key)
    begin, end = (datetime.fromtimestamp(int(moment), UTC) for moment in (now, now + seconds))
    builder = builder.not_valid_before(begin).not_valid_after(end).serial_number(1)
    if names:
        known = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(known, critical=False)
    made = builder.sign(pki.seeded_key("a signer"), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def verdict(kind: str, reason: str = "Tested", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def issued(request: dict[str, Any], now: float, seconds: float = 86_400.0) -> dict[str, Any]:
    """The status of a request that is granted; to be renewed when half of the time has passed."""
    return {
        "conditions": [verdict("Issued")],
        "certificateChain": certificate(request, now, seconds),
        "notBefore": rfc3339(now),
        "beginRefreshAt": rfc3339(now + seconds / 2),
        "notAfter": rfc3339(now + seconds),
    }
