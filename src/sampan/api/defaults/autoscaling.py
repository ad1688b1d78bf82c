"""Defaults of HorizontalPodAutoscalers, which differ between v1 and v2. Source: API reference, group autoscaling."""

from __future__ import annotations

from typing import Any

from sampan.api.defaults.pod import Json

_TARGET_PERCENT = 80
_POLICIES: dict[str, list[dict[str, Any]]] = {
    "scaleUp": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
    "scaleDown": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
# v1 keeps what it has no field for in annotations.
METRICS_ANNOTATION = "autoscaling.alpha.kubernetes.io/metrics"


def autoscaler_v1(obj: Json) -> None:
    """A target of 80 % of the CPU, unless an annotation holds metrics of v2."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if METRICS_ANNOTATION not in annotations:
        spec.setdefault("targetCPUUtilizationPercentage", _TARGET_PERCENT)


def autoscaler_v2(obj: Json) -> None:
    """Without metrics: 80 % of the CPU that pods ask for. Up without delay, down by what was enough for a while."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": _TARGET_PERCENT}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is None:
        return
    for direction, policies in _POLICIES.items():
        rules = behavior.setdefault(direction, {})
        rules.setdefault("selectPolicy", "Max")
        if direction == "scaleUp":
            rules.setdefault("stabilizationWindowSeconds", 0)
        if rules.get("policies") is None:
            rules["policies"] = [dict(p) for p in policies]
