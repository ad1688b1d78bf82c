"""Node lifecycle: a node that stops reporting becomes Unknown, its taints follow its conditions, its pods stop serving.

The kubelet renews a Lease every ten seconds; after the grace period without it the node counts as unreachable. What
counts is when a renewal was seen here, not the time in it: the clocks of two machines differ.
Source: "Nodes" (heartbeats, rate limits on eviction), "Taints and Tolerations" (taint based evictions).
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Event, Key, Patch, Plan, View

from . import pods
from .base import Rule, merge_diff, seconds, stamp

_PREFIX = "node.kubernetes.io/"
_LEASES = "leases.coordination.k8s.io"
_LEASE_NAMESPACE = "kube-node-lease"
_TTL = "node.alpha.kubernetes.io/ttl"
_ZONE = "topology.kubernetes.io/zone"
_PRESSURE = {
    "MemoryPressure": "memory-pressure",
    "DiskPressure": "disk-pressure",
    "PIDPressure": "pid-pressure",
    "NetworkUnavailable": "network-unavailable",
}
_MANAGED = {_PREFIX + k for k in ("not-ready", "unreachable", "unschedulable", *_PRESSURE.values())}
_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_LARGE, _UNHEALTHY = 50, 0.55  # nodes of a large cluster; share of unready nodes that is a partial disruption


@dataclass(frozen=True)
class Timing:
    """Seconds, named as the flags of kube-controller-manager."""

    monitor_grace: float = 50.0
    eviction_rate: float = 0.1  # nodes a second and zone
    secondary_rate: float = 0.01  # in a large cluster with a partial disruption; a small one stops


def rules(timing: Timing) -> list[Rule]:
    """A Lease, or a status, that is renewed is a sign of life: the view remembers when it saw the last one (`signs`)."""

    def reconcile_one(node: Object, view: View, now: float) -> Plan:
        return reconcile(node, view, now, timing)

    return [
        Rule(
            "node-controller",
            "nodes",
            reconcile_one,
            {_LEASES: _node_of_lease, "pods": _node_of_late_pod},
            indexes={
                "nodes": {"ready": _is_ready_text, "zone": _zone, "unready": _unready, "evicted": _evicted}
            },
            signs={_LEASES: _renewed, "nodes": _reported},
        )
    ]


# Indexes: thousands of nodes are counted, not looked at.


def _is_ready_text(node: Object) -> str | None:
    return "True" if _is_ready(node) else None


def _zone(node: Object) -> str:
    return meta.labels(node).get(_ZONE, "")


def _unready(node: Object) -> str | None:
    return None if _is_ready(node) else _zone(node)


def _evicted(node: Object) -> str | None:
    return _zone(node) if _evicted_at(node) else None


def _node_of_lease(lease: Object, view: View) -> list[Key]:
    return [Key("", meta.name(lease))] if meta.namespace(lease) == _LEASE_NAMESPACE else []


def _node_of_late_pod(pod: Object, view: View) -> list[Key]:
    """A pod bound to a node that is not ready is to be marked as well."""
    name = pod["spec"].get("nodeName")
    node = view.get("nodes", name) if name else None
    return [Key("", name)] if node and not _is_ready(node) and pods.ready(pod) else []


def reconcile(node: Object, view: View, now: float, timing: Timing) -> Plan:
    """One plan: conditions first, then taints as the conditions now are, then the node's pods."""
    plan = Plan()
    if meta.deleted(node):
        return plan
    left = _last_sign(node, view) + timing.monitor_grace - view.moment
    if left <= 0:
        was_ready = _is_ready(node)
        node = _silent(plan, node, now)
        if was_ready:
            message = f"Node {meta.name(node)} status is now: NodeNotReady"
            plan.events.append(Event(node, "Normal", "NodeNotReady", message))
    else:
        plan.requeue(left)
    _taint(plan, node, view, now, timing)
    if meta.condition(node, "Ready") and not _is_ready(node):
        _mark_pods(plan, node, view, now)
    return plan


def _is_ready(node: Object) -> bool:
    return meta.is_true(node, "Ready")


def _renewed(lease: Object) -> object:
    return lease["spec"].get("renewTime")


def _reported(node: Object) -> object:
    return (meta.condition(node, "Ready") or {}).get("lastHeartbeatTime")


def _last_sign(node: Object, view: View) -> float:
    """The `view.moment` of the newest sign of life: a Lease renewal, a reported Ready condition, or that it is there."""
    renewed = view.last_sign(_LEASES, meta.name(node), _LEASE_NAMESPACE)
    return max(renewed, view.last_sign("nodes", meta.name(node)))


def _silent(plan: Plan, node: Object, now: float) -> Object:
    """Everything the kubelet used to report is Unknown now. Returns the node with those conditions."""
    conditions = list(meta.conditions(node))
    for kind in _REPORTED:
        old = meta.condition(node, kind)
        if old and old.get("status") == "Unknown":
            continue
        new = {"type": kind, "status": "Unknown", "lastTransitionTime": stamp(now)}
        if old:
            new |= {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
        else:
            new |= {"reason": "NodeStatusNeverUpdated", "message": "Kubelet never posted node status."}
            new["lastHeartbeatTime"] = node["metadata"].get("creationTimestamp")
        conditions = meta.set_condition(conditions, new, now)
    if conditions == list(meta.conditions(node)):
        return node
    patch = {
        "metadata": {"resourceVersion": meta.resource_version(node)},
        "status": {"conditions": conditions},
    }
    plan.then(Patch("nodes", meta.name(node), patch, subresource="status", missing_ok=True))
    plan.why = "its kubelet stopped reporting"
    return node | {"status": node.get("status", {}) | {"conditions": conditions}}


def _taint(plan: Plan, node: Object, view: View, now: float, timing: Timing) -> None:
    """Taints that say what the conditions say; those of others stay where they are."""
    present = node["spec"].get("taints") or []
    wanted = _no_schedule(node)
    ready = meta.condition(node, "Ready")
    if ready is None:
        wanted |= {t["key"]: "NoSchedule" for t in present if t["key"] == _PREFIX + "not-ready"}
    evicting = _evicting(plan, node, view, now, timing)
    taints = []
    for taint in present:
        if taint["effect"] == "NoSchedule" and taint["key"] in _MANAGED and taint["key"] not in wanted:
            continue
        if taint["effect"] == "NoExecute":
            if taint["key"] in (_PREFIX + "not-ready", _PREFIX + "unreachable") and taint["key"] != evicting:
                continue
            taint = taint if taint.get("timeAdded") else taint | {"timeAdded": stamp(now)}
        taints.append(taint)
    has = {(t["key"], t["effect"]) for t in taints}
    taints += [{"key": k, "effect": "NoSchedule"} for k in wanted if (k, "NoSchedule") not in has]
    if evicting and (evicting, "NoExecute") not in has:
        taints.append({"key": evicting, "effect": "NoExecute", "timeAdded": stamp(now)})
    before = {"metadata": {"annotations": dict(meta.annotations(node))}, "spec": {"taints": present}}
    ttl = {_TTL: _cache_ttl(view.count("nodes"))}
    after = {"metadata": {"annotations": dict(meta.annotations(node)) | ttl}, "spec": {"taints": taints}}
    diff = merge_diff(before, after)
    if diff:
        # Not conditional on the revision when only the annotation changes: heartbeats would make it conflict.
        if "spec" in diff and not plan.phases:
            diff.setdefault("metadata", {})["resourceVersion"] = meta.resource_version(node)
        plan.then(Patch("nodes", meta.name(node), diff, missing_ok=True))


def _no_schedule(node: Object) -> dict[str, str]:
    wanted = {}
    for condition in meta.conditions(node):
        if condition["type"] == "Ready" and condition["status"] != "True":
            wanted[_PREFIX + _ready_taint(condition)] = "NoSchedule"
        elif condition["type"] in _PRESSURE and condition["status"] == "True":
            wanted[_PREFIX + _PRESSURE[condition["type"]]] = "NoSchedule"
    if node["spec"].get("unschedulable"):
        wanted[_PREFIX + "unschedulable"] = "NoSchedule"
    return wanted


def _ready_taint(condition: Object) -> str:
    return "unreachable" if condition["status"] == "Unknown" else "not-ready"


def _evicting(plan: Plan, node: Object, view: View, now: float, timing: Timing) -> str | None:
    """The NoExecute taint that an unready node should have: none while all nodes are lost (then it is us who are cut
    off), and no faster in one zone than the eviction rate."""
    ready = meta.condition(node, "Ready")
    if ready is None or ready["status"] == "True":
        return None
    key = _PREFIX + _ready_taint(ready)
    before = view.get("nodes", meta.name(node)) or node  # as it is counted
    if view.count("nodes", "ready", "True") <= _is_ready(before):
        return None
    if any(
        t["key"] in (_PREFIX + "not-ready", _PREFIX + "unreachable") and t["effect"] == "NoExecute"
        for t in node["spec"].get("taints") or ()
    ):
        return key
    zone = _zone(node)
    unready = view.count("nodes", "unready", zone) + _is_ready(before)
    rate = _rate(unready, view.count("nodes", "zone", zone), view.count("nodes"), timing)
    peers = view.indexed("nodes", "evicted", zone)
    # What seems to lie ahead was written before the clock was set back.
    last = max((at for n in peers if (at := _evicted_at(n)) <= now), default=0.0)
    if not rate or now < last + 1 / rate:
        plan.requeue(max(1.0, last + 1 / rate - now) if rate else 30.0)
        return None
    return key


def _rate(unready: int, total: int, cluster: int, timing: Timing) -> float:
    if unready > 2 and unready / total >= _UNHEALTHY and unready < total:
        return timing.secondary_rate if cluster > _LARGE else 0.0
    return timing.eviction_rate


def _evicted_at(node: Object) -> float:
    keys = (_PREFIX + "not-ready", _PREFIX + "unreachable")
    found = [t for t in node["spec"].get("taints") or () if t["key"] in keys and t["effect"] == "NoExecute"]
    return max((seconds(t.get("timeAdded")) for t in found), default=0.0)


def _cache_ttl(nodes: int) -> str:
    """How long kubelets may cache Secrets and ConfigMaps, by the size of the cluster."""
    for limit, ttl in ((100, 0), (500, 15), (1000, 30), (2000, 60)):
        if nodes <= limit:
            return str(ttl)
    return "300"


def _mark_pods(plan: Plan, node: Object, view: View, now: float) -> None:
    """Pods of a node that cannot speak for them are not ready, so that services leave them out."""
    steps = []
    for pod in view.indexed("pods", "spec.nodeName", meta.name(node)):
        if pods.ready(pod) and not pods.finished(pod):
            new = (meta.condition(pod, "Ready") or {}) | {"status": "False", "lastTransitionTime": stamp(now)}
            conditions = meta.set_condition(meta.conditions(pod), new, now)
            patch = {"metadata": {"uid": meta.uid(pod)}, "status": {"conditions": conditions}}
            steps.append(
                Patch(
                    "pods", meta.name(pod), patch, meta.namespace(pod), subresource="status", missing_ok=True
                )
            )
            plan.events.append(Event(pod, "Warning", "NodeNotReady", "Node is not ready"))
    plan.then(*steps)
