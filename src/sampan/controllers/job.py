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
_TRIES = "batch.kubernetes.io/job-index-failure-count"
_FORGIVEN = "batch.kubernetes.io/job-index-ignored-failure-count"
_BURST = 500
_MOVING = 500  # uids written down as uncounted at once


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
        plan, key = Plan(), Key(meta.namespace(job), meta.name(job))
        if job["spec"].get("managedBy") not in (None, "", "kubernetes.io/job-controller"):
            return plan
        claimed = claim(job, _RESOURCE, "pods", selector_of(job), view, finalizers=[_FINALIZER])
        plan.reads = claimed.reads
        if plan.reads:
            return plan
        plan.then(*claimed.steps)
        if finished(job) or meta.deleted(job):
            self._failures.pop(key, None)
            return plan.then(*(_released(p) for p in claimed.mine if _FINALIZER in meta.finalizers(p)))
        uid, failures = self._failures.pop(key, ("", {}))
        run = _Run(job, claimed.mine, now, failures if uid == meta.uid(job) else {})
        if run.failures:
            self._failures[key] = (meta.uid(job), run.failures)
        run.judge()
        run.manage(plan)
        status = status_patch(_RESOURCE, job, run.status(plan))
        released = [_released(p) for p in run.countable]
        plan.rescue = [*status, *released]  # new pods that are refused keep nobody from counting the old ones
        return plan.then(*status).then(*released)

    def removed(self, key: Key, view: View, now: float) -> Plan:
        """Pods of a Job that is gone must not be held by its finalizer."""
        self._failures.pop(key, None)
        held = [p for p in view.list("pods", key.namespace) if _FINALIZER in meta.finalizers(p)]
        return Plan().then(*(_released(p) for p in held if _orphaned(p, view)))


def _released(pod: Object) -> Patch:
    left = [f for f in meta.finalizers(pod) if f != _FINALIZER]
    patch = {"metadata": {"uid": meta.uid(pod), "finalizers": left or None}}
    return Patch("pods", meta.name(pod), patch, meta.namespace(pod), missing_ok=True)


class _Run:
    """One look at a Job's pods."""

    def __init__(self, job: Object, mine: list[Object], now: float, failures: dict[str, float]) -> None:
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
        self.attempts = _by_index(mine) if self.per_index is not None else {}
        self.last_failures = _last_failures(self.ended) if self.per_index is not None else {}
        self.completed = job_policy.parse(old.get("completedIndexes"))
        self.failed_indexes = job_policy.parse(old.get("failedIndexes"))
        self.ignored: set[str] = set()
        self.condition: Object | None = None  # SuccessCriteriaMet or FailureTarget that is to be set now
        self._take_in()
        self.failures = self._in_a_row(failures)

    @property
    def countable(self) -> list[Object]:
        """Ended pods whose finalizer may go, since the status that is written first knows them."""
        held = [p for p in self.ended if _FINALIZER in meta.finalizers(p) and not self._remembers(p)]
        return held[:_MOVING]

    def _remembers(self, pod: Object) -> bool:
        """The last failure of an index that will be tried again: its annotation holds how often that was (KEP-3850)."""
        if self.per_index is None or self.condition is not None or pods.phase(pod) == "Succeeded":
            return False
        number = index_of(pod)
        if number in self.failed_indexes | self.completed or number >= (self.completions or 0):
            return False
        return _attempt(pod) >= self.attempts[number]

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
        if self.indexed:  # an index that was scaled away does not count
            self.new_failed = [p for p in self.new_failed if 0 <= index_of(p) < (self.completions or 0)]
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
        elif self.indexed and (rule := job_policy.enough(job, self.completed)) is not None:
            self._succeed("SuccessPolicy", f"Matched rules at index {rule}")
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
        """As many active pods as are wanted, no sooner than the back-off after failures allows.

        Pods of a decided Job end as failures; those that are merely too many are let go before and never counted.
        """
        surplus: list[Object] = []
        if self.condition is not None:
            self._delete(plan, self.active)
        elif self.suspended:
            surplus = self.active
        else:
            extra = self._duplicates() if self.indexed else []
            over = len(self.active) - len(extra) - self._wanted()
            if over > 0:
                rest = [p for p in self.active if p not in extra]
                extra += pods.by_deletion_order(rest, [], self.now)[:over]
            elif over < 0 and not extra:
                self._make(plan, -over)
            surplus = extra
        plan.then(*(_released(p) for p in surplus if _FINALIZER in meta.finalizers(p)))
        self._delete(plan, surplus)

    def _delete(self, plan: Plan, doomed: list[Object]) -> None:
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
        if self.job["spec"].get("podReplacementPolicy") == "Failed":
            count -= sum(pods.terminating(p) for p in self.pods)
        if count <= 0 or self._waits(plan):
            return
        event = Event(self.job, "Normal", "SuccessfulCreate", "Created pod: {name}")
        made = [self._pod(i) for i in self._indexes(plan, count)] if self.indexed else [self._pod(-1)] * count
        plan.why = f"creates {len(made)} pods" if made else plan.why
        plan.then(*(Create("pods", p, meta.namespace(self.job), event=event) for p in made[:_BURST]))
        plan.events.append(Event(self.job, "Warning", "FailedCreate", "Error creating: {error}"))

    def _waits(self, plan: Plan) -> bool:
        """Whether failures in a row still hold new pods back; with limits for each index, each waits for itself."""
        if self.per_index is not None:
            return False
        count = len(self.failures)
        wait = job_policy.backoff(count, max(self.failures.values(), default=0.0), self.now)
        if wait:
            plan.requeue(wait)
            plan.why = f"waits {wait:.0f} s after {count} failures"
        return bool(wait)

    def _in_a_row(self, before: dict[str, float]) -> dict[str, float]:
        """Failures since the last success: those seen `before`, pods that failed, and pods that were just deleted."""
        now_failed = [*self.new_failed, *(p for p in self.ended if pods.phase(p) == "Failed")]
        failures = {meta.uid(p): _ended_at(p) for p in now_failed} | before
        well = [p for p in self.ended if pods.phase(p) == "Succeeded" and meta.uid(p) not in before]
        last_success = max(map(_ended_at, well), default=0.0)  # who counted as failed may still end well
        return {uid: t for uid, t in failures.items() if t > last_success}

    def _indexes(self, plan: Plan, count: int) -> list[int]:
        """The lowest indexes that lack a pod and need not wait."""
        busy = {index_of(p) for p in self.active} | self.completed | self.failed_indexes
        if self.job["spec"].get("podReplacementPolicy") == "Failed":
            busy |= {index_of(p) for p in self.pods if pods.terminating(p)}
        free: list[int] = []
        for number in range(self.completions or 0):
            if len(free) == count:
                break
            if number in busy:
                continue
            wait = self._index_waits(number) if self.per_index is not None else 0.0
            if wait:
                plan.requeue(wait)
                plan.why = f"index {number} waits {wait:.0f} s after a failure"
            else:
                free.append(number)
        return free

    def _index_waits(self, number: int) -> float:
        last = self.last_failures.get(number)
        return job_policy.backoff(_attempt(last) + 1, _ended_at(last), self.now) if last else 0.0

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
            pod["metadata"]["annotations"] |= self._failures_so_far(number)
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

    def _failures_so_far(self, number: int) -> dict[str, str]:
        """What a new pod must know of its index: failures that count, and those that the policy ignores."""
        last = self.last_failures.get(number)
        if last is None:
            return {_TRIES: "0"}
        ignored = job_policy.failure_action(self.job, last)[0] == "Ignore"
        tries, forgiven = _tries(last) + (not ignored), _tries(last, _FORGIVEN) + ignored
        return {_TRIES: str(tries)} | ({_FORGIVEN: str(forgiven)} if forgiven else {})

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


def _tries(pod: Object, kind: str = _TRIES) -> int:
    text = meta.annotations(pod).get(kind, "")
    return int(text) if text.isdigit() else 0


def _attempt(pod: Object) -> int:
    """How many pods of this index failed before, counted or not."""
    return _tries(pod) + _tries(pod, _FORGIVEN)


def _by_index(found: list[Object]) -> dict[int, int]:
    """The highest attempt of each index."""
    attempts: dict[int, int] = {}
    for pod in found:
        number = index_of(pod)
        attempts[number] = max(attempts.get(number, 0), _attempt(pod))
    return attempts


def _last_failures(ended: list[Object]) -> dict[int, Object]:
    failed = sorted((p for p in ended if pods.phase(p) != "Succeeded"), key=_attempt)
    return {index_of(p): p for p in failed}


def _ended_at(pod: Object) -> float:
    """When the last container ended, else when the pod ceased to be ready, else when its deletion began."""
    times = [
        seconds(ended.get("finishedAt"))
        for c in pod.get("status", {}).get("containerStatuses") or ()
        if (ended := (c.get("state") or {}).get("terminated"))
    ]
    if any(times):
        return max(times)
    ready = meta.condition(pod, "Ready")
    if ready and ready["status"] == "False" and ready.get("lastTransitionTime"):
        return seconds(ready["lastTransitionTime"])
    data = pod["metadata"]
    return max(0.0, seconds(data.get("deletionTimestamp")) - data.get("deletionGracePeriodSeconds", 0))


def _set(
    conditions: list[Object], kind: str, state: str, reason: str, message: str, now: float
) -> list[Object]:
    old = next((c for c in conditions if c["type"] == kind), None)
    if old and old["status"] == state:
        return conditions
    new = {"type": kind, "status": state, "reason": reason, "message": message}
    new |= {"lastProbeTime": stamp(now), "lastTransitionTime": stamp(now)}
    return [c for c in conditions if c["type"] != kind] + [new]
