"""Whether a Job is decided, and the conditions that say so: first that it will end and why, at last that it has.

Source: API reference Job v1 (backoffLimit, activeDeadlineSeconds, maxFailedIndexes, successPolicy), KEP-3998.
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Event, Plan

from . import job_policy, pods
from .base import seconds, stamp
from .job_tally import Tally


def decide(tally: Tally, now: float) -> Object | None:
    """FailureTarget or SuccessCriteriaMet as a condition; None as long as nothing is decided. A decision stands."""
    job, spec = tally.job, tally.job["spec"]
    for kind in ("FailureTarget", "SuccessCriteriaMet"):
        if meta.is_true(job, kind):
            return meta.condition(job, kind)
    if tally.fatal:
        return _fail("PodFailurePolicy", tally.fatal)
    limit, started = spec.get("activeDeadlineSeconds"), job.get("status", {}).get("startTime")
    if tally.failed > spec.get("backoffLimit", 6) or _restarted_too_often(tally):
        return _fail("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if limit is not None and started and not tally.suspended and now >= seconds(started) + limit:
        return _fail("DeadlineExceeded", "Job was active longer than specified deadline")
    if spec.get("maxFailedIndexes") is not None and len(tally.failed_indexes) > spec["maxFailedIndexes"]:
        text = "Job has exceeded the specified maximal number of failed indexes"
        return _fail("MaxFailedIndexesExceeded", text)
    if tally.indexed and (rule := job_policy.enough(job, tally.completed)) is not None:
        return _succeed("SuccessPolicy", f"Matched rules at index {rule}")
    if not _complete(tally):
        return None
    if tally.failed_indexes:
        return _fail("FailedIndexes", "Job has failed indexes")
    return _succeed("CompletionsReached", "Reached expected number of succeeded pods")


def _fail(reason: str, message: str) -> Object:
    return {"type": "FailureTarget", "status": "True", "reason": reason, "message": message}


def _succeed(reason: str, message: str) -> Object:
    return {"type": "SuccessCriteriaMet", "status": "True", "reason": reason, "message": message}


def _complete(tally: Tally) -> bool:
    if tally.completions is None:
        return tally.succeeded > 0 and not tally.active
    if tally.per_index is not None:
        return len(tally.completed | tally.failed_indexes) >= tally.completions and not tally.active
    return (
        tally.succeeded >= tally.completions
        and not tally.suspended
        or tally.succeeded >= tally.completions > 0
    )


def _restarted_too_often(tally: Tally) -> bool:
    if tally.job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        c.get("restartCount", 0)
        for p in tally.active
        if pods.phase(p) in ("Running", "Pending")
        for c in [
            *(p["status"].get("containerStatuses") or ()),
            *(p["status"].get("initContainerStatuses") or ()),
        ]
    )
    limit = tally.job["spec"].get("backoffLimit", 6)
    return restarts > 0 if limit == 0 else restarts >= limit


def conditions(
    tally: Tally, decided: Object | None, status: Object, plan: Plan, now: float, *, settled: bool
) -> list[Object]:
    """The new conditions; with the last one come an event and, in `status`, the time of completion.

    `settled`: every result is safely counted, so that a decided Job whose pods are gone may be called finished.
    """
    job = tally.job
    found = list(meta.conditions(job))
    was = meta.condition(job, "Suspended")
    if tally.suspended and decided is None and not (was and was["status"] == "True"):
        found = _set(found, "Suspended", "True", "JobSuspended", "Job suspended", now)
        plan.events.append(Event(job, "Normal", "Suspended", "Job suspended"))
    elif not tally.suspended and was and was["status"] == "True":
        found = _set(found, "Suspended", "False", "JobResumed", "Job resumed", now)
        plan.events.append(Event(job, "Normal", "Resumed", "Job resumed"))
    limit = job["spec"].get("activeDeadlineSeconds")
    if decided is None:
        if limit is not None and status.get("startTime"):
            plan.requeue(max(0.01, seconds(status["startTime"]) + limit - now))
        return found
    reason, message = decided["reason"], decided["message"]
    found = _set(found, decided["type"], "True", reason, message, now)
    if tally.active or status["terminating"] or not settled:
        return found
    if decided["type"] == "SuccessCriteriaMet":
        status["completionTime"] = stamp(now)
        plan.events.append(Event(job, "Normal", "Completed", "Job completed"))
        return _set(found, "Complete", "True", reason, message, now)
    plan.events.append(Event(job, "Warning", reason, message))
    return _set(found, "Failed", "True", reason, message, now)


def _set(
    conditions: list[Object], kind: str, state: str, reason: str, message: str, now: float
) -> list[Object]:
    old = next((c for c in conditions if c["type"] == kind), None)
    if old and old["status"] == state:
        return conditions
    new = {"type": kind, "status": state, "reason": reason, "message": message}
    new |= {"lastProbeTime": stamp(now), "lastTransitionTime": stamp(now)}
    return [c for c in conditions if c["type"] != kind] + [new]
