"""What controllers cannot do by writing objects: sign certificates and tokens, make and remove volumes'
directories on this machine.

Each effect is called by the runner with (namespace, name) of an object and answers a JSON value, {"error": text} when it
could not; it may be called again for the same object.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from sampan.api import meta
from sampan.api.status import ApiError
from sampan.base import pki
from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.execute import Effect
from sampan.server.auth.tokens import TokenIssuer
from sampan.server.lookup import Lookup

CSRS = "certificatesigningrequests.certificates.k8s.io"
_BOTH = frozenset(
    {"key encipherment", "digital signature"}
)  # what a certificate for either side may be used for
_USAGES = {  # signer -> usages a request must ask for; beyond those and _BOTH it may not
    "kubernetes.io/kube-apiserver-client": {"client auth"},
    "kubernetes.io/kube-apiserver-client-kubelet": {"client auth", "digital signature"},
    "kubernetes.io/kubelet-serving": {"server auth", "digital signature"},
}
_SOME = 500  # objects looked at at a time
_YEAR, _LEAST = 365 * pki.DAY, 600.0


def signer(ca: pki.CA, find: Callable[[str], Object | None], clock: Clock) -> Effect:
    """`sign`: the certificate of an approved request, which `find(name)` gives. Source: API reference
    CertificateSigningRequest v1; "Kubernetes signers"."""

    async def sign(namespace: str, name: str) -> Object:
        request = find(name)
        if request is None:
            return {"error": "the request is gone"}
        spec = request["spec"]
        csr = base64.b64decode(spec["request"])
        try:
            wrong = _refusal(spec, csr)
            if wrong:
                return {"error": wrong}
            seconds = max(_LEAST, min(float(spec.get("expirationSeconds") or _YEAR), _YEAR))
            cert = ca.sign_request(csr, spec.get("usages") or (), clock.now(), seconds)
        except ValueError as error:
            return {"error": f"unable to sign: {error}"}
        return {"certificate": base64.b64encode(cert).decode()}

    return sign


def _refusal(spec: Object, csr: bytes) -> str:
    """Why a signer does not sign this, "" when it does."""
    signer_name, usages = spec["signerName"], set(spec.get("usages") or ())
    needed = _USAGES.get(signer_name)
    if needed is None:
        return f"unknown signer {signer_name}"
    if not needed <= usages <= needed | _BOTH:
        return f"usages must be {sorted(needed)} and may be {sorted(needed | _BOTH)}, not {sorted(usages)}"
    name, groups = pki.request_subject(csr)
    if signer_name == "kubernetes.io/kube-apiserver-client":
        return ""
    if groups != ("system:nodes",):
        return "organization is not system:nodes"
    return "" if name.startswith("system:node:") else "subject common name does not begin with system:node:"


def account_tokens(issuer: TokenIssuer, lookup: Lookup) -> Effect:
    """`token`: what the Secret of that name, of type kubernetes.io/service-account-token, is to hold."""

    async def make(namespace: str, name: str) -> Object:
        secret = lookup.get("secrets", f"{namespace}/{name}")
        owner = meta.annotations(secret).get("kubernetes.io/service-account.name", "") if secret else ""
        account = lookup.get("serviceaccounts", f"{namespace}/{owner}")
        if account is None:
            return {"error": "the Secret or its ServiceAccount is gone"}
        return {"token": base64.b64encode(issuer.legacy(account, name).encode()).decode()}

    return make


def contents(client: Client) -> Effect:
    """`contents`: what a namespace holds of a resource (in the place of the name) that no view can follow."""

    async def look(namespace: str, resource: str) -> Object:
        try:
            return {"items": (await client.list(resource, namespace, limit=_SOME)).get("items") or []}
        except ApiError as error:
            return {"error": error.message}

    return look


def volumes(directory: Path) -> dict[str, Effect]:
    """`make-volume` and `remove-volume` of the class local-path: one directory a volume, which anybody in a pod may write."""

    async def make(namespace: str, name: str) -> Object:
        return await asyncio.to_thread(_guarded, _make, directory / name)

    async def remove(namespace: str, name: str) -> Object:
        return await asyncio.to_thread(_guarded, _remove, directory / name)

    return {"make-volume": make, "remove-volume": remove}


def no_volumes() -> dict[str, Effect]:
    """The same where nodes are simulated and have no files."""

    async def nothing(namespace: str, name: str) -> Object:
        return {}

    return {"make-volume": nothing, "remove-volume": nothing}


def _guarded(work: Callable[[Path], None], path: Path) -> Object:
    if path.name in ("", ".", "..") or "/" in path.name:
        return {"error": f"{path.name!r} is no volume's name"}
    try:
        work(path)
    except OSError as error:
        return {"error": f"{path}: {error.strerror or error}"}
    return {}


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.mkdir(exist_ok=True)
    os.chmod(path, 0o777)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
