"""CertificateSigningRequests of kubelets are approved, approved ones signed, old ones removed; so are old
PodCertificateRequests, which others sign; expired tokens go.

Source: "Certificates and Certificate Signing Requests" (signers), "TLS bootstrapping", "Bootstrap Tokens". Signing is
an effect: the runner calls `effect:sign` with the request's name and gets {"certificate": base64} or {"error": text}.
"""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.x509.oid import NameOID

from sampan.api import meta
from sampan.base import pki
from sampan.base.objects import Object
from sampan.client.plan import Delete, Patch, Plan, View

from .base import Rule, seconds, stamp

_RESOURCE = "certificatesigningrequests.certificates.k8s.io"
_POD_RESOURCE = "podcertificaterequests.certificates.k8s.io"
_POD_KEPT = 900.0  # seconds: who waits for a verdict for longer asks anew
_KUBELET = "kubernetes.io/kube-apiserver-client-kubelet"
_SERVING = "kubernetes.io/kubelet-serving"
_SIGNED = (_KUBELET, "kubernetes.io/kube-apiserver-client", _SERVING)
_KEPT = {"Approved": 3600.0, "Denied": 3600.0, "Failed": 3600.0, "": 86400.0}  # seconds, by decision


def rules(sign: bool) -> list[Rule]:
    """Without a signer (`sign` False) requests are neither approved nor signed."""
    tokens = Rule("token-cleaner", "secrets", clean_token)
    requests = Rule("certificate-controller", _RESOURCE, reconcile, reads=("nodes",))
    of_pods = Rule("podcertificaterequestcleaner", _POD_RESOURCE, clean_pod_request)
    return [requests, of_pods, tokens] if sign else [of_pods, tokens]


def _decided(request: Object) -> str:
    return next(
        (c["type"] for c in meta.conditions(request) if c["type"] in ("Denied", "Failed", "Approved")), ""
    )


def reconcile(request: Object, view: View, now: float) -> Plan:
    """Approves what a node may ask for, has it signed, and removes what is old: after an hour, or a day while undecided.

    Signing needs the key of the CA, which a pure function does not have: the read `effect:sign` asks the runner to do it.
    Source: "Certificates and Certificate Signing Requests" (Kubernetes signers).
    """
    plan, decided = Plan(), _decided(request)
    left = seconds(request["metadata"].get("creationTimestamp")) + _KEPT[decided] - now
    if left <= 0:
        plan.why = "is old"
        return plan.then(Delete(_RESOURCE, meta.name(request), uid=meta.uid(request)))
    plan.requeue(left)
    signer = request["spec"]["signerName"]
    if not decided:
        if signer == _SERVING:
            return _approve_serving(plan, request, view, now)
        return _approve(plan, request, now) if signer == _KUBELET else plan
    if decided != "Approved" or request.get("status", {}).get("certificate") or signer not in _SIGNED:
        return plan
    read = ("effect:sign", "", meta.name(request))
    if read not in view.fetched:
        plan.reads = [read]
        return plan
    result = view.fetched[read] or {}
    if result.get("certificate"):
        status: Object = {"certificate": result["certificate"]}
    else:
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "SigningError",
            "message": result.get("error", ""),
        }
        status = {"conditions": [*meta.conditions(request), failed | {"lastUpdateTime": stamp(now)}]}
    return plan.then(Patch(_RESOURCE, meta.name(request), {"status": status}, subresource="status"))


def _approve(plan: Plan, request: Object, now: float) -> Plan:
    """A node's first client certificate (asked for with a bootstrap token), or the renewal of its own."""
    spec = request["spec"]
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        name = str(csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        groups = [str(a.value) for a in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    except (ValueError, IndexError):
        return plan
    if not name.startswith("system:node:") or groups != ["system:nodes"]:
        return plan
    if set(spec.get("usages") or ()) - {"key encipherment", "digital signature", "client auth"}:
        return plan
    asking = spec.get("groups") or ()
    if spec.get("username") == name and "system:nodes" in asking:
        text = "Auto approving self kubelet client certificate after SubjectAccessReview."
    elif "system:bootstrappers" in asking:
        text = "Auto approving kubelet client certificate after SubjectAccessReview."
    else:
        return plan
    return _approved(plan, request, text, now)


def _approve_serving(plan: Plan, request: Object, view: View, now: float) -> Plan:
    """A node's serving certificate, when it asks for its own name and addresses only. The original leaves this to an
    administrator or an add-on, which then checks just this."""
    spec = request["spec"]
    name = spec.get("username", "")
    node = view.get("nodes", name.removeprefix("system:node:")) if name.startswith("system:node:") else None
    try:
        csr = base64.b64decode(spec["request"])
        subject, (dns, ips) = pki.request_subject(csr), pki.request_names(csr)
    except (ValueError, IndexError):
        return plan
    if (
        node is None
        or subject != (name, ("system:nodes",))
        or "system:nodes" not in (spec.get("groups") or ())
    ):
        return plan
    if set(spec.get("usages") or ()) - {"key encipherment", "digital signature", "server auth"}:
        return plan
    own = {a["address"] for a in node.get("status", {}).get("addresses") or ()} | {meta.name(node)}
    if not (dns or ips) or not (dns | ips) <= own:
        return plan
    return _approved(
        plan, request, "Auto approving kubelet serving certificate of the node's own addresses.", now
    )


def _approved(plan: Plan, request: Object, text: str, now: float) -> Plan:
    approved = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": text}
    conditions = [
        *meta.conditions(request),
        approved | {"lastUpdateTime": stamp(now), "lastTransitionTime": stamp(now)},
    ]
    plan.why = text
    return plan.then(
        Patch(_RESOURCE, meta.name(request), {"status": {"conditions": conditions}}, subresource="approval")
    )


def clean_pod_request(request: Object, view: View, now: float) -> Plan:
    """A pod's request goes a quarter of an hour after it came, whatever became of it. Source: KEP-4317."""
    plan = Plan()
    left = seconds(request["metadata"].get("creationTimestamp")) + _POD_KEPT - now
    if left > 0:
        return plan.requeue(left)
    plan.why = "is old"
    return plan.then(
        Delete(_POD_RESOURCE, meta.name(request), meta.namespace(request), uid=meta.uid(request))
    )


def clean_token(secret: Object, view: View, now: float) -> Plan:
    """A bootstrap token goes when its time is over."""
    plan = Plan()
    if secret.get("type") != "bootstrap.kubernetes.io/token" or meta.namespace(secret) != "kube-system":
        return plan
    try:
        expires = seconds(base64.b64decode((secret.get("data") or {}).get("expiration", "")).decode())
    except ValueError:
        return plan
    if not expires:
        return plan
    if expires > now:
        return plan.requeue(expires - now)
    return plan.then(Delete("secrets", meta.name(secret), "kube-system", uid=meta.uid(secret)))
