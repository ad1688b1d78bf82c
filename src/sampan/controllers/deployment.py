"""Deployment: one ReplicaSet a template, and a way from the old ones to the new one that keeps the application up.

Each plan is one step of the rollout; the ReplicaSets' own progress wakes the next. Source: API reference Deployment
v1, "Deployments" (rolling over, proportional scaling, progress deadline). The parts: `revisions` (which set is the
new one, its hash and number), `rolling` (how many pods each set may have), `progress` (status and conditions).
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Event, Key, Patch, Plan, View, by_metadata

from . import pods, progress, revisions, rolling
from .adoption import claim
from .base import Rule, collision, merge_diff, owner_of, owner_or_selecting, selector_of, status_patch

_RS = "replicasets.apps"
_RESOURCE = "deployments.apps"


def rules() -> list[Rule]:
    watches = {_RS: owner_or_selecting("Deployment", _RESOURCE), "pods": _recreating}
    return [Rule("deployment-controller", _RESOURCE, reconcile, watches)]


@by_metadata
def _recreating(pod: Object, view: View) -> list[Key]:
    """Only a Recreate Deployment waits for pods themselves: the last one of the old template must be gone."""
    ref = meta.owner(pod)
    rs = view.get(_RS, ref["name"], meta.namespace(pod)) if ref and ref.get("kind") == "ReplicaSet" else None
    if rs is None:
        return []
    keys = list(owner_of("Deployment")(rs, view))
    owners = [view.get(_RESOURCE, k.name, k.namespace) for k in keys]
    return [k for k, d in zip(keys, owners, strict=True) if d and rolling.recreates(d)]


def reconcile(d: Object, view: View, now: float) -> Plan:
    """The next step: adopt, then number the new set, then scale, then roll; status always last."""
    plan = Plan()
    claimed = claim(d, _RESOURCE, _RS, selector_of(d), view)
    plan.reads = claimed.reads
    if plan.reads:
        return plan
    plan.then(*claimed.steps)
    new, old = revisions.split(d, claimed.mine)
    sets = [*old, *([new] if new else [])]
    if meta.deleted(d):
        return _finish(plan, d, sets, new, now)
    conditions = progress.paused_conditions(d, now)
    if d["spec"].get("paused") or any(
        rolling.desired(s) not in (None, rolling.replicas(d)) for s in sets if rolling.size(s)
    ):
        # Paused, or the size changed: sizes only. A scaling in mid-rollout is spread over all sets in proportion.
        sizes = rolling.scale(d, new, old)
    elif rolling.recreates(d):
        if any(rolling.size(s) for s in old):
            sizes = {meta.uid(s): 0 for s in old if rolling.size(s)}
        elif _old_pods(old, view):
            return _finish(plan, d, sets, new, now, conditions)
        elif new is None:
            return _create_set(plan, d, old, sets, view, now)
        else:
            sizes = {meta.uid(new): rolling.replicas(d)}
    else:
        if new is None:
            return _create_set(plan, d, old, sets, view, now)
        sizes = rolling.roll(d, new, old)
    if new is not None:
        conditions = conditions or progress.found_set(d, new, now)
    revision = _resize(plan, d, sets, new, old, sizes)
    if progress.complete(d, progress.counters(d, sets, new)) or d["spec"].get("paused"):
        _clean_up(plan, d, old)
    return _finish(plan, d, sets, new, now, conditions, revision)


def _old_pods(old: list[Object], view: View) -> bool:
    """Whether a pod of an old template still runs, be it terminating."""
    return any(not pods.finished(p) for s in old for p in view.owned("pods", meta.uid(s)))


def _create_set(plan: Plan, d: Object, old: list[Object], sets: list[Object], view: View, now: float) -> Plan:
    """Creates the ReplicaSet of the current template, at the size the strategy allows at once."""
    name = revisions.set_name(d)
    if view.get(_RS, name, meta.namespace(d)) is not None:
        plan.why = f"name {name} is taken by another template"
        return plan.then(collision(_RESOURCE, d))
    size = rolling.replicas(d) if rolling.recreates(d) else rolling.new_size(d, 0, old)
    new = revisions.new_set(d, old, size)
    plan.why = f"creates {name} with {size} of {rolling.replicas(d)}"
    plan.then(Create(_RS, new, meta.namespace(d)))
    if size:
        _event(plan, d, f"Scaled up replica set {name} from 0 to {size}")
    failed = f'Failed to create new replica set "{name}": {{error}}'
    plan.events.append(Event(d, "Warning", "ReplicaSetCreateError", failed))
    plan.rescue = list(
        status_patch(
            _RESOURCE, d, progress.status(d, sets, None, now, progress.create_failed(d, failed, now))
        )
    )
    status = progress.status(d, [*sets, new], new, now, progress.created_set(d, name, now))
    return plan.then(*_status(d, status, revisions.text(new)))


def _status(d: Object, status: Object, revision: str) -> list[Patch]:
    """One patch, if any; with the status goes the revision of the new set (`kubectl rollout history`)."""
    steps = status_patch(_RESOURCE, d, status)
    if revision and meta.annotations(d).get(revisions.REVISION) != revision:
        change = steps[0].patch if steps else {}
        change |= {"metadata": {"annotations": {revisions.REVISION: revision}}}
        return [Patch(_RESOURCE, meta.name(d), change, meta.namespace(d), subresource="status")]
    return steps


def _resize(
    plan: Plan, d: Object, sets: list[Object], new: Object | None, old: list[Object], sizes: dict[str, int]
) -> str:
    """One patch a set for its size, the annotations that remember the Deployment's, and the new set's revision,
    which is returned."""
    steps = []
    revision = ""
    for s in sets:
        wanted: Object = {
            "metadata": {"annotations": dict(meta.annotations(s))},
            "spec": {"replicas": rolling.size(s)},
        }
        if s is new:
            wanted["metadata"]["annotations"] = revisions.annotations_for(d, s, old)
            wanted["spec"]["minReadySeconds"] = d["spec"].get("minReadySeconds", 0)
            revision = revisions.text(wanted)
        if meta.uid(s) in sizes or (rolling.size(s) and rolling.desired(s) != rolling.replicas(d)):
            wanted["spec"]["replicas"] = sizes.get(meta.uid(s), rolling.size(s))
            wanted["metadata"]["annotations"] |= rolling.size_annotations(d)
        current = {
            "metadata": {"annotations": dict(meta.annotations(s))},
            "spec": {"replicas": rolling.size(s), "minReadySeconds": s["spec"].get("minReadySeconds", 0)},
        }
        if s is not new:
            current["spec"].pop("minReadySeconds")
        diff = merge_diff(current, wanted)
        if diff:
            steps.append(Patch(_RS, meta.name(s), diff, meta.namespace(s)))
        before, after = rolling.size(s), wanted["spec"]["replicas"]
        if before != after:
            _event(
                plan,
                d,
                f"Scaled {'up' if after > before else 'down'} replica set {meta.name(s)} from {before} to {after}",
            )
    plan.then(*steps)
    return revision


def _event(plan: Plan, d: Object, message: str) -> None:
    plan.events.append(Event(d, "Normal", "ScalingReplicaSet", message))
    plan.why = plan.why or message


def _clean_up(plan: Plan, d: Object, old: list[Object]) -> None:
    """Deletes the oldest empty sets beyond `revisionHistoryLimit`."""
    limit = d["spec"].get("revisionHistoryLimit")
    alive = sorted((s for s in old if not meta.deleted(s)), key=revisions.number)
    if limit is None or len(alive) <= limit:
        return
    empty = [s for s in alive[: len(alive) - limit] if _empty(s)]
    plan.then(*(Delete(_RS, meta.name(s), meta.namespace(s), uid=meta.uid(s)) for s in empty))


def _empty(s: Object) -> bool:
    status = s.get("status", {})
    observed = status.get("observedGeneration", 0) >= s["metadata"].get("generation", 0)
    return observed and not rolling.size(s) and not status.get("replicas")


def _finish(
    plan: Plan,
    d: Object,
    sets: list[Object],
    new: Object | None,
    now: float,
    conditions: list[Object] | None = None,
    revision: str = "",
) -> Plan:
    status = progress.status(d, sets, new, now, conditions)
    wait = progress.deadline_in(d, status, now)
    if wait is not None:
        plan.requeue(wait)
    return plan.then(*_status(d, status, revision))
