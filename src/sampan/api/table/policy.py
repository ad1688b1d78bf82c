"""Columns of rights, limits and rules."""

from __future__ import annotations

from typing import Any

from sampan.api.table.cells import NONE, age, created, name
from sampan.base.objects import Object


def _binding(obj: Object, now: float) -> list[Any]:
    role, subjects = obj["roleRef"], obj.get("subjects") or []
    users = ", ".join(s["name"] for s in subjects if s["kind"] == "User")
    groups = ", ".join(s["name"] for s in subjects if s["kind"] == "Group")
    accounts = ", ".join(
        f"{s.get('namespace', '')}/{s['name']}" for s in subjects if s["kind"] == "ServiceAccount"
    )
    return [name(obj), f"{role['kind']}/{role['name']}", created(obj, now), users, groups, accounts]


def _quota(obj: Object, now: float) -> list[Any]:
    status = obj.get("status", {})
    used, hard = status.get("used") or {}, status.get("hard") or {}
    request: list[str] = []
    limit: list[str] = []
    for resource in sorted(hard):
        text = f"{resource}: {used.get(resource, '0')}/{hard[resource]}"
        (limit if resource.startswith("limits.") else request).append(text)
    return [name(obj), ", ".join(request), ", ".join(limit), created(obj, now)]


def _budget(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    show = ["N/A" if spec.get(key) is None else str(spec[key]) for key in ("minAvailable", "maxUnavailable")]
    allowed = obj.get("status", {}).get("disruptionsAllowed", 0)
    return [name(obj), *show, allowed, created(obj, now)]


def _request(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    kinds = {c["type"] for c in status.get("conditions") or []}
    state = next((kind for kind in ("Denied", "Approved") if kind in kinds), "Pending")
    if "Failed" in kinds:
        state += ",Failed"
    if status.get("certificate"):
        state += ",Issued"
    seconds = spec.get("expirationSeconds")
    requested = NONE if seconds is None else age_of(seconds)
    return [
        name(obj),
        created(obj, now),
        spec.get("signerName", ""),
        spec.get("username", ""),
        requested,
        state,
    ]


def _trust_bundle(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj["spec"].get("signerName") or NONE]


def _pod_certificate(obj: Object, now: float) -> list[Any]:
    spec, conditions = obj["spec"], obj.get("status", {}).get("conditions") or []
    named = [spec.get(field, "") for field in ("podName", "serviceAccountName", "nodeName", "signerName")]
    return [name(obj), *named, conditions[0]["type"] if conditions else "Pending"]


def _api_service(obj: Object, now: float) -> list[Any]:
    service = obj.get("spec", {}).get("service")
    where = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    conditions = obj.get("status", {}).get("conditions") or []
    available = next((c for c in conditions if c["type"] == "Available"), {"status": "Unknown"})
    shown = available["status"]
    if shown != "True" and available.get("reason"):
        shown = f"{shown} ({available['reason']})"
    return [name(obj), where, shown, created(obj, now)]


def age_of(seconds: int) -> str:
    """A length of time as an age."""
    return age("1970-01-01T00:00:00Z", float(seconds))


def _webhooks(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(obj.get("webhooks") or []), created(obj, now)]


def _admission_policy(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    kind = spec.get("paramKind")
    shown = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else "<unset>"
    rules = spec.get("validations") or spec.get("mutations") or []
    return [name(obj), len(rules), shown, created(obj, now)]


def _admission_binding(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    ref = spec.get("paramRef")
    shown = "<unset>"
    if ref:
        shown = f"{ref['namespace']}/{ref.get('name', '*')}" if ref.get("namespace") else ref.get("name", "*")
    return [name(obj), spec.get("policyName", ""), shown, created(obj, now)]


def _priority(obj: Object, now: float) -> list[Any]:
    return [
        name(obj),
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        created(obj, now),
        obj.get("preemptionPolicy", ""),
    ]


def _runtimeclass(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("handler", ""), created(obj, now)]


def _flowschema(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    dangling = next(
        (c for c in obj.get("status", {}).get("conditions") or [] if c["type"] == "Dangling"), None
    )
    return [
        name(obj),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        spec.get("matchingPrecedence", 0),
        (spec.get("distinguisherMethod") or {}).get("type", NONE),
        created(obj, now),
        dangling["status"] if dangling else "?",
    ]


def _prioritylevel(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    limited = spec.get("limited") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    numbers = [str(queuing[k]) if k in queuing else NONE for k in ("queues", "handSize", "queueLengthLimit")]
    shares = limited.get("nominalConcurrencyShares")
    return [
        name(obj),
        spec.get("type", ""),
        NONE if shares is None else str(shares),
        *numbers,
        created(obj, now),
    ]


_BINDING = "Name|Role|Age|Users*|Groups*|ServiceAccounts*"

COLUMNS = {
    "rolebindings.rbac.authorization.k8s.io": (_BINDING, _binding),
    "clusterrolebindings.rbac.authorization.k8s.io": (_BINDING, _binding),
    "resourcequotas": ("Name|Request|Limit|Age", _quota),
    "poddisruptionbudgets.policy": (
        "Name|Min Available|Max Unavailable|Allowed Disruptions:integer|Age",
        _budget,
    ),
    "certificatesigningrequests.certificates.k8s.io": (
        "Name|Age|SignerName|Requestor|RequestedDuration|Condition",
        _request,
    ),
    "clustertrustbundles.certificates.k8s.io": ("Name|SignerName", _trust_bundle),
    "podcertificaterequests.certificates.k8s.io": (
        "Name|PodName|ServiceAccountName|NodeName|SignerName|State",
        _pod_certificate,
    ),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": ("Name|Webhooks:integer|Age", _webhooks),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": ("Name|Webhooks:integer|Age", _webhooks),
    "validatingadmissionpolicies.admissionregistration.k8s.io": (
        "Name|Validations:integer|ParamKind|Age",
        _admission_policy,
    ),
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": (
        "Name|PolicyName|ParamRef|Age",
        _admission_binding,
    ),
    "mutatingadmissionpolicies.admissionregistration.k8s.io": (
        "Name|Mutations:integer|ParamKind|Age",
        _admission_policy,
    ),
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": (
        "Name|PolicyName|ParamRef|Age",
        _admission_binding,
    ),
    "priorityclasses.scheduling.k8s.io": (
        "Name|Value:integer|Global-Default:boolean|Age|PreemptionPolicy",
        _priority,
    ),
    "runtimeclasses.node.k8s.io": ("Name|Handler|Age", _runtimeclass),
    "flowschemas.flowcontrol.apiserver.k8s.io": (
        "Name|PriorityLevel|MatchingPrecedence:integer|DistinguisherMethod|Age|MissingPL",
        _flowschema,
    ),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": (
        "Name|Type|NominalConcurrencyShares|Queues|HandSize|QueueLengthLimit|Age",
        _prioritylevel,
    ),
    "apiservices.apiregistration.k8s.io": ("Name|Service|Available|Age", _api_service),
}
