"""PodCertificateRequests: what a node may ask for on behalf of a pod, and what a signer may answer.

Source: API reference, PodCertificateRequest; KEP-4317. What depends on the time of day or on who asks is judged by
`server.admission.certificates`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sampan.api.validate.base import (
    NONE,
    Errors,
    FieldError,
    dns_subdomain,
    immutable,
    invalid_value,
    invalid_whole,
    not_supported,
    required,
    too_long,
)
from sampan.api.validate.certificates import signer_name
from sampan.api.validate.meta import annotation_map
from sampan.base import pki
from sampan.base.clock import rfc3339_parse
from sampan.base.objects import Object

VERDICTS = ("Issued", "Denied", "Failed")
_SHORTEST, _LONGEST, _LONGEST_OWN = 3600, 91 * 86400, 86400  # seconds; the last for signers of kubernetes.io
_REFRESH_MARGIN = 600.0  # seconds
_REQUEST_LIMIT, _CHAIN_LIMIT, _UID_LIMIT = 10 * 1024, 100 * 1024, 128
_REASON_LIMIT, _MESSAGE_LIMIT = 1024, 32768
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_REQUEST, _CHAIN = "spec.stubPKCS10Request", "status.certificateChain"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def certified(signer: str) -> tuple[int, int]:
    """For how many seconds a certificate of this signer may be asked for, at least and at most."""
    domain = signer.partition("/")[0]
    own = domain == "kubernetes.io" or domain.endswith(".kubernetes.io")
    return _SHORTEST, _LONGEST_OWN if own else _LONGEST


def user_annotations(errors: Errors, path: str, given: dict[str, str]) -> None:
    """What a pod's author tells the signer: annotations whose keys name a domain."""
    annotation_map(errors, path, given)
    for key in given:
        if "/" not in key:
            detail = 'must be a domain-prefixed key (such as "acme.io/foo")'
            errors.append(invalid_value(path, key, detail))


def request(errors: Errors, obj: Object) -> None:
    spec = obj.get("spec") or NONE
    signer = spec.get("signerName", "")
    signer_name(errors, signer, "spec.signerName")
    user_annotations(errors, "spec.unverifiedUserAnnotations", spec.get("unverifiedUserAnnotations") or {})
    for kind in ("pod", "serviceAccount", "node"):
        dns_subdomain(errors, f"spec.{kind}Name", spec.get(f"{kind}Name", ""))
        uid = spec.get(f"{kind}UID", "")
        if not uid:
            errors.append(invalid_value(f"spec.{kind}UID", uid, "must not be empty"))
        elif len(uid) > _UID_LIMIT:
            errors.append(too_long(f"spec.{kind}UID", _UID_LIMIT))
    seconds = spec.get("maxExpirationSeconds")
    if seconds is None:
        errors.append(required("spec.maxExpirationSeconds", "must be set"))
        return
    least, most = certified(signer)
    if not least <= seconds <= most:
        detail = f"must be in the range [{least}, {most}]"
        errors.append(invalid_value("spec.maxExpirationSeconds", seconds, detail))
    _key(errors, spec.get("stubPKCS10Request", ""))


def _key(errors: Errors, text: str) -> None:
    """The size of the key is judged before anything is computed with it."""
    if len(text) > (_REQUEST_LIMIT + 2) // 3 * 4:
        errors.append(too_long(_REQUEST, _REQUEST_LIMIT))
        return
    try:
        body = base64.b64decode(text)
        found = x509.load_der_x509_csr(body)
        wrong = _key_problem(found)
        if not wrong and not found.is_signature_valid:
            wrong = "could not verify proof-of-possession signature"
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        wrong = "must be a valid PKCS#10 certificate signing request"
    if wrong:
        errors.append(invalid_whole(_REQUEST, wrong))


def _key_problem(found: x509.CertificateSigningRequest) -> str:
    key = found.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if key.curve.name in _CURVES else "elliptic public keys must use curve P256, P384, or P521"
    if isinstance(key, rsa.RSAPublicKey):
        return "" if key.key_size in (3072, 4096) else "RSA keys must have modulus size 3072 or 4096"
    return "unknown public key type; supported types are Ed25519, ECDSA, and RSA"


def request_update(errors: Errors, new: Object, old: Object) -> None:
    immutable(errors, "spec", new.get("spec"), old.get("spec"))


# The answer: one verdict, given once


def request_status(errors: Errors, new: Object, old: Object) -> None:
    status, before = _filled(new), _filled(old)
    count = len(errors)
    _conditions(errors, status.get("conditions") or [])
    if len(errors) > count:
        return
    if before.get("conditions"):
        if status != before:
            detail = "immutable after PodCertificateRequest is issued, denied, or failed"
            errors.append(invalid_whole("status", detail))
    elif not status.get("conditions"):
        if status != before:
            detail = 'status is immutable unless transitioning to "Issued", "Denied", or "Failed"'
            errors.append(invalid_whole("status", detail))
    elif status["conditions"][0]["type"] != "Issued":
        if len(status) > 1:
            detail = (
                "non-condition status fields must be empty when denying or failing the PodCertificateRequest"
            )
            errors.append(invalid_whole("status", detail))
    else:
        wrong = next(_issued(status, new.get("spec") or NONE), None)
        if wrong:
            errors.append(wrong)


def _filled(obj: Object) -> Object:
    return {field: value for field, value in (obj.get("status") or NONE).items() if value}


def _conditions(errors: Errors, given: list[Object]) -> None:
    for index, condition in enumerate(given):
        at = f"status.conditions[{index}]"
        if condition.get("type") not in VERDICTS:
            errors.append(not_supported(f"{at}.type", condition.get("type", ""), VERDICTS))
        elif index:
            detail = 'There may be at most one condition with type "Issued", "Denied", or "Failed"'
            errors.append(invalid_value(f"{at}.type", condition["type"], detail))
        if condition.get("status") != "True":
            errors.append(not_supported(f"{at}.status", condition.get("status", ""), ("True",)))
        if not condition.get("lastTransitionTime"):
            errors.append(required(f"{at}.lastTransitionTime", "must be set"))
        reason = condition.get("reason", "")
        if not reason:
            errors.append(required(f"{at}.reason", "must be set"))
        elif len(reason) > _REASON_LIMIT:
            errors.append(too_long(f"{at}.reason", _REASON_LIMIT))
        elif not _REASON.fullmatch(reason):
            detail = (
                "a condition reason must start with alphabetic character, optionally followed by a string of "
                "alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'"
            )
            errors.append(invalid_value(f"{at}.reason", reason, detail))
        if len(condition.get("message", "")) > _MESSAGE_LIMIT:
            errors.append(too_long(f"{at}.message", _MESSAGE_LIMIT))


def _issued(status: Object, spec: Object) -> Iterator[FieldError]:
    """What is wrong with a certificate, the gravest first: what follows it may be wrong because of it."""
    text = status.get("certificateChain", "")
    if len(text) > _CHAIN_LIMIT:
        yield too_long(_CHAIN, _CHAIN_LIMIT)
    blocks = pki.pem_blocks(text)
    if not blocks:
        yield invalid_value(_CHAIN, text, "issued certificate chain must contain at least one certificate")
    if any(label != "CERTIFICATE" for label, _ in blocks):
        detail = "issued certificate chain must consist entirely of CERTIFICATE PEM blocks"
        yield invalid_value(_CHAIN, text, detail)
    certificates: list[x509.Certificate] = []
    for _, body in blocks:
        try:
            certificates.append(x509.load_der_x509_certificate(body))
        except ValueError:
            which = "intermediate" if certificates else "leaf"
            yield invalid_value(_CHAIN, text, f"{which} certificate does not parse as valid X.509")
    yield from _leaf(certificates[0], text, spec)
    for field in ("notBefore", "notAfter", "beginRefreshAt"):
        if not status.get(field):
            where = "in the range [notbefore+10min, notafter-10min]"
            how = where if field == "beginRefreshAt" else "consistent with the issued certificate"
            yield required(f"status.{field}", f"must be present and {how}")
    yield from _times(certificates[0], status, spec)


def _leaf(leaf: x509.Certificate, text: str, spec: Object) -> Iterator[FieldError]:
    try:
        names = pki.dns_names(leaf)
        key = pki.public_key(leaf)
    except (ValueError, UnsupportedAlgorithm):
        yield invalid_value(_CHAIN, text, "leaf certificate does not parse as valid X.509")
        return
    for name in names:
        if not all(name.split(".")):
            detail = "leaf certificate's DNSName should not be empty, contain '..', or start or end with '.'"
            yield invalid_value(_CHAIN, name, detail)
    asked = x509.load_der_x509_csr(base64.b64decode(spec.get("stubPKCS10Request", "")))
    if key != pki.public_key(asked):
        yield invalid_value(_CHAIN, text, "leaf certificate was not issued to the requested public key")


def _times(leaf: x509.Certificate, status: Object, spec: Object) -> Iterator[FieldError]:
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    for field, moment in (("notBefore", begin), ("notAfter", end)):
        if rfc3339_parse(status[field]) != moment:
            detail = f"must be set to the {field[0].upper()}{field[1:]} time encoded in the leaf certificate"
            yield invalid_value(f"status.{field}", status[field], detail)
    if end - begin < _SHORTEST:
        yield invalid_value(_CHAIN, f"{end - begin:.0f}s", "leaf certificate lifetime must be >= 1 hour")
    most = spec.get("maxExpirationSeconds", 0)
    if end - begin > most:
        detail = f"leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})"
        yield invalid_value(_CHAIN, f"{end - begin:.0f}s", detail)
    renewal = rfc3339_parse(status["beginRefreshAt"])
    if renewal < begin + _REFRESH_MARGIN:
        detail = "must be at least 10 minutes after status.notBefore"
        yield invalid_value("status.beginRefreshAt", status["beginRefreshAt"], detail)
    if renewal > end - _REFRESH_MARGIN:
        detail = "must be at least 10 minutes before status.notAfter"
        yield invalid_value("status.beginRefreshAt", status["beginRefreshAt"], detail)
