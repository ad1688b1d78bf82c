"""Status of a Deployment: counters over its ReplicaSets, and the conditions that `kubectl rollout status` waits for.

Available says whether enough pods serve; Progressing whether the rollout moves, has ended, or missed its deadline;
ReplicaFailure repeats what a ReplicaSet could not do.
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object

from . import rolling
from .base import counts, seconds, stamp

_DONE = "NewReplicaSetAvailable"
_LATE = "ProgressDeadlineExceeded"
_NO_DEADLINE = 2**31 - 1


def counters(d: Object, sets: list[Object], new: Object | None) -> Object:
    """The numbers of `status`, as of the sets' own status."""

    def total(field: str) -> int:
        return sum(s.get("status", {}).get(field, 0) for s in sets)

    available = total("availableReplicas")
    return counts(
        observedGeneration=d["metadata"].get("generation", 0),
        replicas=total("replicas"),
        updatedReplicas=new.get("status", {}).get("replicas", 0) if new else 0,
        readyReplicas=total("readyReplicas"),
        availableReplicas=available,
        unavailableReplicas=max(0, sum(map(rolling.size, sets)) - available),
    )


def complete(d: Object, numbers: Object) -> bool:
    """All pods are of the new template, available, and none is left over."""
    wanted = rolling.replicas(d)
    return all(numbers.get(n, 0) == wanted for n in ("updatedReplicas", "replicas", "availableReplicas"))


def status(
    d: Object, sets: list[Object], new: Object | None, now: float, given: list[Object] | None = None
) -> Object:
    """The whole new status. `given` are conditions that the step itself produced; they win over what is computed."""
    numbers = counters(d, sets, new)
    old = d.get("status", {})
    result = numbers | {
        "terminatingReplicas": sum(s.get("status", {}).get("terminatingReplicas", 0) for s in sets)
    }
    if old.get("collisionCount"):
        result["collisionCount"] = old["collisionCount"]
    conditions = list(given if given is not None else old.get("conditions") or ())
    enough = numbers.get("availableReplicas", 0) >= rolling.replicas(d) - rolling.limits(d)[1]
    conditions = _set(conditions, _available(enough), now)
    if not _has_deadline(d):
        conditions = [c for c in conditions if c["type"] != "Progressing"]
    elif given is None and not d["spec"].get("paused"):
        conditions = _progress(d, numbers, new, conditions, now)
    failure = next((c for s in reversed(sets) if (c := meta.condition(s, "ReplicaFailure"))), None)
    conditions = [c for c in conditions if c["type"] != "ReplicaFailure"]
    if failure:
        known = meta.condition(d, "ReplicaFailure")
        same = known and known.get("message") == failure.get("message")
        conditions.append(known if same else failure | {"lastUpdateTime": stamp(now)})
    return result | ({"conditions": conditions} if conditions else {})


def _progress(
    d: Object, numbers: Object, new: Object | None, conditions: list[Object], now: float
) -> list[Object]:
    current = next((c for c in conditions if c["type"] == "Progressing"), None)
    finished = numbers.get("replicas", 0) == numbers.get("updatedReplicas", 0)
    if current and current.get("reason") == _DONE and finished:
        return conditions
    subject = f'ReplicaSet "{meta.name(new)}"' if new else f'Deployment "{meta.name(d)}"'
    if complete(d, numbers):
        return _set(conditions, _progressing("True", _DONE, f"{subject} has successfully progressed."), now)
    if _moved(d.get("status", {}), numbers):
        moving = _progressing("True", "ReplicaSetUpdated", f"{subject} is progressing.")
        return _set(conditions, moving, now, touch=True)
    if _timed_out(d, current, now):
        return _set(conditions, _progressing("False", _LATE, f"{subject} has timed out progressing."), now)
    return conditions


def _moved(old: Object, new: Object) -> bool:
    """Whether the rollout made a step since the last status: newer, readier, or fewer old ones."""

    def left(numbers: Object) -> int:
        return numbers.get("replicas", 0) - numbers.get("updatedReplicas", 0)

    grew = any(
        new.get(n, 0) > old.get(n, 0) for n in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    return grew or left(new) < left(old)


def _timed_out(d: Object, current: Object | None, now: float) -> bool:
    if current is None or current.get("reason") == _DONE:
        return False
    if current.get("reason") == _LATE:
        return True
    return seconds(current.get("lastUpdateTime")) + d["spec"]["progressDeadlineSeconds"] < now


def deadline_in(d: Object, new_status: Object, now: float) -> float | None:
    """Seconds until the progress deadline has to be looked at; None when it does not run."""
    current = next((c for c in new_status.get("conditions", ()) if c["type"] == "Progressing"), None)
    if not _has_deadline(d) or current is None or d["spec"].get("paused"):
        return None
    if current.get("reason") in (_DONE, _LATE) or complete(d, new_status):
        return None
    return max(1.0, seconds(current.get("lastUpdateTime")) + d["spec"]["progressDeadlineSeconds"] - now + 1)


def paused_conditions(d: Object, now: float) -> list[Object] | None:
    """Pausing stops the deadline's clock, resuming starts it again; None when neither just happened."""
    if not _has_deadline(d):
        return None
    current = meta.condition(d, "Progressing")
    conditions = list(d.get("status", {}).get("conditions") or ())
    if current and current.get("reason") == _LATE:
        return None
    was = bool(current and current.get("reason") == "DeploymentPaused")
    if d["spec"].get("paused") and not was:
        return _set(conditions, _progressing("Unknown", "DeploymentPaused", "Deployment is paused"), now)
    if not d["spec"].get("paused") and was:
        return _set(conditions, _progressing("Unknown", "DeploymentResumed", "Deployment is resumed"), now)
    return None


def found_set(d: Object, new: Object, now: float) -> list[Object] | None:
    """An existing (adopted, or once more current) set begins the progress, when nothing did."""
    if meta.condition(d, "Progressing") or not _has_deadline(d):
        return None
    found = _progressing("True", "FoundNewReplicaSet", f'Found new replica set "{meta.name(new)}"')
    return _set(list(d.get("status", {}).get("conditions") or ()), found, now)


def created_set(d: Object, name: str, now: float) -> list[Object]:
    created = _progressing("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
    return _set(list(d.get("status", {}).get("conditions") or ()), created, now)


def create_failed(d: Object, message: str, now: float) -> list[Object]:
    failed = _progressing("False", "ReplicaSetCreateError", message)
    return _set(list(d.get("status", {}).get("conditions") or ()), failed, now)


def _has_deadline(d: Object) -> bool:
    return d["spec"].get("progressDeadlineSeconds") not in (None, _NO_DEADLINE)


def _available(enough: bool) -> Object:
    if enough:
        reason, message = "MinimumReplicasAvailable", "Deployment has minimum availability."
    else:
        reason, message = "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
    return {"type": "Available", "status": str(enough), "reason": reason, "message": message}


def _progressing(state: str, reason: str, message: str) -> Object:
    return {"type": "Progressing", "status": state, "reason": reason, "message": message}


def _set(conditions: list[Object], new: Object, now: float, *, touch: bool = False) -> list[Object]:
    """With the same status and reason a condition stays as it is, unless `touch` renews its update time."""
    old = next((c for c in conditions if c["type"] == new["type"]), None)
    if old and not touch and (old["status"], old.get("reason")) == (new["status"], new["reason"]):
        return conditions
    since = old["lastTransitionTime"] if old and old["status"] == new["status"] else stamp(now)
    new = new | {"lastUpdateTime": stamp(now), "lastTransitionTime": since}
    return [c for c in conditions if c["type"] != new["type"]] + [new]
