"""What a whole pod asks for and may use: its containers together, or a larger init container with the sidecars started
before it; plus overhead. Thousandths of cores, else units. Sources: KEP-753, KEP-688, KEP-2837 (pod level resources).
"""

from __future__ import annotations

from typing import Any

from sampan.api import quantity
from sampan.node.pods.podspec import inits, is_sidecar, mains

Object = dict[str, Any]


def requests(pod: Object) -> dict[str, int]:
    """What the scheduler and the node count for the pod."""
    return _total(pod, "requests")


def limits(pod: Object) -> dict[str, int]:
    """What the pod may use: only resources that every container has a limit for, or that the pod itself has."""
    own = set((pod["spec"].get("resources") or {}).get("limits") or ())
    containers = [*mains(pod), *inits(pod)]
    bounded = set.intersection(*(set(_amounts(c, "limits")) for c in containers))
    return {name: amount for name, amount in _total(pod, "limits").items() if name in own | bounded}


def _total(pod: Object, side: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for container in mains(pod):
        _add(total, _of(container, side))
    helpers: dict[str, int] = {}
    most: dict[str, int] = {}
    for container in inits(pod):
        own = _of(container, side)
        if is_sidecar(container):
            _add(helpers, own)
            _add(total, own)
            continue
        for name, amount in own.items():
            most[name] = max(most.get(name, 0), amount + helpers.get(name, 0))
    whole = _parsed((pod["spec"].get("resources") or {}).get(side) or {})
    result = {name: max(total.get(name, 0), most.get(name, 0)) for name in total | most} | whole
    for name, amount in _parsed(pod["spec"].get("overhead") or {}).items():
        if side == "requests" or name in result:
            result[name] = result.get(name, 0) + amount
    return result


def _amounts(container: Object, side: str) -> Object:
    return (container.get("resources") or {}).get(side) or {}


def _of(container: Object, side: str) -> dict[str, int]:
    return _parsed(_amounts(container, side))


def _parsed(amounts: Object) -> dict[str, int]:
    return {name: amount_of(name, amount) for name, amount in amounts.items()}


def amount_of(name: str, text: Any) -> int:
    """A quantity as it is counted here."""
    return quantity.milli(text) if name == "cpu" else quantity.value(text)


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
