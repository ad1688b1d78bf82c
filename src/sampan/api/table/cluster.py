"""Columns of nodes, namespaces, configuration and events."""

from __future__ import annotations

from typing import Any

from sampan.api.table.cells import NONE, UNKNOWN, age, created, name
from sampan.base.objects import Object

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


def _node(obj: Object, now: float) -> list[Any]:
    status = obj.get("status", {})
    info = status.get("nodeInfo") or {}
    return [
        name(obj),
        _node_state(obj),
        _roles(obj["metadata"].get("labels") or {}),
        created(obj, now),
        info.get("kubeletVersion", ""),
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _node_state(obj: Object) -> str:
    ready = [c for c in obj.get("status", {}).get("conditions") or [] if c["type"] == "Ready"]
    state = "Unknown" if not ready else "Ready" if ready[0].get("status") == "True" else "NotReady"
    return state + (",SchedulingDisabled" if obj.get("spec", {}).get("unschedulable") else "")


def _roles(labels: dict[str, str]) -> str:
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    if labels.get(_ROLE_LABEL):
        roles.add(labels[_ROLE_LABEL])
    return ",".join(sorted(roles - {""})) or NONE


def _address(status: Object, kind: str) -> str:
    return next((a["address"] for a in status.get("addresses") or [] if a["type"] == kind), NONE)


def _namespace(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("status", {}).get("phase", ""), created(obj, now)]


def _configmap(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), created(obj, now)]


def _secret(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("type", ""), len(obj.get("data") or {}), created(obj, now)]


def _serviceaccount(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(obj.get("secrets") or []), created(obj, now)]


def _lease(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("spec", {}).get("holderIdentity") or "", created(obj, now)]


def _componentstatus(obj: Object, now: float) -> list[Any]:
    healthy: Object = next((c for c in obj.get("conditions") or [] if c["type"] == "Healthy"), {})
    state = {"True": "Healthy", "False": "Unhealthy"}.get(healthy.get("status", ""), "Unknown")
    return [name(obj), state, healthy.get("message", ""), healthy.get("error", "")]


def _event(obj: Object, now: float) -> list[Any]:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    series = obj.get("series") or {}
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    last = (
        series.get("lastObservedTime")
        or obj.get("lastTimestamp")
        or obj.get("deprecatedLastTimestamp")
        or first
    )
    component = (
        source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    )
    host = source.get("host") or obj.get("reportingInstance") or ""
    count = series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1
    return [
        age(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        about.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        (obj.get("message") or obj.get("note") or "").strip(),
        age(first, now),
        count,
        name(obj),
    ]


_EVENT = "Last Seen|Type|Reason|Object|Subobject*|Source*|Message|First Seen*|Count*|Name*"

COLUMNS = {
    "nodes": (
        "Name|Status|Roles|Age|Version|Internal-IP*|External-IP*|OS-Image*|Kernel-Version*|Container-Runtime*",
        _node,
    ),
    "namespaces": ("Name|Status|Age", _namespace),
    "configmaps": ("Name|Data|Age", _configmap),
    "secrets": ("Name|Type|Data|Age", _secret),
    "serviceaccounts": ("Name|Secrets|Age", _serviceaccount),
    "leases.coordination.k8s.io": ("Name|Holder|Age", _lease),
    "componentstatuses": ("Name|Status|Message|Error", _componentstatus),
    "events": (_EVENT, _event),
}
