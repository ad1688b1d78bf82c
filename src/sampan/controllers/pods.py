"""What controllers ask about pods: do they count, since when are they ready, and which of them should go first.

Sources: Pod lifecycle (phases, conditions), "Pod deletion cost", ReplicaSet "How a ReplicaSet works: scaling down".
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from sampan.api import meta
from sampan.base.objects import Object

from .base import seconds

_COST = "controller.kubernetes.io/pod-deletion-cost"
_REPLACE = 2.0  # seconds
_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


def phase(pod: Object) -> str:
    return pod.get("status", {}).get("phase") or "Pending"


def finished(pod: Object) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def active(pod: Object) -> bool:
    """Counts towards a desired number: neither finished nor being deleted."""
    return not finished(pod) and not meta.deleted(pod)


def terminating(pod: Object) -> bool:
    return bool(meta.deleted(pod)) and not finished(pod)


def ready_since(pod: Object) -> float | None:
    """When the Ready condition became True; None when it is not."""
    for c in pod.get("status", {}).get("conditions") or ():
        if c["type"] == "Ready":
            return seconds(c.get("lastTransitionTime")) if c.get("status") == "True" else None
    return None


def ready(pod: Object) -> bool:
    return ready_since(pod) is not None


def available_at(pod: Object, min_ready: int) -> float | None:
    """The time from which a ready pod counts as available (it may lie ahead); None for one that is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    if not min_ready:
        return 0.0
    return since + min_ready if since else math.inf  # ready, but nobody said since when: never long enough


def next_available(pods: Iterable[Object], min_ready: int, now: float) -> float | None:
    """Seconds until the first pod that is ready but too young becomes available."""
    times = [t for p in pods if (t := available_at(p, min_ready)) is not None and now < t < math.inf]
    return max(min(times) - now, 0.001) if times else None


def replace_in(pod: Object, now: float) -> float:
    """Seconds until a failed pod is replaced by one of the same place: one that failed as it was born waits a little,
    so that a node that refuses it is not asked a hundred times a second."""
    young = seconds(pod["metadata"].get("creationTimestamp")) + _REPLACE - now
    return max(0.0, young) if phase(pod) == "Failed" else 0.0


def from_template(template: Object, owner: Object, *, name: str = "") -> Object:
    """A pod of a pod template, controlled by `owner`. Names that would be too long lose their end, as in the original."""
    source = template.get("metadata") or {}
    metadata: Object = {"name": name} if name else {"generateName": meta.name(owner) + "-"}
    metadata["namespace"] = meta.namespace(owner)
    for key in ("labels", "annotations"):
        if source.get(key):
            metadata[key] = dict(source[key])
    if source.get("finalizers"):
        metadata["finalizers"] = list(source["finalizers"])
    metadata["ownerReferences"] = [meta.owner_ref(owner, controller=True)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(template.get("spec") or {})}


def _bucket(age: float) -> int:
    """Ages are compared by their logarithm, so that a burst of new pods is not always the victim (KEP-2185)."""
    return int(math.log2(age)) if age >= 1 else -1


def _age_order(a: float, b: float, now: float, uid_a: str, uid_b: str) -> int:
    """Younger goes first; within one logarithmic bucket the uid decides."""
    if a == b:
        return 0
    by_bucket = _bucket(now - a) - _bucket(now - b)
    if by_bucket:
        return by_bucket
    return -1 if uid_a < uid_b else 1


def restarts(pod: Object) -> int:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return max((s.get("restartCount", 0) for s in statuses), default=0)


def deletion_cost(pod: Object) -> int:
    """Of two pods the cheaper goes first. Source: "ReplicaSet", pod deletion cost (KEP-2255)."""
    try:
        return int(meta.annotations(pod).get(_COST, "0"))
    except ValueError:
        return 0


def by_deletion_order(pods: list[Object], related: Iterable[Object], now: float) -> list[Object]:
    """The pods, first to delete first.

    Unassigned, Pending, not ready, cheap, crowded (`related` active pods on the same node), recently ready, often
    restarted, new: in this order of weight.
    """
    crowd = Counter(node for p in related if active(p) and (node := p["spec"].get("nodeName")))

    def compare(a: Object, b: Object) -> int:
        node_a, node_b = a["spec"].get("nodeName"), b["spec"].get("nodeName")
        ready_a, ready_b = ready_since(a), ready_since(b)
        firsts: tuple[Any, ...] = (
            bool(node_a) - bool(node_b),
            _PHASE_ORDER.get(phase(a), 2) - _PHASE_ORDER.get(phase(b), 2),
            (ready_a is not None) - (ready_b is not None),
            deletion_cost(a) - deletion_cost(b),
            crowd[node_b] - crowd[node_a],
        )
        for difference in firsts:
            if difference:
                return difference
        uid_a, uid_b = meta.uid(a), meta.uid(b)
        if ready_a is not None and ready_b is not None:
            by_age = _age_order(ready_a, ready_b, now, uid_a, uid_b)
            if by_age:
                return by_age
        born_a = seconds(a["metadata"].get("creationTimestamp"))
        born_b = seconds(b["metadata"].get("creationTimestamp"))
        return restarts(b) - restarts(a) or _age_order(born_a, born_b, now, uid_a, uid_b)

    return sorted(pods, key=functools.cmp_to_key(compare))
