"""Defaults of what the cluster itself is made of: Namespace, Node, Secret, LimitRange, RBAC, PriorityClass, flow control.

Source: API reference, groups core/v1, rbac.authorization.k8s.io/v1, scheduling.k8s.io/v1,
flowcontrol.apiserver.k8s.io/v1, resource.k8s.io/v1, authentication.k8s.io/v1, certificates.k8s.io/v1.
"""

from __future__ import annotations

import base64

from sampan.api.defaults.pod import Json

_RBAC_GROUP = "rbac.authorization.k8s.io"
NAME_LABEL = "kubernetes.io/metadata.name"
_NODE_INFO = (
    "machineID systemUUID bootID kernelVersion osImage containerRuntimeVersion kubeletVersion kubeProxyVersion "
    "operatingSystem architecture"
).split()


def namespace(obj: Json) -> None:
    """Every namespace carries its name as a label, so that selectors can pick it."""
    metadata = obj.setdefault("metadata", {})
    if metadata.get("name"):
        metadata["labels"] = {**(metadata.get("labels") or {}), NAME_LABEL: metadata["name"]}
    obj.setdefault("status", {}).setdefault("phase", "Active")


def node(obj: Json) -> None:
    """The single range is the first of the list; where they differ the single one, which old clients write, wins."""
    spec = obj.setdefault("spec", {})
    single, listed = spec.get("podCIDR"), spec.get("podCIDRs")
    if single and not (listed and listed[0] == single):
        spec["podCIDRs"] = [single]
    elif listed and not single:
        spec["podCIDR"] = listed[0]
    status = obj.setdefault("status", {})
    info = status.setdefault("nodeInfo", {})
    for field in _NODE_INFO:
        info.setdefault(field, "")
    status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {}).setdefault("Port", 0)
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def secret(obj: Json) -> None:
    """stringData is for writing only: it lands in data."""
    obj.setdefault("type", "Opaque")
    written = obj.pop("stringData", None)
    if written:
        data = {k: base64.b64encode(v.encode()).decode() for k, v in written.items()}
        obj["data"] = {**(obj.get("data") or {}), **data}


def limit_range(obj: Json) -> None:
    """For containers: the maximum is the default limit, which is the default request, else the minimum is."""
    for item in (obj.get("spec") or {}).get("limits", ()):
        if item.get("type") != "Container":
            continue
        limits = {**(item.get("max") or {}), **(item.get("default") or {})}
        requests = {**(item.get("min") or {}), **limits, **(item.get("defaultRequest") or {})}
        if limits:
            item["default"] = limits
        if requests:
            item["defaultRequest"] = requests


def role(obj: Json) -> None:
    obj.setdefault("rules", [])


def role_binding(obj: Json) -> None:
    """An apiGroup for users, groups and the role; service accounts are of the core group."""
    reference = obj.get("roleRef")
    if reference is not None and not reference.get("apiGroup"):
        reference["apiGroup"] = _RBAC_GROUP
    for subject in obj.get("subjects", ()):
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = _RBAC_GROUP


def priority_class(obj: Json) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def token_request(obj: Json) -> None:
    obj.setdefault("spec", {}).setdefault("expirationSeconds", 3600)


def flow_schema(obj: Json) -> None:
    obj.setdefault("spec", {}).setdefault("matchingPrecedence", 1000)


def priority_level(obj: Json) -> None:
    """Source: API reference, LimitedPriorityLevelConfiguration v1, QueuingConfiguration v1."""
    spec = obj.setdefault("spec", {})
    if spec.get("type") == "Exempt":
        exempt = spec.setdefault("exempt", {})
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)
    limited = spec.get("limited")
    if limited is None:
        return
    limited.setdefault("nominalConcurrencyShares", 30)
    limited.setdefault("lendablePercent", 0)
    queuing = (limited.get("limitResponse") or {}).get("queuing")
    if queuing is not None:
        queuing.setdefault("handSize", 8)
        queuing.setdefault("queues", 64)
        queuing.setdefault("queueLengthLimit", 50)


def resource_claim(obj: Json) -> None:
    _device_requests(obj.get("spec") or {})


def resource_claim_template(obj: Json) -> None:
    _device_requests((obj.get("spec") or {}).get("spec") or {})


def _device_requests(spec: Json) -> None:
    for request in (spec.get("devices") or {}).get("requests", ()):
        for wanted in (request.get("exactly"), *request.get("firstAvailable", ())):
            if wanted is None:
                continue
            if wanted.setdefault("allocationMode", "ExactCount") == "ExactCount":
                wanted.setdefault("count", 1)
            for toleration in wanted.get("tolerations", ()):
                toleration.setdefault("operator", "Equal")


def pod_certificate_request(obj: Json) -> None:
    """A day, unless something else is asked for."""
    obj.setdefault("spec", {}).setdefault("maxExpirationSeconds", 86_400)
