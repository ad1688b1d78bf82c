"""Certificate requests and trust bundles. Source: API reference, certificates.k8s.io/v1; "Certificate Signing Requests"."""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from sampan.api.validate.base import (
    NONE,
    Errors,
    duplicate,
    forbidden_field,
    invalid_value,
    label_problems,
    not_supported,
    required,
    subdomain_problems,
    too_long,
)
from sampan.base.objects import Object

_USAGES = frozenset(
    (
        "signing",
        "digital signature",
        "content commitment",
        "key encipherment",
        "key agreement",
        "data encipherment",
        "cert sign",
        "crl sign",
        "encipher only",
        "decipher only",
        "any",
        "server auth",
        "client auth",
        "code signing",
        "email protection",
        "s/mime",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "timestamping",
        "ocsp signing",
        "microsoft sgc",
        "netscape sgc",
    )
)
_SHORTEST = 600
_HEAD = "PEM block type must be CERTIFICATE REQUEST"


def request(errors: Errors, obj: Object) -> None:
    """A request in PEM (RFC 2986), a signer, usages, ten minutes or more. Source: API reference, CertificateSigningRequestSpec v1."""
    spec = obj.get("spec") or NONE
    wrong = _request_problem(spec.get("request", ""))
    if wrong:
        errors.append(invalid_value("spec.request", spec.get("request", ""), wrong))
    usages = spec.get("usages") or ()
    if not usages:
        errors.append(required("spec.usages"))
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            errors.append(not_supported(f"spec.usages[{index}]", usage, sorted(_USAGES)))
        if usage in usages[:index]:
            errors.append(duplicate(f"spec.usages[{index}]", usage))
    if spec.get("signerName") == "kubernetes.io/legacy-unknown":
        detail = "the legacy signerName is not allowed via this API version"
        errors.append(invalid_value("spec.signerName", spec["signerName"], detail))
    else:
        signer_name(errors, spec.get("signerName", ""), "spec.signerName")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST:
        detail = "may not specify a duration less than 600 seconds (10 minutes)"
        errors.append(invalid_value("spec.expirationSeconds", seconds, detail))
    _conditions(errors, obj)


def _request_problem(text: str) -> str:
    """Why this is no PKCS#10 request in PEM within base64, or an empty text."""
    try:
        body = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return _HEAD
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in body:
        return _HEAD
    try:
        found = x509.load_pem_x509_csr(body)
        if not found.is_signature_valid:
            return "invalid signature on CSR"
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        return str(error) or "malformed request"
    return ""


def signer_name(errors: Errors, name: str, path: str) -> None:
    """`domain/path`, such as example.com/my-signer."""
    if not name:
        errors.append(required(path))
        return
    domain, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        errors.append(invalid_value(path, name, detail))
        return
    if "." not in domain:
        errors.append(
            invalid_value(path, name, "should be a domain with at least two segments separated by dots")
        )
    for problem in subdomain_problems(domain):
        errors.append(invalid_value(path, domain, f"validating domain: {problem}"))
    for part in rest.split("."):
        for problem in label_problems(part):
            errors.append(invalid_value(path, rest, f"validating label {part!r}: {problem}"))
    if len(name) > 571:
        errors.append(too_long(path, 571))


def _conditions(errors: Errors, obj: Object) -> None:
    at, seen = "status.conditions", set()
    given = (obj.get("status") or NONE).get("conditions") or ()
    for index, condition in enumerate(given):
        kind, state = condition.get("type", ""), condition.get("status", "")
        where = f"{at}[{index}]"
        if not kind:
            errors.append(required(f"{where}.type"))
        if not state:
            errors.append(required(f"{where}.status"))
        elif kind in ("Approved", "Denied", "Failed"):
            if state != "True":
                errors.append(not_supported(f"{where}.status", state, ("True",)))
        elif state not in ("True", "False", "Unknown"):
            errors.append(not_supported(f"{where}.status", state, ("False", "True", "Unknown")))
        if kind in seen:
            errors.append(duplicate(f"{where}.type", kind))
        seen.add(kind)
    if {"Approved", "Denied"} <= seen:
        errors.append(invalid_value(at, "Denied", "Approved and Denied conditions are mutually exclusive"))


def request_update(errors: Errors, new: Object, old: Object) -> None:
    request(errors, new)
    _kept(errors, new, old)


def _kept(errors: Errors, new: Object, old: Object) -> None:
    """A decision is not taken back."""
    after = {c.get("type") for c in (new.get("status") or NONE).get("conditions") or ()}
    before = {c.get("type") for c in (old.get("status") or NONE).get("conditions") or ()}
    for kind in ("Approved", "Denied", "Failed"):
        if kind in before and kind not in after:
            detail = f'updates may not remove a condition of type "{kind}"'
            errors.append(forbidden_field("status.conditions", detail))


def request_status(errors: Errors, new: Object, old: Object) -> None:
    """Conditions are not taken back; a certificate is set once."""
    _conditions(errors, new)
    _kept(errors, new, old)
    issued, was = ((o.get("status") or NONE).get("certificate") for o in (new, old))
    if was and issued != was:
        errors.append(
            forbidden_field(
                "status.certificate", "updates may not set certificate content if it is set already"
            )
        )
    elif issued:
        _chain(errors, issued, "status.certificate")


def _chain(errors: Errors, text: str, path: str) -> None:
    try:
        body = base64.b64decode(text, validate=True)
        if not x509.load_pem_x509_certificates(body):
            raise ValueError
    except (binascii.Error, ValueError):
        detail = "must contain at least one CERTIFICATE PEM block"
        errors.append(invalid_value(path, "<certificate data>", detail))


# ClusterTrustBundle


def bundle_name(text: str) -> list[str]:
    """A bundle of a signer is called `signer:name` with the slash written as a colon."""
    return list(subdomain_problems(text.rpartition(":")[2]))


def bundle(errors: Errors, obj: Object) -> None:
    """The name of a signer's bundle begins with the signer's. Source: API reference, ClusterTrustBundleSpec; KEP-3257."""
    spec, name = obj.get("spec") or NONE, obj["metadata"].get("name", "")
    signer, text = spec.get("signerName", ""), spec.get("trustBundle", "")
    if signer:
        signer_name(errors, signer, "spec.signerName")
        prefix = signer.replace("/", ":") + ":"
        if not name.startswith(prefix):
            detail = f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
            errors.append(invalid_value("metadata.name", name, detail))
    elif ":" in name:
        detail = 'ClusterTrustBundle without signer name must not have ":" in its name'
        errors.append(invalid_value("metadata.name", name, detail))
    if "-----BEGIN" not in text:
        errors.append(
            invalid_value("spec.trustBundle", "<value omitted>", "at least one trust anchor must be provided")
        )
        return
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        detail = "entry 0 does not parse as X.509"
        errors.append(invalid_value("spec.trustBundle", "<value omitted>", detail))


def bundle_update(errors: Errors, new: Object, old: Object) -> None:
    """Its signer stays."""
    bundle(errors, new)
    after, before = ((o.get("spec") or NONE).get("signerName", "") for o in (new, old))
    if after != before:
        errors.append(invalid_value("spec.signerName", after, "field is immutable"))
