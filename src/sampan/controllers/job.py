"""Job: pods that run to their end until enough have succeeded, and none is ever counted twice or lost.

A finished pod keeps a finalizer until its result stands in the Job's status: first its uid is written down as
uncounted, then the finalizer goes, then the counter rises. Source: API reference Job v1, "Jobs".
"""

from __future__ import annotations

from sampan.api import meta
from sampan.client.plan import Create, Delete, Event, Key, Object, Patch, Plan, View

from . import job_policy, pods
from .adoption import claim
from .base import Rule, owner_or_selecting, seconds, selector_of, stamp, status_patch
from .job_policy import INDEX, index_of

_RESOURCE = "jobs.batch"
_FINALIZER = "batch.kubernetes.io/job-tracking"
_BURST = 500
_MOVING = 500  # uids written down as uncounted at once


def rules() -> list[Rule]:
    return [
        Rule("job-controller", _RESOURCE, reconcile, {"pods": owner_or_selecting("Job", _RESOURCE)}, removed)
    ]


def removed(key: Key, view: View, now: float) -> Plan:
    """Pods of a Job that is gone must not be held by its finalizer."""
    plan = Plan()
    left = [
        p for p in view.list("pods", key.namespace) if _FINALIZER in meta.finalizers(p) and _orphaned(p, view)
    ]
    return plan.then(*(_released(p) for p in left))


def _orphaned(pod: Object, view: View) -> bool:
    ref = meta.owner(pod)
    if ref is None or ref["kind"] != "Job":
        return ref is None
    job = view.get(_RESOURCE, ref["name"], meta.namespace(pod))
    return job is None or meta.uid(job) != ref["uid"]


def finished(job: Object) -> str:
    """Complete or Failed, once the Job is; else empty."""
    return next((k for k in ("Complete", "Failed") if meta.is_true(job, k)), "")


def reconcile(job: Object, view: View, now: float) -> Plan:
    plan = Plan()
    if job["spec"].get("managedBy") not in (None, "", "kubernetes.io/job-controller"):
        return plan
    claimed = claim(job, _RESOURCE, "pods", selector_of(job), view, finalizers=[_FINALIZER])
    plan.reads = claimed.reads
    if plan.reads:
        return plan
    plan.then(*claimed.steps)
    if finished(job) or meta.deleted(job):
        return plan.then(*(_released(p) for p in claimed.mine if _FINALIZER in meta.finalizers(p)))
    run = _Run(job, claimed.mine, now)
    run.judge()
    run.manage(plan)
    status = run.status(plan)
    plan.then(*status_patch(_RESOURCE, job, status))
    plan.then(*(_released(p) for p in run.countable))
    return plan


def _released(pod: Object) -> Patch:
    left = [f for f in meta.finalizers(pod) if f != _FINALIZER]
    patch = {"metadata": {"uid": meta.uid(pod), "finalizers": left or None}}
    return Patch("pods", meta.name(pod), patch, meta.namespace(pod), missing_ok=True)


class _Run:
    """One look at a Job's pods."""

    def __init__(self, job: Object, mine: list[Object], now: float) -> None:
        spec, old = job["spec"], job.get("status", {})
        self.job, self.now, self.pods = job, now, mine
        self.completions: int | None = spec.get("completions")
        self.parallelism = spec.get("parallelism", 1)
        self.indexed = spec.get("completionMode") == "Indexed"
        self.suspended = bool(spec.get("suspend"))
        self.per_index: int | None = spec.get("backoffLimitPerIndex")
        uncounted = old.get("uncountedTerminatedPods") or {}
        self.written = {k: list(uncounted.get(k) or ()) for k in ("succeeded", "failed")}
        self.active = [p for p in mine if pods.active(p)]
        self.ended = [p for p in mine if pods.finished(p) or self._gone_while_running(p)]
        known = set(self.written["succeeded"]) | set(self.written["failed"])
        self.new = [p for p in self.ended if _FINALIZER in meta.finalizers(p) and meta.uid(p) not in known][
            :_MOVING
        ]
        self.countable = [p for p in self.ended if _FINALIZER in meta.finalizers(p)][:_MOVING]
        self.completed = job_policy.parse(old.get("completedIndexes"))
        self.failed_indexes = job_policy.parse(old.get("failedIndexes"))
        self.ignored: set[str] = set()
        self.condition: Object | None = None  # SuccessCriteriaMet or FailureTarget that is to be set now
        self.wait = 0.0
        self._take_in()

    def _gone_while_running(self, pod: Object) -> bool:
        """Deleted: it counts as failed, at once or, with podReplacementPolicy Failed, when it has really ended."""
        return (
            bool(meta.deleted(pod))
            and self.job["spec"].get("podReplacementPolicy", "TerminatingOrFailed") != "Failed"
            and not pods.finished(pod)
        )

    def _take_in(self) -> None:
        self.new_succeeded = [p for p in self.new if pods.phase(p) == "Succeeded"]
        self.new_failed = [p for p in self.new if pods.phase(p) != "Succeeded"]
        if self.indexed:
            self.completed |= {
                i for p in self.new_succeeded if 0 <= (i := index_of(p)) < (self.completions or 0)
            }
        for pod in self.new_failed:
            action, message = job_policy.failure_action(self.job, pod)
            if action == "Ignore":
                self.ignored.add(meta.uid(pod))
            elif action == "FailJob" and self.condition is None:
                self._fail("PodFailurePolicy", message)
            elif action == "FailIndex":
                self.failed_indexes.add(index_of(pod))
            if self.per_index is not None and action == "Count" and _tries(pod) >= self.per_index:
                self.failed_indexes.add(index_of(pod))

    @property
    def succeeded(self) -> int:
        if self.indexed:
            return len(self.completed)
        old = self.job.get("status", {}).get("succeeded", 0)
        return int(old) + len(self.written["succeeded"]) + len(self.new_succeeded)

    @property
    def failed(self) -> int:
        old = self.job.get("status", {}).get("failed", 0)
        return (
            int(old)
            + len(self.written["failed"])
            + len([p for p in self.new_failed if meta.uid(p) not in self.ignored])
        )

    def _fail(self, reason: str, message: str) -> None:
        self.condition = {"type": "FailureTarget", "status": "True", "reason": reason, "message": message}

    def _succeed(self, reason: str, message: str) -> None:
        self.condition = {
            "type": "SuccessCriteriaMet",
            "status": "True",
            "reason": reason,
            "message": message,
        }

    def judge(self) -> None:
        """Is it decided? A decision that was made before stands."""
        job, spec = self.job, self.job["spec"]
        for kind in ("FailureTarget", "SuccessCriteriaMet"):
            if meta.is_true(job, kind):
                self.condition = meta.condition(job, kind)
                return
        if self.condition is not None:
            return
        limit, started = spec.get("activeDeadlineSeconds"), job.get("status", {}).get("startTime")
        if self.failed > spec.get("backoffLimit", 6) or self._restarted_too_often():
            self._fail("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif limit is not None and started and not self.suspended and self.now >= seconds(started) + limit:
            self._fail("DeadlineExceeded", "Job was active longer than specified deadline")
        elif spec.get("maxFailedIndexes") is not None and len(self.failed_indexes) > spec["maxFailedIndexes"]:
            self._fail(
                "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
            )
        elif self.indexed and job_policy.enough(job, self.completed):
            self._succeed("SuccessPolicy", "Matched rules at index 0")
        elif self._complete():
            if self.failed_indexes:
                self._fail("FailedIndexes", "Job has failed indexes")
            else:
                self._succeed("CompletionsReached", "Reached expected number of succeeded pods")

    def _complete(self) -> bool:
        if self.completions is None:
            return self.succeeded > 0 and not self.active
        if self.per_index is not None:
            return len(self.completed | self.failed_indexes) >= self.completions and not self.active
        return (
            self.succeeded >= self.completions
            and not self.suspended
            or self.succeeded >= self.completions > 0
        )

    def _restarted_too_often(self) -> bool:
        if self.job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
            return False
        restarts = sum(
            c.get("restartCount", 0)
            for p in self.active
            if pods.phase(p) in ("Running", "Pending")
            for c in [
                *(p["status"].get("containerStatuses") or ()),
                *(p["status"].get("initContainerStatuses") or ()),
            ]
        )
        limit = self.job["spec"].get("backoffLimit", 6)
        return restarts > 0 if limit == 0 else restarts >= limit

    def manage(self, plan: Plan) -> None:
        """As many active pods as are wanted, no sooner than the back-off after failures allows."""
        doomed: list[Object] = []
        if self.condition is not None or self.suspended:
            doomed = self.active
        else:
            wanted = self._wanted()
            if len(self.active) > wanted:
                ranked = pods.by_deletion_order(self.active, [], self.now)
                doomed = ranked[: len(self.active) - wanted]
            elif len(self.active) < wanted:
                self._make(plan, wanted - len(self.active))
        if self.indexed and not doomed:
            doomed = self._duplicates()
        plan.then(*(Delete("pods", meta.name(p), meta.namespace(p), uid=meta.uid(p)) for p in doomed))
        plan.events += [
            Event(self.job, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name(p)}") for p in doomed
        ]

    def _wanted(self) -> int:
        if self.completions is None:
            return len(self.active) if self.succeeded else self.parallelism
        left = (
            self.completions
            - self.succeeded
            - (len(self.failed_indexes) if self.per_index is not None else 0)
        )
        return max(0, min(self.parallelism, left))

    def _duplicates(self) -> list[Object]:
        seen: set[int] = set()
        extra = []
        for pod in sorted(self.active, key=lambda p: p["metadata"]["creationTimestamp"]):
            number = index_of(pod)
            if number in seen or number in self.completed or number >= (self.completions or 0):
                extra.append(pod)
            seen.add(number)
        return extra

    def _make(self, plan: Plan, count: int) -> None:
        failures = sorted(t for p in self.ended if pods.phase(p) == "Failed" and (t := _ended_at(p)))
        last_success = max((_ended_at(p) for p in self.ended if pods.phase(p) == "Succeeded"), default=0.0)
        in_a_row = [t for t in failures if t > last_success]
        self.wait = job_policy.backoff(len(in_a_row), in_a_row[-1] if in_a_row else 0.0, self.now)
        if self.job["spec"].get("podReplacementPolicy") == "Failed":
            count -= sum(pods.terminating(p) for p in self.pods)
        if self.wait or count <= 0:
            if self.wait:
                plan.requeue(self.wait)
                plan.why = f"waits {self.wait:.0f} s after {len(in_a_row)} failures"
            return
        event = Event(self.job, "Normal", "SuccessfulCreate", "Created pod: {name}")
        made = [self._pod(i) for i in self._indexes(count)] if self.indexed else [self._pod(-1)] * count
        plan.why = f"creates {len(made)} pods"
        plan.then(*(Create("pods", p, meta.namespace(self.job), event=event) for p in made[:_BURST]))
        plan.events.append(Event(self.job, "Warning", "FailedCreate", "Error creating: {error}"))

    def _indexes(self, count: int) -> list[int]:
        busy = {index_of(p) for p in self.active} | self.completed | self.failed_indexes
        return [i for i in range(self.completions or 0) if i not in busy][:count]

    def _pod(self, number: int) -> Object:
        job = self.job
        pod = pods.from_template(job["spec"]["template"], job)
        pod["metadata"]["finalizers"] = [*pod["metadata"].get("finalizers", ()), _FINALIZER]
        if number < 0:
            return pod
        name, spec = f"{meta.name(job)}-{number}", pod["spec"]
        pod["metadata"]["generateName"] = f"{name}-"
        marks = {INDEX: str(number)}
        pod["metadata"]["labels"] = pod["metadata"].get("labels", {}) | marks
        pod["metadata"]["annotations"] = pod["metadata"].get("annotations", {}) | marks
        if self.per_index is not None:
            tried = max((_tries(p) + 1 for p in self.ended if index_of(p) == number), default=0)
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] = str(tried)
        spec.setdefault("hostname", name)
        source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
        env = {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}
        for part in ("containers", "initContainers"):
            if spec.get(part):
                spec[part] = [
                    c
                    if any(e["name"] == env["name"] for e in c.get("env") or ())
                    else c | {"env": [*(c.get("env") or ()), env]}
                    for c in spec[part]
                ]
        return pod

    def status(self, plan: Plan) -> Object:
        """Counters with what is safely counted; the new results are written down by uid first."""
        old = self.job.get("status", {})
        held = {meta.uid(p) for p in self.pods if _FINALIZER in meta.finalizers(p)}
        counted = {k: [u for u in uids if u not in held] for k, uids in self.written.items()}
        kept = {k: [u for u in uids if u in held] for k, uids in self.written.items()}
        kept["succeeded"] += [] if self.indexed else [meta.uid(p) for p in self.new_succeeded]
        kept["failed"] += [meta.uid(p) for p in self.new_failed if meta.uid(p) not in self.ignored]
        status = dict(old) | {
            "active": len(self.active) or None,
            "ready": sum(pods.ready(p) for p in self.active),
            "terminating": sum(pods.terminating(p) for p in self.pods),
            "succeeded": (
                len(self.completed) if self.indexed else old.get("succeeded", 0) + len(counted["succeeded"])
            )
            or None,
            "failed": (old.get("failed", 0) + len(counted["failed"])) or None,
            "uncountedTerminatedPods": {k: v for k, v in kept.items() if v},
            "completedIndexes": job_policy.text(self.completed) if self.indexed and self.completed else None,
            "failedIndexes": job_policy.text(self.failed_indexes) if self.failed_indexes else None,
        }
        if self.per_index is not None and not self.failed_indexes:
            status["failedIndexes"] = ""
        if not old.get("startTime") and not self.suspended:
            status["startTime"] = stamp(self.now)
        elif self.suspended:
            status["startTime"] = None
        status["conditions"] = self._conditions(plan, status, settled=not any(kept.values()) and not self.new)
        return {k: v for k, v in status.items() if v is not None and v != []}

    def _conditions(self, plan: Plan, status: Object, *, settled: bool) -> list[Object]:
        job, now = self.job, self.now
        conditions = list(meta.conditions(job))
        was = meta.condition(job, "Suspended")
        if self.suspended and self.condition is None and not (was and was["status"] == "True"):
            conditions = _set(conditions, "Suspended", "True", "JobSuspended", "Job suspended", now)
            plan.events.append(Event(job, "Normal", "Suspended", "Job suspended"))
        elif not self.suspended and was and was["status"] == "True":
            conditions = _set(conditions, "Suspended", "False", "JobResumed", "Job resumed", now)
            plan.events.append(Event(job, "Normal", "Resumed", "Job resumed"))
        decided = self.condition
        limit = job["spec"].get("activeDeadlineSeconds")
        if decided is None:
            if limit is not None and status.get("startTime"):
                plan.requeue(max(0.01, seconds(status["startTime"]) + limit - now))
            return conditions
        reason, message = decided["reason"], decided["message"]
        conditions = _set(conditions, decided["type"], "True", reason, message, now)
        if self.active or status["terminating"] or not settled:
            return conditions
        if decided["type"] == "SuccessCriteriaMet":
            status["completionTime"] = stamp(now)
            plan.events.append(Event(job, "Normal", "Completed", "Job completed"))
            return _set(conditions, "Complete", "True", reason, message, now)
        plan.events.append(Event(job, "Warning", reason, message))
        return _set(conditions, "Failed", "True", reason, message, now)


def _tries(pod: Object) -> int:
    return int(meta.annotations(pod).get("batch.kubernetes.io/job-index-failure-count", "0"))


def _ended_at(pod: Object) -> float:
    """When the last container ended, or when its deletion began."""
    times = [
        seconds(ended.get("finishedAt"))
        for c in pod.get("status", {}).get("containerStatuses") or ()
        if (ended := (c.get("state") or {}).get("terminated"))
    ]
    return max(times, default=0.0) or seconds(pod["metadata"].get("deletionTimestamp"))


def _set(
    conditions: list[Object], kind: str, state: str, reason: str, message: str, now: float
) -> list[Object]:
    old = next((c for c in conditions if c["type"] == kind), None)
    if old and old["status"] == state:
        return conditions
    new = {"type": kind, "status": state, "reason": reason, "message": message}
    new |= {"lastProbeTime": stamp(now), "lastTransitionTime": stamp(now)}
    return [c for c in conditions if c["type"] != kind] + [new]
