"""StatefulSet: pods with names, numbers and claims of their own, made, updated and removed in order.

Source: API reference StatefulSet v1, "StatefulSets" (deployment and scaling guarantees, partitions, claim retention).
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Event, Patch, Plan, Step, View

from . import history, pods
from .adoption import claim
from .base import Rule, collision, counts, owner_of, owner_or_selecting, selector_of, status_patch
from .rolling import of_total

_RESOURCE = "statefulsets.apps"
_REVISION = "controller-revision-hash"
_HASH = "controller.kubernetes.io/hash"
_NAME = "statefulset.kubernetes.io/pod-name"
_INDEX = "apps.kubernetes.io/pod-index"
_CLAIMS = "persistentvolumeclaims"


def rules() -> list[Rule]:
    watches = {
        "pods": owner_or_selecting("StatefulSet", _RESOURCE),
        history.RESOURCE: owner_of("StatefulSet"),
    }
    return [Rule("statefulset-controller", _RESOURCE, reconcile, watches, reads=(_CLAIMS,))]


def ordinal(ss: Object, pod: Object) -> int:
    """The number in a pod's name, or -1 when it is not one of this set's names."""
    head, _, number = meta.name(pod).rpartition("-")
    return int(number) if head == meta.name(ss) and number.isdigit() and str(int(number)) == number else -1


def reconcile(ss: Object, view: View, now: float) -> Plan:
    """Pods in the order of their ordinals; `_Run` says who is next. Source: "StatefulSets", deployment and scaling."""
    plan = Plan()
    if meta.deleted(ss):
        return plan
    past = history.of(ss, view, _HASH)
    if past.collided:
        return plan.then(collision(_RESOURCE, ss))
    claimed = claim(ss, _RESOURCE, "pods", selector_of(ss), view, eligible=lambda p: ordinal(ss, p) >= 0)
    plan.reads = claimed.reads
    if plan.reads:
        return plan
    plan.then(*past.steps, *claimed.steps)
    run = _Run(ss, claimed.mine, past, view, now)
    run.decide(plan)
    live = {meta.labels(p).get(_REVISION, "") for p in claimed.mine} | {meta.name(run.current)}
    plan.then(*history.surplus(past, live, ss["spec"].get("revisionHistoryLimit", 10)))
    plan.rescue = [
        *status_patch(_RESOURCE, ss, run.status())
    ]  # pods that are refused leave the rest to be told
    plan.then(*plan.rescue)
    wait = pods.next_available(claimed.mine, ss["spec"].get("minReadySeconds", 0), now)
    return plan.requeue(wait) if wait is not None else plan


class _Run:
    """One look at all pods of a set, by ordinal."""

    def __init__(self, ss: Object, mine: list[Object], past: history.History, view: View, now: float) -> None:
        spec = ss["spec"]
        self.ss, self.view, self.now, self.past = ss, view, now, past
        self.start = (spec.get("ordinals") or {}).get("start", 0)
        self.replicas = spec.get("replicas", 1) or 0
        self.ordered = spec.get("podManagementPolicy", "OrderedReady") != "Parallel"
        self.min_ready = spec.get("minReadySeconds", 0)
        rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
        self.partition = rolling.get("partition") or 0
        self.unavailable = max(1, of_total(rolling.get("maxUnavailable", 1), self.replicas, up=True))
        by_number = {ordinal(ss, p): p for p in mine}
        self.numbers = range(self.start, self.start + self.replicas)
        self.pods = {n: by_number.get(n) for n in self.numbers}
        self.condemned = [by_number[n] for n in sorted(by_number, reverse=True) if n not in self.numbers]
        named = ss.get("status", {}).get("currentRevision", "")
        self.update = past.update
        self.current = past.named(named) or past.update

    def healthy(self, pod: Object) -> bool:
        at = pods.available_at(pod, self.min_ready)
        return pods.phase(pod) == "Running" and at is not None and at <= self.now and not meta.deleted(pod)

    def of_revision(self, pod: Object, revision: Object) -> bool:
        return meta.labels(pod).get(_REVISION) == meta.name(revision)

    def decide(self, plan: Plan) -> None:
        """Up first, then down, then the update: each waits for the one before, if the order matters."""
        steps: list[Step] = []
        if self._up(plan, steps) and self._down(plan, steps):
            self._roll(plan, steps)
        plan.then(*(s for s in steps if isinstance(s, Create) and s.resource == _CLAIMS))
        plan.then(*(s for s in steps if not (isinstance(s, Create) and s.resource == _CLAIMS)))

    def _up(self, plan: Plan, steps: list[Step]) -> bool:
        """Makes what is missing. False: something has to be waited for."""
        for number, pod in self.pods.items():
            if pod is None:
                self._make(plan, steps, number)
                if self.ordered:
                    return False
                continue
            if pods.finished(pod) and not meta.deleted(pod):
                self._replace(plan, steps, pod)
                if self.ordered:
                    return False
                continue
            steps += self._identity(pod, number)
            steps += self._claim_owners(pod, condemned=False)
            if self.ordered and not self.healthy(pod):
                plan.why = plan.why or f"waits for {meta.name(pod)} to be ready"
                return False
        return True

    def _replace(self, plan: Plan, steps: list[Step], pod: Object) -> None:
        """One that has ended makes room for a new one of its name."""
        wait = pods.replace_in(pod, self.now)
        if wait:
            plan.requeue(wait)
            return
        key = f"{meta.namespace(self.ss)}/{meta.name(self.ss)}"
        failed = pods.phase(pod) == "Failed"
        text = f"StatefulSet {key} is recreating {'failed' if failed else 'terminated'} Pod {meta.name(pod)}"
        kind = ("Warning", "RecreatingFailedPod") if failed else ("Normal", "RecreatingTerminatedPod")
        plan.events.append(Event(self.ss, *kind, text))
        self._remove(plan, steps, pod)

    def _down(self, plan: Plan, steps: list[Step]) -> bool:
        """Removes ordinals that are too high, the highest first."""
        unhealthy = [p for p in self.condemned if not self.healthy(p)]
        for pod in self.condemned:
            if meta.deleted(pod):
                if self.ordered:
                    return False
                continue
            if self.ordered and unhealthy and pod is not unhealthy[-1] and not self.healthy(pod):
                return False
            steps += self._claim_owners(pod, condemned=True)
            self._remove(plan, steps, pod)
            if self.ordered:
                return False
        return True

    def _roll(self, plan: Plan, steps: list[Step]) -> None:
        """Deletes pods of an old revision, from the highest ordinal down to the partition; they come back new."""
        if (self.ss["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
            return
        missing = sum(p is None or not self.healthy(p) for p in self.pods.values())
        for number in reversed(self.numbers):
            pod = self.pods[number]
            if number < self.start + self.partition:
                return
            if pod is None or meta.deleted(pod):
                continue
            if not self.of_revision(pod, self.update):
                if self.healthy(pod):
                    if missing >= self.unavailable:
                        return
                    missing += 1
                self._remove(plan, steps, pod)
                if missing >= self.unavailable:
                    return
            elif not self.healthy(pod) and self.unavailable == 1:
                return

    def _make(self, plan: Plan, steps: list[Step], number: int) -> None:
        old = number < self.start + self.partition
        revision = self.current if old else self.update
        pod = self._pod(number, revision)
        ss, name = self.ss, meta.name(pod)
        for made in self._claims(number):
            if self.view.get(_CLAIMS, meta.name(made), meta.namespace(ss)) is None:
                text = f"create Claim {meta.name(made)} Pod {name} in StatefulSet {meta.name(ss)} success"
                event = Event(ss, "Normal", "SuccessfulCreate", text)
                steps.append(Create(_CLAIMS, made, meta.namespace(ss), exists_ok=True, event=event))
        text = f"create Pod {name} in StatefulSet {meta.name(ss)} successful"
        steps.append(
            Create("pods", pod, meta.namespace(ss), event=Event(ss, "Normal", "SuccessfulCreate", text))
        )
        failed = f"create Pod {name} in StatefulSet {meta.name(ss)} failed error: {{error}}"
        plan.events.append(Event(ss, "Warning", "FailedCreate", failed))
        plan.why = plan.why or f"creates {name}"

    def _remove(self, plan: Plan, steps: list[Step], pod: Object) -> None:
        name = meta.name(pod)
        steps.append(Delete("pods", name, meta.namespace(pod), uid=meta.uid(pod)))
        text = f"delete Pod {name} in StatefulSet {meta.name(self.ss)} successful"
        plan.events.append(Event(self.ss, "Normal", "SuccessfulDelete", text))
        plan.why = plan.why or f"deletes {name}"

    def _pod(self, number: int, revision: Object) -> Object:
        ss = self.ss
        name = f"{meta.name(ss)}-{number}"
        pod = pods.from_template(history.template_of(revision), ss, name=name)
        pod["metadata"]["generateName"] = f"{meta.name(ss)}-"
        labels = {_NAME: name, _INDEX: str(number), _REVISION: meta.name(revision)}
        pod["metadata"]["labels"] = pod["metadata"].get("labels", {}) | labels
        spec = pod["spec"]
        spec |= {"hostname": name, "subdomain": ss["spec"].get("serviceName", "")}
        mine = {meta.name(t): f"{meta.name(t)}-{name}" for t in ss["spec"].get("volumeClaimTemplates") or ()}
        volumes = [{"name": k, "persistentVolumeClaim": {"claimName": v}} for k, v in mine.items()]
        volumes += [v for v in spec.get("volumes") or () if v["name"] not in mine]
        if volumes:
            spec["volumes"] = volumes
        return pod

    def _identity(self, pod: Object, number: int) -> list[Step]:
        """An adopted pod gets the labels of its number."""
        wanted = {_NAME: meta.name(pod), _INDEX: str(number)}
        if wanted.items() <= meta.labels(pod).items():
            return []
        return [Patch("pods", meta.name(pod), {"metadata": {"labels": wanted}}, meta.namespace(pod))]

    def _claims(self, number: int) -> list[Object]:
        ss, made = self.ss, []
        policy = ss["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        for template in ss["spec"].get("volumeClaimTemplates") or ():
            metadata: Object = {
                "name": f"{meta.name(template)}-{meta.name(ss)}-{number}",
                "namespace": meta.namespace(ss),
                "labels": meta.labels(template)
                | ((ss["spec"].get("selector") or {}).get("matchLabels") or {}),
            }
            if meta.annotations(template):
                metadata["annotations"] = meta.annotations(template)
            if policy.get("whenDeleted") == "Delete":
                metadata["ownerReferences"] = [meta.owner_ref(ss, controller=True)]
            kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
            made.append(kind | {"metadata": metadata, "spec": template["spec"]})
        return made

    def _claim_owners(self, pod: Object, *, condemned: bool) -> list[Step]:
        """Whom its claims go with (persistentVolumeClaimRetentionPolicy): the set, the pod that is scaled away, or nobody."""
        steps: list[Step] = []
        policy = self.ss["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        wanted = []
        if condemned and policy.get("whenScaled") == "Delete":
            wanted = [meta.owner_ref(pod, controller=True)]
        elif policy.get("whenDeleted") == "Delete":
            wanted = [meta.owner_ref(self.ss, controller=True)]
        for made in self._claims(ordinal(self.ss, pod)):
            claimed = self.view.get(_CLAIMS, meta.name(made), meta.namespace(pod))
            if claimed is None or meta.deleted(claimed):
                continue
            others = [r for r in meta.owners(claimed) if not self._ours(r, pod)]
            if any(r.get("controller") for r in others):
                continue  # somebody else rules it
            if {r["uid"] for r in others + wanted} != {r["uid"] for r in meta.owners(claimed)}:
                data = {"uid": meta.uid(claimed), "ownerReferences": others + wanted}
                steps.append(
                    Patch(_CLAIMS, meta.name(made), {"metadata": data}, meta.namespace(pod), missing_ok=True)
                )
        return steps

    def _ours(self, ref: Object, pod: Object) -> bool:
        named = (ref.get("kind"), ref.get("name"))
        return ref["uid"] == meta.uid(self.ss) or named == ("Pod", meta.name(pod))

    def status(self) -> Object:
        alive = [p for p in [*self.pods.values(), *self.condemned] if p is not None]
        running = [p for p in alive if not meta.deleted(p) and not pods.finished(p)]
        ready = sum(pods.ready(p) and pods.phase(p) == "Running" for p in alive)
        available = sum(self.healthy(p) for p in alive)
        current = sum(self.of_revision(p, self.current) for p in running)
        updated = sum(self.of_revision(p, self.update) for p in running)
        now_current = meta.name(self.current)
        rolling = (self.ss["spec"].get("updateStrategy") or {}).get(
            "type", "RollingUpdate"
        ) == "RollingUpdate"
        if rolling and not self.condemned and updated == self.replicas == ready:
            now_current, current = meta.name(self.update), updated
        old = self.ss.get("status", {})
        result = {
            "replicas": len(alive),
            "availableReplicas": available,
            "currentRevision": now_current,
            "updateRevision": meta.name(self.update),
            "collisionCount": old.get("collisionCount", 0),
        }
        return (
            result
            | counts(
                observedGeneration=meta.generation(self.ss),
                readyReplicas=ready,
                currentReplicas=current,
                updatedReplicas=updated,
            )
            | ({"conditions": old["conditions"]} if old.get("conditions") else {})
        )
