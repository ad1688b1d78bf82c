"""Requests for certificates of pods, and the answers of signers."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pod_signer import REQUESTS as KIND
from pod_signer import SIGNER, certificate, issued, verdict
from sampan.base import pki
from sampan.base.clock import rfc3339

NOW = 1_800_000_000.0


def stub(key=None, algorithm=hashes.SHA256()):
    if key is None:
        return base64.b64encode(pki.empty_request("ECDSAP256")[0]).decode()
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)
    return base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()


def tampered():
    body = bytearray(base64.b64decode(stub()))
    body[-1] ^= 1
    return base64.b64encode(body).decode()


REQUEST = {
    "metadata": {},
    "spec": {
        "signerName": SIGNER,
        "podName": "p",
        "podUID": "1",
        "serviceAccountName": "default",
        "serviceAccountUID": "2",
        "nodeName": "n",
        "nodeUID": "3",
        "stubPKCS10Request": stub(),
    },
}
GRANTED = issued(REQUEST, NOW)


def test_a_day_is_what_nobody_else_says(judge):
    assert judge.complete(KIND, REQUEST)[1]["spec"]["maxExpirationSeconds"] == 86_400
    assert judge.create(KIND, REQUEST) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.signerName", "x", ["spec.signerName: Invalid value"]),
        ("spec.podName", "A", ["spec.podName: Invalid value"]),
        ("spec.podUID", "", ['spec.podUID: Invalid value: "": must not be empty']),
        ("spec.nodeUID", "u" * 129, ["spec.nodeUID: Too long: may not be more than 128 bytes"]),
        ("spec.maxExpirationSeconds", 3600, []),
        ("spec.maxExpirationSeconds", 3599, ["Invalid value: 3599: must be in the range [3600, 7862400]"]),
        ("spec.maxExpirationSeconds", 7862401, ["must be in the range [3600, 7862400]"]),
        ("spec.unverifiedUserAnnotations", {"a.b/c": "any value"}, []),
        ("spec.unverifiedUserAnnotations", {"c": "v"}, ["must be a domain-prefixed key"]),
        ("spec.unverifiedUserAnnotations", {"a.b/c": "v" * 262_144}, ["Too long"]),
        ("spec.stubPKCS10Request", "", ["must be a valid PKCS#10 certificate signing request"]),
        ("spec.stubPKCS10Request", "AAAA", ["must be a valid PKCS#10 certificate signing request"]),
        ("spec.stubPKCS10Request", tampered(), ["could not verify proof-of-possession signature"]),
        ("spec.stubPKCS10Request", "AAAA" * 4096, ["Too long: may not be more than 10240 bytes"]),
        ("spec.stubPKCS10Request", stub(ec.generate_private_key(ec.SECP256K1())), ["P256, P384, or P521"]),
        ("spec.stubPKCS10Request", stub(rsa.generate_private_key(65537, 1024)), ["size 3072 or 4096"]),
    ],
)
def test_what_may_be_asked(judge, put, path, value, expected):
    lines = judge.create(KIND, put(REQUEST, path, value))
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert part in line


@pytest.mark.parametrize("kind", [k for k in pki.POD_KEYS if not k.startswith("RSA")])
def test_keys_that_pods_may_have(judge, put, kind):
    request = base64.b64encode(pki.empty_request(kind)[0]).decode()
    assert judge.create(KIND, put(REQUEST, "spec.stubPKCS10Request", request)) == []


def test_signers_of_kubernetes_give_a_day_at_most(judge, put):
    request = put(REQUEST, "spec.signerName", "kubernetes.io/kube-apiserver-client-pod")
    assert judge.create(KIND, request) == []
    (line,) = judge.create(KIND, put(request, "spec.maxExpirationSeconds", 86_401))
    assert "must be in the range [3600, 86400]" in line


def test_nothing_of_a_request_changes(judge, put):
    (line,) = judge.update(KIND, put(REQUEST, "spec.podName", "q"), REQUEST)
    assert line.startswith("spec: Invalid value") and line.endswith("field is immutable")
    assert judge.update(KIND, put(REQUEST, "metadata.labels", {"a": "b"}), REQUEST) == []


def answered(judge, status, before=None):
    """What is wrong with a status, dated as the server does."""
    for one in status.get("conditions", ()):
        one.setdefault("lastTransitionTime", rfc3339(NOW))
    return judge.update(KIND, REQUEST | {"status": status}, REQUEST | {"status": before or {}}, "status")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ""),
        ({"conditions": [verdict("Denied")]}, ""),
        ({"conditions": [verdict("Failed")]}, ""),
        ({"conditions": [verdict("Approved")]}, 'conditions[0].type: Unsupported value: "Approved"'),
        ({"conditions": [verdict("Denied"), verdict("Failed")]}, "There may be at most one condition"),
        ({"conditions": [verdict("Denied") | {"status": "False"}]}, 'status: Unsupported value: "False"'),
        ({"conditions": [verdict("Denied", "")]}, "conditions[0].reason: Required value"),
        ({"conditions": [verdict("Denied", "a b")]}, "a condition reason must start with alphabetic"),
        ({"conditions": [verdict("Denied", message="m" * 32769)]}, "Too long"),
        (GRANTED | {"conditions": [verdict("Denied")]}, "non-condition status fields must be empty"),
        (GRANTED | {"conditions": []}, "status is immutable unless transitioning"),
    ],
)
def test_verdicts(judge, status, expected):
    lines = answered(judge, status)
    assert (expected in lines[0] and len(lines) == 1) if expected else lines == []


def renewed_at(seconds):
    return {"beginRefreshAt": rfc3339(NOW + seconds)}


def of_other_length(seconds):
    return {
        "certificateChain": certificate(REQUEST, NOW, seconds),
        "notAfter": rfc3339(NOW + seconds),
    }


OTHER = {"spec": REQUEST["spec"] | {"stubPKCS10Request": stub()}}
KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ""),
        ({"certificateChain": "hello\n" + GRANTED["certificateChain"] * 2}, ""),
        ({"certificateChain": ""}, "must contain at least one certificate"),
        ({"certificateChain": KEY}, "must consist entirely of CERTIFICATE PEM blocks"),
        ({"certificateChain": KEY.replace("PRIVATE KEY", "CERTIFICATE")}, "leaf certificate does not parse"),
        (
            {"certificateChain": GRANTED["certificateChain"] + KEY.replace("PRIVATE KEY", "CERTIFICATE")},
            "intermediate certificate does not parse",
        ),
        ({"certificateChain": "-----BEGIN CERTIFICATE-----\n" * 4000}, "Too long"),
        ({"certificateChain": certificate(OTHER, NOW, 86_400)}, "not issued to the requested public key"),
        ({"certificateChain": certificate(REQUEST, NOW, 86_400, "a..b")}, "DNSName should not"),
        ({"notBefore": None}, "status.notBefore: Required value: must be present and consistent"),
        ({"beginRefreshAt": None}, "status.beginRefreshAt: Required value: must be present and in the range"),
        ({"notBefore": rfc3339(NOW + 1)}, "must be set to the NotBefore time encoded"),
        ({"notAfter": rfc3339(NOW + 1)}, "must be set to the NotAfter time encoded"),
        (of_other_length(3599), "lifetime must be >= 1 hour"),
        (of_other_length(86_401), "lifetime must be <= spec.maxExpirationSeconds (86400)"),
        (renewed_at(600), ""),
        (renewed_at(599), "must be at least 10 minutes after status.notBefore"),
        (renewed_at(85_801), "must be at least 10 minutes before status.notAfter"),
    ],
)
def test_certificates(judge, change, expected):
    status = {field: value for field, value in (GRANTED | change).items() if value is not None}
    lines = answered(judge, status)
    assert (expected in lines[0] and len(lines) == 1) if expected else lines == []


@pytest.mark.parametrize("before", [GRANTED, {"conditions": [verdict("Denied")]}])
def test_a_verdict_is_the_last_word(judge, before):
    assert answered(judge, before, before) == []
    (line,) = answered(judge, {"conditions": [verdict("Failed")]}, before)
    assert "immutable after PodCertificateRequest is issued, denied, or failed" in line
