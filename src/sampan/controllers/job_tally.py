"""What a Job's pods have come to so far: who runs, who has ended, and what of it is counted, once and for all.

A finished pod keeps a finalizer until its result stands in the Job's status: first its uid is written down as
uncounted, then the finalizer goes, then the counter rises. Source: API reference Job v1 (uncountedTerminatedPods), KEP-2307.
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object

from . import job_policy, pods
from .base import seconds, stamp
from .job_policy import index_of

FINALIZER = "batch.kubernetes.io/job-tracking"
TRIES = "batch.kubernetes.io/job-index-failure-count"
FORGIVEN = "batch.kubernetes.io/job-index-ignored-failure-count"
_MOVING = 500  # uids written down as uncounted at once


class Tally:
    """One look at a Job's pods. `failures` are those in a row that were known before: pod uid -> when it ended."""

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
        self.new = [p for p in self.ended if FINALIZER in meta.finalizers(p) and meta.uid(p) not in known][
            :_MOVING
        ]
        self.attempts = _by_index(mine) if self.per_index is not None else {}
        self.last_failures = _last_failures(self.ended) if self.per_index is not None else {}
        self.completed = job_policy.parse(old.get("completedIndexes"))
        self.failed_indexes = job_policy.parse(old.get("failedIndexes"))
        self.ignored: set[str] = set()
        self.fatal = ""  # what a failure policy says of the pod that fails the Job
        self._take_in()
        self.failures = self._in_a_row(failures)

    def countable(self, *, decided: bool) -> list[Object]:
        """Ended pods whose finalizer may go, since the status that is written first knows them."""
        held = [p for p in self.ended if FINALIZER in meta.finalizers(p)]
        return [p for p in held if decided or not self._remembers(p)][:_MOVING]

    def _remembers(self, pod: Object) -> bool:
        """The last failure of an index that will be tried again: its annotation holds how often that was (KEP-3850)."""
        if self.per_index is None or pods.phase(pod) == "Succeeded":
            return False
        number = index_of(pod)
        if number in self.failed_indexes | self.completed or number >= (self.completions or 0):
            return False
        return attempt(pod) >= self.attempts[number]

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
        if self.indexed:  # an index that was scaled away does not count
            self.completed |= {
                i for p in self.new_succeeded if 0 <= (i := index_of(p)) < (self.completions or 0)
            }
            self.new_failed = [p for p in self.new_failed if 0 <= index_of(p) < (self.completions or 0)]
        for pod in self.new_failed:
            action, message = job_policy.failure_action(self.job, pod)
            if action == "Ignore":
                self.ignored.add(meta.uid(pod))
            elif action == "FailJob" and not self.fatal:
                self.fatal = message
            elif action == "FailIndex":
                self.failed_indexes.add(index_of(pod))
            if self.per_index is not None and action == "Count" and tries(pod) >= self.per_index:
                self.failed_indexes.add(index_of(pod))

    @property
    def succeeded(self) -> int:
        """What the status has counted, what it has written down to count, and what ended since; of an indexed Job the indexes."""
        if self.indexed:
            return len(self.completed)
        old = self.job.get("status", {}).get("succeeded", 0)
        return int(old) + len(self.written["succeeded"]) + len(self.new_succeeded)

    @property
    def failed(self) -> int:
        """What the status has counted, what it has written down to count, and what ended since; not what a policy ignores."""
        old = self.job.get("status", {}).get("failed", 0)
        return (
            int(old)
            + len(self.written["failed"])
            + len([p for p in self.new_failed if meta.uid(p) not in self.ignored])
        )

    def _in_a_row(self, before: dict[str, float]) -> dict[str, float]:
        """Failures since the last success: those seen `before`, pods that failed, and pods that were just deleted."""
        now_failed = [*self.new_failed, *(p for p in self.ended if pods.phase(p) == "Failed")]
        failures = {meta.uid(p): ended_at(p) for p in now_failed} | before
        well = [p for p in self.ended if pods.phase(p) == "Succeeded" and meta.uid(p) not in before]
        last_success = max(map(ended_at, well), default=0.0)  # who counted as failed may still end well
        return {uid: t for uid, t in failures.items() if t > last_success}

    def status(self) -> tuple[Object, bool]:
        """The new status but for its conditions, and whether every result that is known is safely counted by it.

        Counters rise with what is safely counted; the new results are written down by uid first.
        """
        old = self.job.get("status", {})
        held = {meta.uid(p) for p in self.pods if FINALIZER in meta.finalizers(p)}
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
        return status, not any(kept.values()) and not self.new


def tries(pod: Object, kind: str = TRIES) -> int:
    text = meta.annotations(pod).get(kind, "")
    return int(text) if text.isdigit() else 0


def attempt(pod: Object) -> int:
    """How many pods of this index failed before, counted or not."""
    return tries(pod) + tries(pod, FORGIVEN)


def _by_index(found: list[Object]) -> dict[int, int]:
    """The highest attempt of each index."""
    attempts: dict[int, int] = {}
    for pod in found:
        number = index_of(pod)
        attempts[number] = max(attempts.get(number, 0), attempt(pod))
    return attempts


def _last_failures(ended: list[Object]) -> dict[int, Object]:
    failed = sorted((p for p in ended if pods.phase(p) != "Succeeded"), key=attempt)
    return {index_of(p): p for p in failed}


def ended_at(pod: Object) -> float:
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
