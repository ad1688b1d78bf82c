"""Finished Jobs go after `ttlSecondsAfterFinished`. Source: "Automatic Cleanup for Finished Jobs"."""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Delete, Plan, View

from .base import Rule, seconds


def rules() -> list[Rule]:
    return [Rule("ttl-after-finished-controller", "jobs.batch", reconcile)]


def reconcile(job: Object, view: View, now: float) -> Plan:
    """Deletes a Job and its pods so many seconds after it finished."""
    plan, ttl = Plan(), job["spec"].get("ttlSecondsAfterFinished")
    ended = [
        c for kind in ("Complete", "Failed") if (c := meta.condition(job, kind)) and c["status"] == "True"
    ]
    if ttl is None or not ended or meta.deleted(job):
        return plan
    left = seconds(ended[0].get("lastTransitionTime")) + ttl - now
    if left > 0:
        return plan.requeue(left)
    plan.why = f"finished more than {ttl} s ago"
    uid = meta.uid(job)
    return plan.then(
        Delete("jobs.batch", meta.name(job), meta.namespace(job), uid=uid, propagation="Foreground")
    )
