"""Which pods a Job makes and which it lets go: as many as are wanted, of which index, and no sooner than a back-off allows.

Source: API reference Job v1 (parallelism, completions, completionMode, podReplacementPolicy, suspend), "Jobs".
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Event, Patch, Plan

from . import job_policy, pods
from .job_policy import INDEX, index_of
from .job_tally import FINALIZER, FORGIVEN, TRIES, Tally, attempt, ended_at, tries

_BURST = 500


def manage(tally: Tally, plan: Plan, *, decided: bool) -> None:
    """As many active pods as are wanted, no sooner than the back-off after failures allows.

    Pods of a decided Job end as failures; those that are merely too many are let go before and never counted.
    """
    surplus: list[Object] = []
    if decided:
        _delete(tally, plan, tally.active)
    elif tally.suspended:
        surplus = tally.active
    else:
        extra = _duplicates(tally) if tally.indexed else []
        over = len(tally.active) - len(extra) - _wanted(tally)
        if over > 0:
            rest = [p for p in tally.active if p not in extra]
            extra += pods.by_deletion_order(rest, [], tally.now)[:over]
        elif over < 0 and not extra:
            _make(tally, plan, -over)
        surplus = extra
    plan.then(*(released(p) for p in surplus if FINALIZER in meta.finalizers(p)))
    _delete(tally, plan, surplus)


def _delete(tally: Tally, plan: Plan, doomed: list[Object]) -> None:
    plan.then(*(Delete("pods", meta.name(p), meta.namespace(p), uid=meta.uid(p)) for p in doomed))
    plan.events += [
        Event(tally.job, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name(p)}") for p in doomed
    ]


def _wanted(tally: Tally) -> int:
    if tally.completions is None:
        return len(tally.active) if tally.succeeded else tally.parallelism
    left = (
        tally.completions
        - tally.succeeded
        - (len(tally.failed_indexes) if tally.per_index is not None else 0)
    )
    return max(0, min(tally.parallelism, left))


def _duplicates(tally: Tally) -> list[Object]:
    seen: set[int] = set()
    extra = []
    for pod in sorted(tally.active, key=lambda p: p["metadata"]["creationTimestamp"]):
        number = index_of(pod)
        if number in seen or number in tally.completed or number >= (tally.completions or 0):
            extra.append(pod)
        seen.add(number)
    return extra


def _make(tally: Tally, plan: Plan, count: int) -> None:
    if tally.job["spec"].get("podReplacementPolicy") == "Failed":
        count -= sum(pods.terminating(p) for p in tally.pods)
    if count <= 0 or _waits(tally, plan):
        return
    event = Event(tally.job, "Normal", "SuccessfulCreate", "Created pod: {name}")
    made = (
        [_pod(tally, i) for i in _indexes(tally, plan, count)] if tally.indexed else [_pod(tally, -1)] * count
    )
    plan.why = f"creates {len(made)} pods" if made else plan.why
    plan.then(*(Create("pods", p, meta.namespace(tally.job), event=event) for p in made[:_BURST]))
    plan.events.append(Event(tally.job, "Warning", "FailedCreate", "Error creating: {error}"))


def _waits(tally: Tally, plan: Plan) -> bool:
    """Whether failures in a row still hold new pods back; with limits for each index, each waits for itself."""
    if tally.per_index is not None:
        return False
    count = len(tally.failures)
    wait = job_policy.backoff(count, max(tally.failures.values(), default=0.0), tally.now)
    if wait:
        plan.requeue(wait)
        plan.why = f"waits {wait:.0f} s after {count} failures"
    return bool(wait)


def _indexes(tally: Tally, plan: Plan, count: int) -> list[int]:
    """The lowest indexes that lack a pod and need not wait."""
    busy = {index_of(p) for p in tally.active} | tally.completed | tally.failed_indexes
    if tally.job["spec"].get("podReplacementPolicy") == "Failed":
        busy |= {index_of(p) for p in tally.pods if pods.terminating(p)}
    free: list[int] = []
    for number in range(tally.completions or 0):
        if len(free) == count:
            break
        if number in busy:
            continue
        wait = _index_waits(tally, number) if tally.per_index is not None else 0.0
        if wait:
            plan.requeue(wait)
            plan.why = f"index {number} waits {wait:.0f} s after a failure"
        else:
            free.append(number)
    return free


def _index_waits(tally: Tally, number: int) -> float:
    last = tally.last_failures.get(number)
    return job_policy.backoff(attempt(last) + 1, ended_at(last), tally.now) if last else 0.0


def _pod(tally: Tally, number: int) -> Object:
    job = tally.job
    pod = pods.from_template(job["spec"]["template"], job)
    pod["metadata"]["finalizers"] = [*pod["metadata"].get("finalizers", ()), FINALIZER]
    if number < 0:
        return pod
    name, spec = f"{meta.name(job)}-{number}", pod["spec"]
    pod["metadata"]["generateName"] = f"{name}-"
    marks = {INDEX: str(number)}
    pod["metadata"]["labels"] = pod["metadata"].get("labels", {}) | marks
    pod["metadata"]["annotations"] = pod["metadata"].get("annotations", {}) | marks
    if tally.per_index is not None:
        pod["metadata"]["annotations"] |= _failures_so_far(tally, number)
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


def _failures_so_far(tally: Tally, number: int) -> dict[str, str]:
    """What a new pod must know of its index: failures that count, and those that the policy ignores."""
    last = tally.last_failures.get(number)
    if last is None:
        return {TRIES: "0"}
    ignored = job_policy.failure_action(tally.job, last)[0] == "Ignore"
    counted, forgiven = tries(last) + (not ignored), tries(last, FORGIVEN) + ignored
    return {TRIES: str(counted)} | ({FORGIVEN: str(forgiven)} if forgiven else {})


def released(pod: Object) -> Patch:
    """Without the finalizer that holds it until it is counted."""
    left = [f for f in meta.finalizers(pod) if f != FINALIZER]
    patch = {"metadata": {"uid": meta.uid(pod), "finalizers": left or None}}
    return Patch("pods", meta.name(pod), patch, meta.namespace(pod), missing_ok=True)
