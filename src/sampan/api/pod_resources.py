"""What a whole pod asks for and may use: its containers together, or a larger init container with the sidecars started
before it; plus overhead. Scheduler, nodes and quotas count alike.

Sources: KEP-753 (sidecars), KEP-688 (overhead), KEP-2837 (resources of the pod, which replace the sum).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api import quantity
from sampan.base.objects import ReadOnlyObject

Amounts = dict[str, Any]  # name -> int or Quantity
Read = Callable[[str, Any], Any]


def count(name: str, text: Any) -> int:
    """A quantity as nodes count it: thousandths of cores, else units. Raises ValueError."""
    return quantity.milli(text) if name == "cpu" else quantity.value(text)


def requests(spec: ReadOnlyObject) -> dict[str, int]:
    """What the scheduler and the node count for the pod of this PodSpec."""
    return total(spec, "requests", count)


def limits(spec: ReadOnlyObject) -> dict[str, int]:
    """What the pod may use: only resources that every container has a limit for, or that the pod itself has."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    bounded = set.intersection(*(set(_listed(c, "limits")) for c in containers))
    bounded |= set(_listed(spec, "limits"))
    return {name: amount for name, amount in total(spec, "limits", count).items() if name in bounded}


def total(spec: ReadOnlyObject, side: str, read: Read) -> Amounts:
    """`side` is requests or limits, `read(name, text)` makes numbers of quantities."""
    found: Amounts = {}
    for container in spec.get("containers") or ():
        add(found, of(container, side, read))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = of(container, side, read)
        if container.get("restartPolicy") == "Always":
            add(sidecars, own)
            continue
        for name, amount in own.items():
            needed = amount + sidecars[name] if name in sidecars else amount
            peak[name] = max(peak.get(name, needed), needed)
    add(found, sidecars)
    for name, amount in peak.items():
        found[name] = max(found.get(name, amount), amount)
    found |= of(spec, side, read)
    overhead = {name: read(name, text) for name, text in (spec.get("overhead") or {}).items()}
    add(found, {name: more for name, more in overhead.items() if side == "requests" or name in found})
    return found


def of(holder: ReadOnlyObject, side: str, read: Read) -> Amounts:
    """What a container, or the spec for the whole pod, says itself."""
    return {name: read(name, text) for name, text in _listed(holder, side).items()}


def _listed(holder: ReadOnlyObject, side: str) -> ReadOnlyObject:
    return (holder.get("resources") or {}).get(side) or {}


def add(found: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        found[name] = found[name] + amount if name in found else amount
