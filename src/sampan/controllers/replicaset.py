"""ReplicaSet and ReplicationController: as many pods of one template as `spec.replicas` says, no more and no fewer.

Source: API reference ReplicaSet v1 and ReplicationController v1. Finished pods are neither counted nor touched.
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Event, Plan, Step, View

from . import pods
from .adoption import Claim, claim
from .base import Rule, counts, owner_or_selecting, selector_of, stamp, status_patch

# Never more than this many creations or deletions a plan: a mistaken `replicas` can still be taken back.
_BURST = 500


def rules() -> list[Rule]:
    """One rule for each of the two kinds."""
    return [
        _rule("replicaset-controller", "replicasets.apps", "ReplicaSet"),
        _rule("replication-controller", _RC, "ReplicationController"),
    ]


_RC = "replicationcontrollers"


def _rule(name: str, resource: str, kind: str) -> Rule:
    def reconcile_one(obj: Object, view: View, now: float) -> Plan:
        return reconcile(resource, obj, view, now)

    return Rule(
        name,
        resource,
        reconcile_one,
        {"pods": owner_or_selecting(kind, resource)},
        reads=("replicasets.apps",),
    )


def reconcile(resource: str, rs: Object, view: View, now: float) -> Plan:
    """Pods first, then status: a plan that makes or removes pods leaves the status to the one that its result wakes."""
    plan = Plan()
    claimed = claim(rs, resource, "pods", selector_of(rs), view, eligible=lambda p: not pods.finished(p))
    plan.reads = claimed.reads
    if plan.reads:
        return plan
    plan.then(*claimed.steps)
    active = [p for p in claimed.mine if pods.active(p)]
    missing = (rs["spec"].get("replicas", 1) or 0) - len(active)
    if missing and not meta.deleted(rs):
        if missing > 0:
            _create(plan, resource, rs, min(missing, _BURST), _status(rs, claimed, now), now)
        else:
            _delete(plan, rs, active, min(-missing, _BURST), view, now)
        return plan
    plan.why = plan.why or f"{len(active)} pods as wanted"
    min_ready = rs["spec"].get("minReadySeconds", 0)
    wait = pods.next_available(active, min_ready, now) if min_ready else None
    if wait is not None:
        plan.requeue(wait)
    return plan.then(*status_patch(resource, rs, _status(rs, claimed, now)))


def _create(plan: Plan, resource: str, rs: Object, count: int, status: Object, now: float) -> None:
    """The runner begins a phase with one step and doubles: a template that cannot be created costs one refusal."""
    plan.why = f"creates {count} missing pods"
    pod = pods.from_template(rs["spec"]["template"], rs)
    created = Event(rs, "Normal", "SuccessfulCreate", "Created pod: {name}")
    plan.then(*(Create("pods", pod, meta.namespace(rs), event=created) for _ in range(count)))
    plan.events.append(Event(rs, "Warning", "FailedCreate", "Error creating: {error}"))
    plan.rescue = _failure(resource, rs, status, now)


def _delete(plan: Plan, rs: Object, active: list[Object], count: int, view: View, now: float) -> None:
    plan.why = f"deletes {count} surplus pods"
    doomed = pods.by_deletion_order(active, _related(rs, active, view), now)[:count]
    plan.then(*(Delete("pods", meta.name(p), meta.namespace(p), uid=meta.uid(p)) for p in doomed))
    plan.events += [Event(rs, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name(p)}") for p in doomed]
    plan.events.append(Event(rs, "Warning", "FailedDelete", "Error deleting: {error}"))


def _related(rs: Object, active: list[Object], view: View) -> list[Object]:
    """Pods of all ReplicaSets of the same Deployment: where they crowd a node, one of ours goes there first."""
    ref = meta.owner(rs)
    if not ref:
        return active
    return [
        p
        for sibling in view.owned("replicasets.apps", ref["uid"])
        for p in view.owned("pods", meta.uid(sibling))
    ]


def _status(rs: Object, claimed: Claim, now: float) -> Object:
    spec = rs["spec"]
    active = [p for p in claimed.mine if pods.active(p)]
    wanted = (spec.get("template", {}).get("metadata") or {}).get("labels") or {}
    min_ready = spec.get("minReadySeconds", 0)
    since = [pods.available_at(p, min_ready) for p in active]
    status: Object = {"replicas": len(active)}
    status |= counts(
        fullyLabeledReplicas=sum(wanted.items() <= meta.labels(p).items() for p in active),
        readyReplicas=sum(t is not None for t in since),
        availableReplicas=sum(t is not None and t <= now for t in since),
        observedGeneration=rs["metadata"].get("generation", 0),
    )
    if rs.get("kind") == "ReplicaSet":
        status["terminatingReplicas"] = sum(pods.terminating(p) for p in claimed.mine)
    others = [c for c in rs.get("status", {}).get("conditions") or () if c["type"] != "ReplicaFailure"]
    return status | ({"conditions": others} if others else {})


def _failure(resource: str, rs: Object, status: Object, now: float) -> list[Step]:
    """What the status says when a creation fails: ReplicaFailure with what the server answered."""
    condition = meta.condition(rs, "ReplicaFailure")
    if condition is None or (condition.get("status"), condition.get("reason")) != ("True", "FailedCreate"):
        condition = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": "{error}",  # the first; each refusal names another pod, and repeating them would never end
            "lastTransitionTime": stamp(now),
        }
    failed = status | {"conditions": [*status.get("conditions", ()), condition]}
    return [*status_patch(resource, rs, failed)]
