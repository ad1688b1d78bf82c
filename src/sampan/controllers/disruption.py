"""PodDisruptionBudget: how many pods may be evicted now without falling below what the budget promises.

Source: API reference PodDisruptionBudget v1, "Specifying a Disruption Budget" (percentages are of the owners' scale).
"""

from __future__ import annotations

from sampan.api import meta, selectors
from sampan.client.plan import Event, Key, Object, Plan, View

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


def rules() -> list[Rule]:
    reads = ("deployments.apps", *_SCALED.values())
    return [Rule("disruption-controller", _RESOURCE, reconcile, {"pods": _budgets}, reads=reads)]


def _budgets(pod: Object, view: View) -> list[Key]:
    found = view.list(_RESOURCE, meta.namespace(pod))
    return [Key(meta.namespace(b), meta.name(b)) for b in found if _selector(b).matches(meta.labels(pod))]


def _selector(budget: Object) -> selectors.LabelSelector:
    return selectors.from_object(budget["spec"].get("selector"))


def reconcile(budget: Object, view: View, now: float) -> Plan:
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
    expected, desired, problem = _wanted(budget, chosen, view)
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


def _wanted(budget: Object, chosen: list[Object], view: View) -> tuple[int, int, str]:
    """(expected pods, healthy ones needed, what is wrong)."""
    spec = budget["spec"]
    unavailable, available = spec.get("maxUnavailable"), spec.get("minAvailable")
    if unavailable is None and isinstance(available, int):
        return len(chosen), available, ""
    expected, unmanaged = _scale(chosen, view)
    names = ", ".join(unmanaged[:_NAMED]) + (", ..." if len(unmanaged) > _NAMED else "")
    problem = f"no controller that can be scaled manages {names}: they do not count; " if unmanaged else ""
    problem += "set .spec.minAvailable to a number to count them" if unmanaged else ""
    if unavailable is not None:
        return expected, max(0, expected - of_total(unavailable, expected, up=True)), problem
    return expected, of_total(available, expected, up=True), problem


def _scale(chosen: list[Object], view: View) -> tuple[int, list[str]]:
    """The replicas that the pods' controllers want in total; Deployments stand for their ReplicaSets."""
    scales: dict[str, int] = {}
    unmanaged = []
    for pod in chosen:
        ref = meta.owner(pod)
        owner = (
            ref
            and _SCALED.get(ref["kind"])
            and view.get(_SCALED[ref["kind"]], ref["name"], meta.namespace(pod))
        )
        if not ref or not owner:
            unmanaged.append(meta.name(pod))
            continue
        above = meta.owner(owner)
        if above and above["kind"] == "Deployment":
            owner = view.get("deployments.apps", above["name"], meta.namespace(pod)) or owner
        scales[meta.uid(owner)] = owner["spec"].get("replicas", 1)
    return sum(scales.values()), unmanaged
