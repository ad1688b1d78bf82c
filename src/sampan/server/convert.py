"""Kinds that are served in two versions: Event (core and events.k8s.io), HorizontalPodAutoscaler (v1 and v2), custom ones.

One version is stored; the other is made when it is asked for. Custom resources with strategy None differ in
apiVersion alone. Source: API reference of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from sampan.api.registry import Resource
from sampan.base.objects import Object

# core v1 name <-> events.k8s.io/v1 name
_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_BACK = {new: old for old, new in _EVENT_NAMES.items()}
_HPA_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_HPA_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
_HPA_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_HPA_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"


def convert(obj: Object, old: Resource, new: Resource) -> Object:
    """A shallow copy of `obj`, which is of `old`'s version, in the version of `new`."""
    change = _CHANGES.get((old.api_version, new.api_version, new.kind))
    result = change(obj) if change else dict(obj)
    result["apiVersion"] = new.api_version
    result["kind"] = new.kind
    return result


def convert_text(obj: Object, new: Resource) -> Object:
    """`convert` from whatever version the object says it is in."""
    change = _CHANGES.get((obj.get("apiVersion", ""), new.api_version, new.kind))
    result = change(obj) if change else dict(obj)
    result["apiVersion"] = new.api_version
    result["kind"] = new.kind
    return result


def _renamed(names: dict[str, str]) -> Callable[[Object], Object]:
    return lambda obj: {names.get(key, key): value for key, value in obj.items()}


def _hpa_to_v1(obj: Object) -> Object:
    obj = {**obj, "metadata": {**obj.get("metadata", {})}, "spec": {**obj.get("spec", {})}}
    notes = dict(obj["metadata"].get("annotations") or {})
    spec, status = obj["spec"], dict(obj.get("status") or {})
    others = []
    for metric in spec.pop("metrics", None) or []:
        resource = metric.get("resource") or {}
        target = resource.get("target") or {}
        if (
            metric.get("type") == "Resource"
            and resource.get("name") == "cpu"
            and "averageUtilization" in target
        ):
            spec["targetCPUUtilizationPercentage"] = target["averageUtilization"]
        else:
            others.append(metric)
    _note(notes, _HPA_METRICS, others)
    _note(notes, _HPA_BEHAVIOR, spec.pop("behavior", None))
    current = []
    for metric in status.pop("currentMetrics", None) or []:
        resource = metric.get("resource") or {}
        if resource.get("name") == "cpu" and "averageUtilization" in (resource.get("current") or {}):
            status["currentCPUUtilizationPercentage"] = resource["current"]["averageUtilization"]
        current.append(metric)
    _note(notes, _HPA_CURRENT, current)
    _note(notes, _HPA_CONDITIONS, status.pop("conditions", None))
    if notes:
        obj["metadata"]["annotations"] = notes
    obj["status"] = {"currentReplicas": 0, "desiredReplicas": 0, **status}
    return obj


def _note(notes: dict[str, str], name: str, value: Any) -> None:
    if value:
        notes[name] = orjson.dumps(value).decode()


def _hpa_to_v2(obj: Object) -> Object:
    obj = {**obj, "metadata": {**obj.get("metadata", {})}, "spec": {**obj.get("spec", {})}}
    notes = dict(obj["metadata"].get("annotations") or {})
    spec, status = obj["spec"], dict(obj.get("status") or {})
    metrics = []
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    metrics += _noted(notes, _HPA_METRICS) or []
    if metrics:
        spec["metrics"] = metrics
    if behavior := _noted(notes, _HPA_BEHAVIOR):
        spec["behavior"] = behavior
    status.pop("currentCPUUtilizationPercentage", None)
    if current := _noted(notes, _HPA_CURRENT):
        status["currentMetrics"] = current
    if conditions := _noted(notes, _HPA_CONDITIONS):
        status["conditions"] = conditions
    obj["metadata"].pop("annotations", None)
    if notes:
        obj["metadata"]["annotations"] = notes
    obj["status"] = status
    return obj


def _noted(notes: dict[str, str], name: str) -> Any:
    text = notes.pop(name, "")
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None


_CHANGES: dict[tuple[str, str, str], Callable[[Object], Object]] = {
    ("v1", "events.k8s.io/v1", "Event"): _renamed(_EVENT_NAMES),
    ("events.k8s.io/v1", "v1", "Event"): _renamed(_EVENT_BACK),
    ("autoscaling/v2", "autoscaling/v1", "HorizontalPodAutoscaler"): _hpa_to_v1,
    ("autoscaling/v1", "autoscaling/v2", "HorizontalPodAutoscaler"): _hpa_to_v2,
}
