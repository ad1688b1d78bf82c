"""PodDisruptionBudget: how many pods may be evicted now without falling below what the budget promises.

Source: API reference PodDisruptionBudget v1, "Specifying a Disruption Budget" (percentages are of the owners' scale).
"""

from __future__ import annotations

import functools

from sampan.api import meta, selectors
from sampan.api.registry import Registry
from sampan.base.objects import Object
from sampan.client.plan import Event, Key, Plan, View, by_metadata

from . import pods
from .base import Rule, seconds, status_patch
from .rolling import of_total

_RESOURCE = "poddisruptionbudgets.policy"
_FORGET = 120.0  # seconds after which an eviction that did not become a deletion is forgotten
_NAMED = 5  # pods that an event names
_SCALED = {
    "ReplicaSet": "replicasets.apps",
    "ReplicationController": "replicationcontrollers",
    "StatefulSet": "statefulsets.apps",
}
_VERSIONS = ("v1", "apps/v1")  # others may have kinds of the same names


def rules(registry: Registry) -> list[Rule]:
    """`registry` tells which owners can be scaled, custom resources among them."""
    reads = ("deployments.apps", *_SCALED.values())
    decide = functools.partial(reconcile, registry=registry)
    return [Rule("disruption-controller", _RESOURCE, decide, {"pods": _budgets}, reads=reads)]


@by_metadata
def _budgets(pod: Object, view: View) -> list[Key]:
    found = view.list(_RESOURCE, meta.namespace(pod))
    return [Key(meta.namespace(b), meta.name(b)) for b in found if _selector(b).matches(meta.labels(pod))]


def _selector(budget: Object) -> selectors.LabelSelector:
    return selectors.from_object(budget["spec"].get("selector"))


def reconcile(budget: Object, view: View, now: float, *, registry: Registry) -> Plan:
    """How many pods may go now: the healthy ones beyond what the budget asks for. Evictions on their way count as gone.

    Owners' scales are not in the view: they are asked for in `plan.reads`. Source: API reference,
    PodDisruptionBudgetStatus v1 (disruptionsAllowed, disruptedPods).
    """
    plan, old = Plan(), budget.get("status", {})
    chosen = view.selected("pods", meta.namespace(budget), _selector(budget))
    chosen = [p for p in chosen if not pods.finished(p)]
    by_name = {meta.name(p): p for p in chosen}
    evicted = {}
    for name, when in (old.get("disruptedPods") or {}).items():
        left = seconds(when) + _FORGET - now
        if name in by_name and not meta.deleted(by_name[name]) and left > 0:
            evicted[name] = when
            plan.requeue(left)
    healthy = sum(pods.ready(p) and not meta.deleted(p) and meta.name(p) not in evicted for p in chosen)
    if not _counts_pods(budget):
        reads = {read for p in chosen if (read := _scale_of(p, registry))}
        plan.reads = sorted(reads - view.fetched.keys())
        if plan.reads:
            return plan
    expected, desired, problem = _wanted(budget, chosen, view, registry)
    if problem:
        plan.events.append(Event(budget, "Warning", "UnmanagedPods", problem))
    allowed = max(0, healthy - desired) if expected else 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    new = {
        "type": "DisruptionAllowed",
        "status": str(bool(allowed)),
        "reason": reason,
        "message": "",
        "observedGeneration": meta.generation(budget),
    }
    status = {
        "observedGeneration": meta.generation(budget),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "conditions": meta.set_condition(old.get("conditions"), new, now),
        "disruptedPods": evicted or None,
    }
    plan.why = f"{healthy} healthy, {desired} needed"
    return plan.then(*status_patch(_RESOURCE, budget, status))


def _wanted(budget: Object, chosen: list[Object], view: View, registry: Registry) -> tuple[int, int, str]:
    """(expected pods, healthy ones needed, what is wrong)."""
    spec = budget["spec"]
    unavailable, available = spec.get("maxUnavailable"), spec.get("minAvailable")
    if _counts_pods(budget):
        return len(chosen), available, ""
    expected, unmanaged = _scale(chosen, view, registry)
    names = ", ".join(unmanaged[:_NAMED]) + (", ..." if len(unmanaged) > _NAMED else "")
    problem = f"no controller that can be scaled manages {names}: they do not count; " if unmanaged else ""
    problem += "set .spec.minAvailable to a number to count them" if unmanaged else ""
    if unavailable is not None:
        return expected, max(0, expected - of_total(unavailable, expected, up=True)), problem
    return expected, of_total(available, expected, up=True), problem


def _counts_pods(budget: Object) -> bool:
    """A number of pods that must stay needs no owner's scale."""
    spec = budget["spec"]
    return spec.get("maxUnavailable") is None and isinstance(spec.get("minAvailable"), int)


def _in_view(ref: Object) -> bool:
    return ref["kind"] in _SCALED and ref["apiVersion"] in _VERSIONS


def _scale_of(pod: Object, registry: Registry) -> tuple[str, str, str] | None:
    """The read of the owner's scale, if the owner is none of those in view and has one."""
    ref = meta.owner(pod)
    if ref is None or _in_view(ref):
        return None
    group, _, version = ref["apiVersion"].rpartition("/")
    row = registry.by_kind(group, version, ref["kind"])
    if row is None or "scale" not in row.subresources:
        return None
    return f"{row.name}/scale", meta.namespace(pod), ref["name"]


def _scale(chosen: list[Object], view: View, registry: Registry) -> tuple[int, list[str]]:
    """The replicas that the pods' controllers want in total; Deployments stand for their ReplicaSets."""
    sizes: dict[str, int] = {}
    unmanaged = []
    for pod in chosen:
        ref, namespace = meta.owner(pod), meta.namespace(pod)
        owner, default = None, 1
        if read := _scale_of(pod, registry):
            owner, default = view.fetched.get(read), 0  # a Scale says nothing of a size that is 0
        elif ref and _in_view(ref):
            owner = view.get(_SCALED[ref["kind"]], ref["name"], namespace)
            above = meta.owner(owner) if owner else None
            if above and above["kind"] == "Deployment":
                owner = view.get("deployments.apps", above["name"], namespace) or owner
        if owner is None:
            unmanaged.append(meta.name(pod))
        else:
            sizes[meta.uid(owner)] = owner["spec"].get("replicas", default)
    return sum(sizes.values()), unmanaged
