"""The class of service a pod gets from what it asks for. Source: "Pod Quality of Service Classes"; KEP-2837."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampan.api import quantity

_COUNTED = ("cpu", "memory")


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort, of a PodSpec. Where it says something for the whole pod, only that counts."""
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    guaranteed = True
    for resources in _said(spec):
        for name, value in _amounts(resources, "requests").items():
            requests[name] = requests.get(name, 0) + value
        found = _amounts(resources, "limits")
        for name, value in found.items():
            limits[name] = limits.get(name, 0) + value
        guaranteed = guaranteed and len(found) == len(_COUNTED)
    if not requests and not limits:
        return "BestEffort"
    if guaranteed and all(limits.get(name) == value for name, value in requests.items()):
        return "Guaranteed"
    return "Burstable"


def _said(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    whole = spec.get("resources") or {}
    if any(whole.get(side) for side in ("requests", "limits")):
        return [whole]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return [container.get("resources") or {} for container in containers]


def _amounts(resources: Mapping[str, Any], side: str) -> dict[str, int]:
    """Those that count and are not zero, in thousandths."""
    given = resources.get(side) or {}
    return {name: value for name in _COUNTED if name in given and (value := quantity.milli(given[name]))}
