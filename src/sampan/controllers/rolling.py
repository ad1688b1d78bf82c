"""How many pods each ReplicaSet of a Deployment may have: rolling update, proportional scaling, maxSurge, maxUnavailable.

Pure arithmetic on sizes. Two promises hold for every result: never more than replicas + maxSurge pods, and never
fewer than replicas - maxUnavailable available ones by our own doing. Sizes are returned as {uid of set: replicas}.
"""

from __future__ import annotations

import math

from sampan.api import meta
from sampan.base.objects import Object

from .base import seconds

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


def replicas(d: Object) -> int:
    return d["spec"].get("replicas", 1) or 0


def size(s: Object) -> int:
    return s["spec"].get("replicas", 1) or 0


def available(s: Object) -> int:
    return s.get("status", {}).get("availableReplicas", 0)


def recreates(d: Object) -> bool:
    return (d["spec"].get("strategy") or {}).get("type") == "Recreate"


def of_total(value: int | str | None, total: int, *, up: bool) -> int:
    """An absolute number, or a percentage of `total` rounded up or down."""
    if isinstance(value, str) and value.endswith("%"):
        share = total * int(value[:-1]) / 100
        return math.ceil(share) if up else math.floor(share)
    return int(value or 0)


def limits(d: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; where both round to zero one may be unavailable, or nothing could move."""
    if recreates(d):
        return 0, 0
    rolling = (d["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = of_total(rolling.get("maxSurge", "25%"), replicas(d), up=True)
    unavailable = of_total(rolling.get("maxUnavailable", "25%"), replicas(d), up=False)
    if not surge and not unavailable:
        unavailable = 1
    return surge, min(unavailable, replicas(d))


def desired(s: Object) -> int | None:
    """The Deployment's size when this set was last sized."""
    return _number(s, DESIRED)


def _number(s: Object, key: str) -> int | None:
    text = meta.annotations(s).get(key, "")
    return int(text) if text.isdigit() else None


def size_annotations(d: Object) -> dict[str, str]:
    return {DESIRED: str(replicas(d)), MAXIMUM: str(replicas(d) + limits(d)[0])}


def new_size(d: Object, current: int, old: list[Object]) -> int:
    """How large the new set may be now, next to the old ones."""
    room = replicas(d) + limits(d)[0] - current - sum(map(size, old))
    return current + max(0, min(room, replicas(d) - current))


def roll(d: Object, new: Object, old: list[Object]) -> dict[str, int]:
    """One step: first the new set grows as far as the surge allows; when it cannot, old sets shrink."""
    if size(new) > replicas(d):
        return {meta.uid(new): replicas(d)}
    grown = new_size(d, size(new), old)
    if grown != size(new):
        return {meta.uid(new): grown}
    return _shrink(d, new, [s for s in old if size(s)])


def _shrink(d: Object, new: Object, old: list[Object]) -> dict[str, int]:
    """Pods of old sets that are not available go first and are not missed; then as many others as may be missing."""
    minimum = replicas(d) - limits(d)[1]
    budget = sum(map(size, old)) + size(new) - minimum - max(0, size(new) - available(new))
    if budget <= 0:
        return {}
    sizes: dict[str, int] = {}
    for s in old:
        unhealthy = min(
            budget - sum(size(o) - sizes.get(meta.uid(o), size(o)) for o in old), size(s) - available(s)
        )
        if unhealthy > 0:
            sizes[meta.uid(s)] = size(s) - unhealthy
    spare = sum(map(available, old)) + available(new) - minimum
    for s in old:
        left = sizes.get(meta.uid(s), size(s))
        going = min(spare, left)
        if going > 0:
            sizes[meta.uid(s)] = left - going
            spare -= going
    return sizes


def scale(d: Object, new: Object | None, old: list[Object]) -> dict[str, int]:
    """Sizes after the Deployment's own size changed: one set takes it all, several share it in proportion."""
    sets = [*old, *([new] if new else [])]
    filled = [s for s in sets if size(s)]
    only = filled[0] if len(filled) == 1 else (new or (old[-1] if old else None)) if not filled else None
    if only is not None:
        return {meta.uid(only): replicas(d)}
    if not filled:
        return {}
    if new and size(new) == replicas(d) == desired(new) == available(new):
        return {meta.uid(s): 0 for s in old if size(s)}
    return {} if recreates(d) else _share(d, filled)


def _share(d: Object, filled: list[Object]) -> dict[str, int]:
    total = replicas(d) + limits(d)[0] if replicas(d) else 0
    change = total - sum(map(size, filled))

    def order(s: Object) -> tuple[float, ...]:
        born = seconds(s["metadata"].get("creationTimestamp"))
        return (-size(s), -born if change > 0 else born)

    filled = sorted(filled, key=order)
    sizes, added = {}, 0
    for s in filled:
        part = _proportion(d, s, change - added, change)
        sizes[meta.uid(s)] = size(s) + part
        added += part
    first = meta.uid(filled[0])
    sizes[first] = max(0, sizes[first] + change - added)
    return sizes


def _proportion(d: Object, s: Object, allowed: int, change: int) -> int:
    """This set's part of `change`: what keeps its share of the maximum it was sized for."""
    if not change:
        return 0
    if not replicas(d):
        return -size(s)
    before = _number(s, MAXIMUM) or d.get("status", {}).get("replicas") or replicas(d)
    scaled = size(s) * (replicas(d) + limits(d)[0]) / before
    part = math.floor(scaled + 0.5) - size(s)
    return min(part, allowed) if change > 0 else max(part, allowed)
