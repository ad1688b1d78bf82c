"""Who may approve and sign certificate requests, and what nobody may ask for.

CertificateApproval, CertificateSigning, CertificateSubjectRestriction; and what of a pod's certificate only the moment and
the signer tell, which the original judges with the rest of the status.
"""

from __future__ import annotations

import base64
import binascii

from sampan.api.status import ApiError, FieldError, forbidden_field, invalid, invalid_value
from sampan.base import pki
from sampan.base.clock import rfc3339_parse
from sampan.server.admission.attrs import CREATE, UPDATE, Attrs, Context, Plugin, only
from sampan.server.auth.authorize import MASTERS

_GROUP = "certificates.k8s.io"
_REQUESTS = f"certificatesigningrequests.{_GROUP}"
_POD_REQUESTS = f"podcertificaterequests.{_GROUP}"
_SKEW = 300.0  # seconds
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


def _may(attrs: Attrs, ctx: Context, verb: str, signer: str) -> bool:
    """The right for this signer, or for all of its domain."""
    domain = signer.partition("/")[0] + "/*"
    return any(
        ctx.authorizer.allowed(attrs.user, verb, _GROUP, "signers", "", name) for name in (signer, domain)
    )


def approve(attrs: Attrs, ctx: Context) -> None:
    signer = ((attrs.old or attrs.obj or {}).get("spec") or {}).get("signerName", "")
    if not _may(attrs, ctx, "approve", signer):
        raise attrs.forbidden(f'user not permitted to approve requests with signerName "{signer}"')


def sign(attrs: Attrs, ctx: Context) -> None:
    """Raises 403 when a certificate or a failure is set by somebody without the verb `sign` on the signer."""
    new, old = (attrs.obj or {}).get("status") or {}, (attrs.old or {}).get("status") or {}
    if new.get("certificate") == old.get("certificate") and _failed(new) == _failed(old):
        return
    signer = ((attrs.old or {}).get("spec") or {}).get("signerName", "")
    if not _may(attrs, ctx, "sign", signer):
        raise attrs.forbidden(f'user not permitted to sign requests with signerName "{signer}"')


def _failed(status: dict[str, object]) -> bool:
    return any(c.get("type") == "Failed" for c in status.get("conditions") or ())  # type: ignore[attr-defined]


def issue(attrs: Attrs, ctx: Context) -> None:
    """A pod's certificate begins about now, and comes from who may sign for its signer. Source: KEP-4317."""
    new, old = (attrs.obj or {}).get("status") or {}, (attrs.old or {}).get("status") or {}
    if new.get("certificateChain") == old.get("certificateChain"):
        return
    if abs(rfc3339_parse(new["notBefore"]) - ctx.clock.now()) >= _SKEW:
        detail = "must be set to within 5 minutes of kube-apiserver's current time"
        raise _invalid(attrs, invalid_value("status.notBefore", new["notBefore"], detail))
    signer = ((attrs.old or {}).get("spec") or {}).get("signerName", "")
    if not _may(attrs, ctx, "sign", signer):
        detail = f'User "{attrs.user.name}" is not permitted to "sign" for signer "{signer}"'
        raise _invalid(attrs, forbidden_field("spec.signerName", detail))


def _invalid(attrs: Attrs, cause: FieldError) -> ApiError:
    return invalid(attrs.row.group, attrs.row.kind, attrs.name, [cause])


def restrict_subject(attrs: Attrs, ctx: Context) -> None:
    """Raises 403 for a client certificate in the group `system:masters`, which no rule could take back."""
    spec = (attrs.obj or {}).get("spec") or {}
    if spec.get("signerName") != _CLIENT_SIGNER:
        return
    try:
        groups = pki.request_subject(base64.b64decode(spec.get("request", "")))[1]
    except (ValueError, binascii.Error):
        return  # validation says what is wrong with it
    if MASTERS in groups:
        raise attrs.forbidden(f"use of {_CLIENT_SIGNER} signer with {MASTERS} group is not allowed")


APPROVAL = Plugin(
    "CertificateApproval", only(_REQUESTS), only(UPDATE), validate=approve, subresources=only("approval")
)
SIGNING = Plugin(
    "CertificateSigning", only(_REQUESTS), only(UPDATE), validate=sign, subresources=only("status")
)
SUBJECT = Plugin("CertificateSubjectRestriction", only(_REQUESTS), only(CREATE), validate=restrict_subject)
POD_CERTIFICATE = Plugin(
    "PodCertificateIssuing", only(_POD_REQUESTS), only(UPDATE), validate=issue, subresources=only("status")
)
