"""The class of service a pod gets from what its containers ask for. Source: "Pod Quality of Service Classes"."""

from __future__ import annotations

from typing import Any

from sampan.api import quantity

_COUNTED = ("cpu", "memory")


def qos_class(spec: dict[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort, of a PodSpec."""
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    guaranteed = True
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        resources = container.get("resources") or {}
        for name, amount in (resources.get("requests") or {}).items():
            if name in _COUNTED and (value := quantity.milli(amount)):
                requests[name] = requests.get(name, 0) + value
        found = set()
        for name, amount in (resources.get("limits") or {}).items():
            if name in _COUNTED and (value := quantity.milli(amount)):
                limits[name] = limits.get(name, 0) + value
                found.add(name)
        if found != set(_COUNTED):
            guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    if guaranteed and all(limits.get(name) == value for name, value in requests.items()):
        return "Guaranteed"
    return "Burstable"
