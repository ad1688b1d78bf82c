"""Taint based eviction: a pod leaves a node whose NoExecute taint it does not tolerate, or no longer tolerates.

Source: "Taints and Tolerations" (tolerationSeconds count from the moment the taint was added).
"""

from __future__ import annotations

from sampan.api import meta
from sampan.api.placement import tolerates
from sampan.base.objects import Object
from sampan.client.plan import Delete, Event, Key, Patch, Plan, View

from .base import Rule, seconds


def rules() -> list[Rule]:
    return [Rule("taint-eviction-controller", "pods", reconcile, {"nodes": _pods_on}, concerns=_concerns)]


def _concerns(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName"))


def _taints(node: Object) -> list[Object]:
    return [t for t in node["spec"].get("taints") or () if t["effect"] == "NoExecute"]


def _pods_on(node: Object, view: View) -> list[Key]:
    if not _taints(node):
        return []
    found = view.indexed("pods", "spec.nodeName", meta.name(node))
    return [Key(meta.namespace(p), meta.name(p)) for p in found]


def leaves_at(pod: Object, node: Object, now: float) -> float | None:
    """When the pod has to go: `now` for a taint it does not tolerate at all, None for never."""
    times = []
    for taint in _taints(node):
        matching = [t for t in pod["spec"].get("tolerations") or () if tolerates(t, taint)]
        if not matching:
            return now
        limits = [t["tolerationSeconds"] for t in matching if t.get("tolerationSeconds") is not None]
        if limits:
            times.append((seconds(taint.get("timeAdded")) or now) + max(0, min(limits)))
    return min(times, default=None)


def reconcile(pod: Object, view: View, now: float) -> Plan:
    """Deletes the pod at the time that its node's taints and its own tolerations leave it."""
    plan = Plan()
    name = pod["spec"].get("nodeName")
    node = view.get("nodes", name) if name else None
    if node is None or meta.deleted(pod):
        return plan
    at = leaves_at(pod, node, now)
    if at is None:
        return plan
    if at > now:
        return plan.requeue(at - now)
    plan.why = f"does not tolerate a NoExecute taint of node {name}"
    key = f"{meta.namespace(pod)}/{meta.name(pod)}"
    plan.events.append(Event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}"))
    plan.then(disrupted(pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now))
    return plan.then(Delete("pods", meta.name(pod), meta.namespace(pod), uid=meta.uid(pod)))


def disrupted(pod: Object, reason: str, message: str, now: float, *, failed: bool = False) -> Patch:
    """The condition DisruptionTarget: why a pod is about to be ended by the control plane. `failed` ends it now."""
    new = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    status: Object = {"conditions": meta.set_condition(meta.conditions(pod), new, now)}
    if failed:
        status["phase"] = "Failed"
    patch = {"metadata": {"uid": meta.uid(pod)}, "status": status}
    return Patch("pods", meta.name(pod), patch, meta.namespace(pod), subresource="status", missing_ok=True)
