"""Job: pods that run to their end until enough have succeeded, and none is ever counted twice or lost.

The parts: `job_tally` (what the pods have come to, and how each is counted once), `job_verdict` (is it decided, and the
conditions), `job_pods` (which pods to make or let go), `job_policy` (failure and success policies, index sets). Source:
API reference Job v1, "Jobs".
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Key, Plan, View

from . import job_pods, job_verdict
from .adoption import claim
from .base import Rule, owner_or_selecting, selector_of, status_patch
from .job_pods import released
from .job_tally import FINALIZER, Tally

_RESOURCE = "jobs.batch"


def rules() -> list[Rule]:
    jobs = Jobs()
    wakes = {"pods": owner_or_selecting("Job", _RESOURCE)}
    return [Rule("job-controller", _RESOURCE, jobs.reconcile, wakes, jobs.removed)]


def _orphaned(pod: Object, view: View) -> bool:
    ref = meta.owner(pod)
    if ref is None or ref["kind"] != "Job":
        return ref is None
    job = view.get(_RESOURCE, ref["name"], meta.namespace(pod))
    return job is None or meta.uid(job) != ref["uid"]


def finished(job: Object) -> str:
    """Complete or Failed, once the Job is; else empty."""
    return next((k for k in ("Complete", "Failed") if meta.is_true(job, k)), "")


class Jobs:
    """Remembers when pods failed, for the back-off: a deleted pod counts as failed and is soon nowhere to be seen."""

    def __init__(self) -> None:
        self._failures: dict[Key, tuple[str, dict[str, float]]] = {}  # Job uid, and pod uid -> when it ended

    def reconcile(self, job: Object, view: View, now: float) -> Plan:
        """Counts what ended, judges, makes or deletes pods. A pod's finalizer goes only when its end is counted in the status.

        Source: "Jobs"; KEP-2307 (tracking with finalizers), KEP-4368 (`managedBy`: somebody else does all of this).
        """
        plan, key = Plan(), Key(meta.namespace(job), meta.name(job))
        if job["spec"].get("managedBy") not in (None, "", "kubernetes.io/job-controller"):
            return plan
        claimed = claim(job, _RESOURCE, "pods", selector_of(job), view, finalizers=[FINALIZER])
        plan.reads = claimed.reads
        if plan.reads:
            return plan
        plan.then(*claimed.steps)
        if finished(job) or meta.deleted(job):
            self._failures.pop(key, None)
            return plan.then(*(released(p) for p in claimed.mine if FINALIZER in meta.finalizers(p)))
        uid, failures = self._failures.pop(key, ("", {}))
        tally = Tally(job, claimed.mine, now, failures if uid == meta.uid(job) else {})
        if tally.failures:
            self._failures[key] = (meta.uid(job), tally.failures)
        decided = job_verdict.decide(tally, now)
        job_pods.manage(tally, plan, decided=decided is not None)
        status = status_patch(_RESOURCE, job, _status(tally, decided, plan, now))
        counted = [released(p) for p in tally.countable(decided=decided is not None)]
        plan.rescue = [*status, *counted]  # new pods that are refused keep nobody from counting the old ones
        return plan.then(*status).then(*counted)

    def removed(self, key: Key, view: View, now: float) -> Plan:
        """Pods of a Job that is gone must not be held by its finalizer."""
        self._failures.pop(key, None)
        held = [p for p in view.list("pods", key.namespace) if FINALIZER in meta.finalizers(p)]
        return Plan().then(*(released(p) for p in held if _orphaned(p, view)))


def _status(tally: Tally, decided: Object | None, plan: Plan, now: float) -> Object:
    status, settled = tally.status()
    status["conditions"] = job_verdict.conditions(tally, decided, status, plan, now, settled=settled)
    return {k: v for k, v in status.items() if v is not None and v != []}
