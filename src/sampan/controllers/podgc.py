"""Pod garbage collection: pods that no kubelet will ever finish, because their node is gone or out of service.

Source: "Pod Lifecycle" (garbage collection of Pods), "Non-graceful node shutdown".
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Delete, Key, Plan, View

from . import pods
from .base import Rule, seconds
from .eviction import disrupted

_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_QUARANTINE = 40.0  # seconds in which the node of a pod that never ran may still appear


def rules() -> list[Rule]:
    return [Rule("pod-garbage-collector", "pods", reconcile, {"nodes": _pods_on}, concerns=_concerns)]


def _concerns(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName")) or meta.deleted(pod)


def _pods_on(node: Object, view: View) -> list[Key]:
    """Only a node that is gone, or declared lost, concerns its pods."""
    if view.get("nodes", meta.name(node)) is not None and not _lost(node):
        return []
    found = view.indexed("pods", "spec.nodeName", meta.name(node))
    return [Key(meta.namespace(p), meta.name(p)) for p in found]


def _lost(node: Object) -> bool:
    return any(t["key"] == _OUT_OF_SERVICE for t in node["spec"].get("taints") or ())


def reconcile(pod: Object, view: View, now: float) -> Plan:
    """Pods that nobody else would ever remove: without a node though deleted, on a node that is gone or is out of service.

    A node may be younger than the view: that it is gone is asked for in `plan.reads`. Source: "Pod Lifecycle", garbage
    collection; "Node Shutdowns" (out-of-service taint).
    """
    name = pod["spec"].get("nodeName")
    if not name:
        return _force(Plan(why="was deleted before it had a node"), pod) if meta.deleted(pod) else Plan()
    node = view.get("nodes", name)
    if node is not None:
        if meta.deleted(pod) and _lost(node) and not meta.is_true(node, "Ready"):
            return _force(Plan(why=f"its node {name} is out of service"), pod)
        return Plan()
    read = ("nodes", "", name)
    if read not in view.fetched:
        return Plan(reads=[read])
    if view.fetched[read] is not None:
        return Plan()
    young = seconds(pod["metadata"].get("creationTimestamp")) + _QUARANTINE - now
    if young > 0 and not pod.get("status", {}).get("startTime"):
        return Plan().requeue(young)
    plan = Plan(why=f"its node {name} no longer exists")
    if not pods.finished(pod):
        plan.then(disrupted(pod, "DeletionByPodGC", "PodGC: node no longer exists", now, failed=True))
    return _force(plan, pod)


def _force(plan: Plan, pod: Object) -> Plan:
    return plan.then(Delete("pods", meta.name(pod), meta.namespace(pod), uid=meta.uid(pod), grace=0))
