"""DaemonSet: one pod of the template on every node that it fits.

Each pod is tied to its node by affinity, and bound by the scheduler like any other. Source: API reference DaemonSet
v1, "DaemonSet" (taints and tolerations), "Perform a Rolling Update on a DaemonSet".
"""

from __future__ import annotations

from collections import defaultdict

from sampan.api import meta, placement
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Event, Key, Patch, Plan, Step, View

from . import history, pods
from .adoption import claim
from .base import Rule, collision, counts, owner_of, owner_or_selecting, selector_of, status_patch
from .rolling import of_total

_RESOURCE = "daemonsets.apps"
_HASH = "controller-revision-hash"
_PREFIX = "node.kubernetes.io/"
_TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)
_BURST = 250


def rules() -> list[Rule]:
    watches = {
        "pods": owner_or_selecting("DaemonSet", _RESOURCE),
        "nodes": _fitting,
        history.RESOURCE: owner_of("DaemonSet"),
    }
    return [Rule("daemon-set-controller", _RESOURCE, reconcile, watches)]


def _fitting(node: Object, view: View) -> list[Key]:
    """A heartbeat changes nothing: only DaemonSets that lack a pod there, or have one they should not, are woken."""
    name = meta.name(node)
    here = {(meta.owner(p) or {}).get("uid") for p in view.indexed("pods", "spec.nodeName", name)}
    current = view.get("nodes", name)
    return [
        Key(meta.namespace(ds), meta.name(ds))
        for ds in view.list(_RESOURCE)
        if (meta.uid(ds) in here) != bool(current and _should_run(ds, current)[0])
    ]


def reconcile(ds: Object, view: View, now: float) -> Plan:
    """First the pods that are missing or too many, then the rolling update, then status."""
    plan = Plan()
    if meta.deleted(ds):
        return plan
    past = history.of(ds, view, _HASH)
    if past.collided:
        return plan.then(collision(_RESOURCE, ds))
    claimed = claim(ds, _RESOURCE, "pods", selector_of(ds), view)
    plan.reads = claimed.reads
    if plan.reads:
        return plan
    plan.then(*past.steps, *claimed.steps)
    plan.then(*_relabelled(claimed.mine, past))
    fleet = _Fleet(ds, claimed.mine, past, view, now)
    fleet.manage(plan)
    if not fleet.changing:
        fleet.roll()
    fleet.carry_out(plan)
    live = {f"{meta.name(ds)}-{meta.labels(p).get(_HASH, '')}" for p in claimed.mine}
    plan.then(*history.surplus(past, live, ds["spec"].get("revisionHistoryLimit", 10)))
    status = status_patch(_RESOURCE, ds, fleet.status())
    if fleet.changing:
        plan.rescue = [*status]  # else the result of what is done wakes the next look, which tells
    else:
        plan.then(*status)
    wait = pods.next_available(claimed.mine, ds["spec"].get("minReadySeconds", 0), now)
    return plan.requeue(wait) if wait is not None else plan


def _hashes(past: history.History) -> set[str]:
    return {meta.labels(r).get(_HASH, "") for r in past.equal}


def _relabelled(mine: list[Object], past: history.History) -> list[Step]:
    """Pods of a revision that was copied belong to the newest copy; they need not be made anew."""
    newest = meta.labels(past.update).get(_HASH, "")
    older = _hashes(past) - {newest}
    return [
        Patch("pods", meta.name(p), {"metadata": {"labels": {_HASH: newest}}}, meta.namespace(p))
        for p in mine
        if meta.labels(p).get(_HASH) in older and pods.active(p)
    ]


def tolerations(spec: Object) -> list[Object]:
    """The template's own and those every daemon pod has."""
    found = list(spec.get("tolerations") or ())
    extra = [*_TOLERATED, *([("network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else [])]
    for key, effect in extra:
        new = {"key": _PREFIX + key, "operator": "Exists", "effect": effect}
        if new not in found:
            found.append(new)
    return found


def _should_run(ds: Object, node: Object) -> tuple[bool, bool]:
    """(should a pod start on this node, may one that runs there stay)."""
    spec = ds["spec"]["template"]["spec"]
    if not placement.fits(spec, node) or spec.get("nodeName") not in (None, "", meta.name(node)):
        return False, False
    bearing = tolerations(spec)
    stays = not placement.untolerated(node, bearing, "NoExecute")
    return stays and not placement.untolerated(node, bearing, "NoSchedule"), stays


def node_of(pod: Object) -> str:
    """Where a daemon pod belongs: its node, or the one its affinity names."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for match in term.get("matchFields") or ():
            if match["key"] == "metadata.name" and match["operator"] == "In":
                return str(match["values"][0])
    return ""


class _Fleet:
    """The pods by node, and what is to be done with them."""

    def __init__(self, ds: Object, mine: list[Object], past: history.History, view: View, now: float) -> None:
        self.ds, self.now = ds, now
        self.hash = meta.labels(past.update).get(_HASH, "")
        self.hashes = _hashes(past)
        self.min_ready = ds["spec"].get("minReadySeconds", 0)
        self.by_node: dict[str, list[Object]] = defaultdict(list)
        for pod in mine:
            self.by_node[node_of(pod)].append(pod)
        self.nodes = {meta.name(n): _should_run(ds, n) for n in view.list("nodes")}
        self.wanted = [name for name, (run, _) in self.nodes.items() if run]
        self.create: list[str] = []
        self.delete: dict[str, Object] = {}
        rolling = (ds["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
        self.surge = of_total(rolling.get("maxSurge", 0), len(self.wanted), up=True)
        self.unavailable = of_total(rolling.get("maxUnavailable", 1), len(self.wanted), up=True)
        if not self.surge and not self.unavailable:
            self.unavailable = 1

    @property
    def changing(self) -> bool:
        return bool(self.create or self.delete)

    def available(self, pod: Object) -> bool:
        at = pods.available_at(pod, self.min_ready)
        return at is not None and at <= self.now

    def updated(self, pod: Object) -> bool:
        return meta.labels(pod).get(_HASH, "") in self.hashes

    def manage(self, plan: Plan) -> None:
        """Missing, finished and surplus pods."""
        for name in sorted(self.nodes.keys() | self.by_node.keys()):
            run, stay = self.nodes.get(name, (False, False))
            here = self.by_node.get(name, [])
            alive = [p for p in here if pods.active(p)]
            if not stay:
                self.delete |= {meta.uid(p): p for p in here if not meta.deleted(p) and name in self.nodes}
                continue
            for pod in here:
                if pods.finished(pod) and not meta.deleted(pod):
                    self._finished(plan, pod, name)
            if (
                run
                and not [p for p in here if not pods.finished(p)]
                and not any(pods.finished(p) for p in here)
            ):
                self.create.append(name)
            for group in ([p for p in alive if self.updated(p)], [p for p in alive if not self.updated(p)]):
                oldest_first = sorted(group, key=lambda p: (p["metadata"]["creationTimestamp"], meta.name(p)))
                self.delete |= {meta.uid(p): p for p in oldest_first[1:]}
            if not self.surge and len({self.updated(p) for p in alive}) == 2:
                self.delete |= {meta.uid(p): p for p in alive if not self.updated(p)}

    def _finished(self, plan: Plan, pod: Object, node: str) -> None:
        wait = pods.replace_in(pod, self.now)
        if wait:
            plan.requeue(wait)
            return
        self.delete[meta.uid(pod)] = pod
        key = f"{meta.namespace(pod)}/{meta.name(pod)}"
        how = pods.phase(pod)
        kind = "Warning" if how == "Failed" else "Normal"
        message = f"Found {how.lower()} daemon pod {key} on node {node}, will try to {'kill' if how == 'Failed' else 'delete'} it"
        plan.events.append(Event(self.ds, kind, f"{how}DaemonPod", message))

    def roll(self) -> None:
        """Replaces old pods: as many at a time as may be unavailable, or, with surge, after their successors are."""
        if (self.ds["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
            return
        unavailable, surging, ready_to_go, must_go = 0, 0, [], []
        for name in self.wanted:
            alive = [p for p in self.by_node.get(name, []) if pods.active(p)]
            new = next((p for p in alive if self.updated(p)), None)
            old = next((p for p in alive if not self.updated(p)), None)
            if new and old:
                surging += not self.available(new)
                if self.available(new) or not self.available(old):
                    must_go.append((name, old))
            elif old is None:
                unavailable += new is None or not self.available(new)
            elif not self.available(old):
                unavailable += 1
                must_go.append((name, old))
            else:
                ready_to_go.append((name, old))
        if self.surge:
            self.delete |= {meta.uid(old): old for _, old in must_go}
            self.create += [name for name, _ in ready_to_go[: max(0, self.surge - surging)]]
        else:
            going = must_go + ready_to_go[: max(0, self.unavailable - unavailable)]
            self.delete |= {meta.uid(old): old for _, old in going}

    def carry_out(self, plan: Plan) -> None:
        ds, namespace = self.ds, meta.namespace(self.ds)
        steps: list[Step] = [
            Create(
                "pods",
                _pod(ds, name, self.hash),
                namespace,
                event=Event(ds, "Normal", "SuccessfulCreate", "Created pod: {name}"),
            )
            for name in self.create[:_BURST]
        ]
        doomed = list(self.delete.values())[:_BURST]
        plan.then(*steps)
        plan.then(*(Delete("pods", meta.name(p), namespace, uid=meta.uid(p)) for p in doomed))
        plan.events += [
            Event(ds, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name(p)}") for p in doomed
        ]
        if steps:
            plan.events.append(Event(ds, "Warning", "FailedCreate", "Error creating: {error}"))
        if self.changing:
            plan.why = f"creates {len(steps)}, deletes {len(doomed)} pods"

    def status(self) -> Object:
        ready = updated = available = scheduled = misplaced = 0
        for name, (run, _) in self.nodes.items():
            here = [p for p in self.by_node.get(name, []) if not meta.deleted(p)]
            if not run:
                misplaced += bool(here)
                continue
            scheduled += bool(here)
            ready += any(pods.ready(p) for p in here)
            available += any(self.available(p) for p in here)
            updated += any(self.updated(p) for p in here)
        old = self.ds.get("status", {})
        always = {
            "currentNumberScheduled": scheduled,
            "numberMisscheduled": misplaced,
            "desiredNumberScheduled": len(self.wanted),
            "numberReady": ready,
        }
        return (
            always
            | counts(
                observedGeneration=meta.generation(self.ds),
                updatedNumberScheduled=updated,
                numberAvailable=available,
                numberUnavailable=len(self.wanted) - available,
                collisionCount=old.get("collisionCount", 0),
            )
            | ({"conditions": old["conditions"]} if old.get("conditions") else {})
        )


def _pod(ds: Object, node: str, hashed: str) -> Object:
    pod = pods.from_template(ds["spec"]["template"], ds)
    labels = {
        _HASH: hashed,
        "pod-template-generation": meta.annotations(ds).get("deprecated.daemonset.template.generation", "1"),
    }
    pod["metadata"]["labels"] = pod["metadata"].get("labels", {}) | labels
    spec = pod["spec"]
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = spec.get("affinity") or {}
    by_node = (affinity.get("nodeAffinity") or {}) | {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}
    }
    spec["affinity"] = affinity | {"nodeAffinity": by_node}
    spec["tolerations"] = tolerations(spec)
    return pod
