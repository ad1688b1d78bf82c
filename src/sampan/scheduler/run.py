"""The scheduler's shell: it keeps the snapshot current, asks `schedule` about one pod after another, and binds.

A chosen node is assumed at once, so that the next decision knows of it while the binding is still on its way. Source:
"Kubernetes Scheduler"; API reference Binding v1; pod condition PodScheduled.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from sampan.api import meta
from sampan.api.status import ApiError
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.base.tasks import Tasks
from sampan.client.client import Client
from sampan.client.events import EventRecorder
from sampan.client.plan import Event
from sampan.client.view import CachedView

from .budget import Budget
from .decision import NO_NODES, SELECTED_NODE, Decision
from .queue import Entry, Queue

if TYPE_CHECKING:
    from .preempt import Victims
    from .snapshot import Snapshot

_BUDGETS = "poddisruptionbudgets.policy"
RESOURCES = (
    "pods",
    "nodes",
    "namespaces",
    "persistentvolumeclaims",
    "persistentvolumes",
    "storageclasses.storage.k8s.io",
    _BUDGETS,
)
_BINDINGS = 64  # on their way at once
_REFUSALS = 4  # told of at once: nobody waits for them, and thousands of pods may be refused in one go
_SLICE, _SLICE_PODS = 0.004, 32  # seconds and pods between which other tasks get their turn
_VOLUMES = 600.0  # seconds that claims may take to be bound
_KEPT = 1000  # decisions remembered for `sampan story`
_BOUND = "pv.kubernetes.io/bind-completed"
_ARRAYS = "sampan.scheduler.schedule"  # the module that needs NumPy

log = logging.getLogger(__name__)


class Scheduler:
    """`await start()`, then pods of `spec.schedulerName == name` are bound until `await stop()`.

    A given `view` must follow RESOURCES and is neither started nor stopped here.
    """

    def __init__(
        self,
        client: Client,
        view: CachedView | None = None,
        *,
        clock: Clock,
        ids: Ids,
        name: str = "default-scheduler",
    ) -> None:
        self._client = client
        self._own_view = view is None
        self.view = view or CachedView(client, RESOURCES, clock=clock, ids=ids)
        self._clock = clock
        self._ids = ids
        self.name = name
        self._recorder = EventRecorder(client, clock=clock, ids=ids, component=name)
        self._go = asyncio.Event()
        self._queue = Queue(clock, self._go.set)
        self._assumed: dict[str, str] = {}  # pod -> node, until the watch says the same
        self._tasks = Tasks()
        self._slots = asyncio.Semaphore(_BINDINGS)
        self._telling = asyncio.Semaphore(_REFUSALS)
        self._bound_claims: dict[tuple[str, str], asyncio.Event] = {}
        self.attempts = {"scheduled": 0, "unschedulable": 0, "error": 0}
        self.deciding = 0.0  # seconds spent in decisions
        self.decisions: OrderedDict[str, Decision] = OrderedDict()
        self.snapshot: Snapshot | None = None  # until there is a node
        self._schedule: Any = None

    async def start(self) -> None:
        """Takes in what is there, and begins."""
        if self._own_view:
            await self.view.start()
        for resource in ("nodes", "pods"):
            for obj in self.view.list(resource):
                self._changed(resource, None, obj)
        self.view.subscribe(self._changed)
        self._tasks.start(self._run())

    async def stop(self) -> None:
        """Gives up what is being decided; a pod whose binding was not sent is pending still."""
        self.view.unsubscribe(self._changed)
        await self._tasks.cancel()
        await self._recorder.stop()
        if self._own_view:
            await self.view.stop()

    @property
    def idle(self) -> bool:
        """Nothing is ready to be decided and no binding is on its way."""
        return not self._go.is_set() and len(self._tasks) <= 1

    @property
    def pending(self) -> tuple[int, int]:
        """(pods that will be tried at once, pods that rest until something changes)."""
        return self._queue.sizes()

    # What the watches say

    def _changed(self, resource: str, old: Object | None, new: Object | None) -> None:
        if resource == "pods":
            self._pod_changed(old, new)
        elif self.snapshot is None:
            if resource == "nodes":
                self._go.set()
        elif resource == "nodes":
            if new is None:
                self.snapshot.remove_node(meta.name(old or {}))
            elif self.snapshot.set_node(new):
                self._queue.wake()
        elif resource == "namespaces":
            self.snapshot.set_namespace(meta.name(new or old or {}), meta.labels(new) if new else None)
        elif resource == _BUDGETS:
            self._budget_changed(new or old or {}, new)
        elif resource in RESOURCES:
            self._storage_changed(resource, new or old or {}, new)

    def _storage_changed(self, resource: str, obj: Object, new: Object | None) -> None:
        assert self.snapshot is not None
        table: dict[Any, Object]
        key: Any = meta.name(obj)
        if resource == "persistentvolumeclaims":
            table, key = self.snapshot.claims, (meta.namespace(obj), meta.name(obj))
            if new is None or _BOUND in meta.annotations(new):
                self.snapshot.chosen.pop(key, None)
            if new and _BOUND in meta.annotations(new) and key in self._bound_claims:
                self._bound_claims[key].set()
        else:
            table = self.snapshot.volumes if resource == "persistentvolumes" else self.snapshot.classes
        if new is None:
            table.pop(key, None)
        else:
            table[key] = new
            self._queue.wake()

    def _budget_changed(self, obj: Object, new: Object | None) -> None:
        assert self.snapshot is not None
        key = (meta.namespace(obj), meta.name(obj))
        if new is None:
            self.snapshot.budgets.pop(key, None)
        else:
            self.snapshot.budgets[key] = Budget(new)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old or {}
        key = meta.key(pod)
        ended = new is None or _finished(new)
        if ended or pod["spec"].get("nodeName"):
            self._queue.discard(key)
            self._assumed.pop(key, None)
            if self.snapshot is not None:
                self._placed(self.snapshot, key, old, None if ended else new)
        elif key in self._assumed or pod["spec"].get("schedulerName", self.name) != self.name:
            return
        elif meta.deleted(pod) or pod["spec"].get("schedulingGates"):
            self._queue.discard(key)
        elif key not in self._queue or old is None or _asks(old) != _asks(pod):
            self._queue.add(
                key, pod["spec"].get("priority") or 0, pod["metadata"].get("creationTimestamp", "")
            )

    def _placed(self, snapshot: Snapshot, key: str, old: Object | None, new: Object | None) -> None:
        """A pod has a node, or (`new` is None) needs none any more."""
        snapshot.nominated.pop(key, None)
        if new is None:
            if snapshot.remove_pod(key):
                self._queue.wake()
            return
        snapshot.set_pod(new, new["spec"]["nodeName"])
        if old is None or not old["spec"].get("nodeName") or meta.labels(old) != meta.labels(new):
            self._queue.wake()  # may be the neighbour that an affinity waits for

    # Deciding

    async def _load(self) -> None:
        """Imports NumPy (in a thread: 100 ms, 11 MB) and takes in what is there.

        Nothing was decided for a node before, so nothing is assumed, and the view knows all there is to know.
        """
        if _ARRAYS not in sys.modules:
            await asyncio.to_thread(importlib.import_module, _ARRAYS)
        from .schedule import schedule
        from .snapshot import Snapshot

        self._schedule, self.snapshot = schedule, Snapshot()
        for resource in ("nodes", *(r for r in RESOURCES if r not in ("nodes", "pods"))):
            for obj in self.view.list(resource):
                self._changed(resource, None, obj)
        for pod in self.view.list("pods"):  # those that wait are in the queue
            nominated = pod.get("status", {}).get("nominatedNodeName")
            if _finished(pod):
                continue
            if pod["spec"].get("nodeName"):
                self.snapshot.set_pod(pod, pod["spec"]["nodeName"])
            elif nominated:
                self.snapshot.nominated[meta.key(pod)] = (self.snapshot.info(pod), nominated)

    async def _run(self) -> None:
        while True:
            await self._go.wait()
            self._go.clear()
            began, done = self._clock.monotonic(), 0
            while True:
                if self.snapshot is None and self.view.list("nodes"):
                    await self._load()
                entry = self._queue.pop()
                if entry is None:
                    break
                try:
                    self._decide(entry)
                except Exception:
                    self.attempts["error"] += 1
                    log.exception("scheduling %s", entry.key)
                    self._queue.retry(entry)
                done += 1
                if done >= _SLICE_PODS or self._clock.monotonic() - began > _SLICE:
                    await self._clock.sleep(0)
                    began, done = self._clock.monotonic(), 0

    def _decide(self, entry: Entry) -> None:
        namespace, name = meta.split_key(entry.key)
        pod = self.view.get("pods", name, namespace)
        if pod is None or pod["spec"].get("nodeName") or meta.deleted(pod):
            self._queue.discard(entry.key)
            return
        began = self._clock.monotonic()
        if self.snapshot is None:
            decision = Decision(message=NO_NODES)
        else:
            decision = self._schedule(pod, self.snapshot, self._ids.choice)
        self.deciding += self._clock.monotonic() - began
        self.attempts["scheduled" if decision.node else "unschedulable"] += 1
        decision.time = self._clock.now()
        self.decisions[entry.key] = decision
        if len(self.decisions) > _KEPT:
            self.decisions.popitem(last=False)
        if self.snapshot is not None and decision.node:
            self.snapshot.set_pod(pod, decision.node)
            self.snapshot.nominated.pop(entry.key, None)
            self._assumed[entry.key] = decision.node
            for claim, volume in decision.claims:
                chosen = (decision.node, meta.name(volume) if volume else "")
                self.snapshot.chosen[meta.namespace(claim), meta.name(claim)] = chosen
            self._tasks.start(self._bind(entry, pod, decision))
        else:
            self._queue.rest(entry)
            if self.snapshot is not None and not decision.waits:
                self._nominate(self.snapshot, entry, pod, decision.victims)
            self._tasks.start(
                self._make_room(pod, decision) if decision.victims else self._tell(entry, pod, decision)
            )

    def _nominate(self, snapshot: Snapshot, entry: Entry, pod: Object, victims: Victims | None) -> None:
        """The room that victims leave is kept for this pod; less important ones that count on it must look again."""
        if victims is None:
            snapshot.nominated.pop(entry.key, None)
            return
        for key, (info, node) in list(snapshot.nominated.items()):
            if node == victims.node and info.priority < entry.priority:
                del snapshot.nominated[key]
                self._queue.again(key)
                self._tasks.start(self._forget_nomination(key))
        snapshot.nominated[entry.key] = (snapshot.info(pod), victims.node)

    # Doing

    async def _forget_nomination(self, key: str) -> None:
        namespace, name = meta.split_key(key)
        status = {"status": {"nominatedNodeName": None}}
        try:
            await self._client.patch("pods", name, status, namespace, subresource="status")
        except (ApiError, OSError, EOFError, TimeoutError) as error:
            log.info("pod %s: %r", key, error)

    async def _bind(self, entry: Entry, pod: Object, decision: Decision) -> None:
        namespace, name = meta.namespace(pod), meta.name(pod)
        target = {"apiVersion": "v1", "kind": "Node", "name": decision.node}
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "uid": meta.uid(pod)},
            "target": target,
        }
        try:
            async with self._slots:
                if decision.claims:
                    await self._bind_claims(decision)
                await self._client.create("pods", body, namespace, name=name, subresource="binding")
        except (ApiError, OSError, EOFError, TimeoutError) as error:
            self._not_bound(entry, pod, decision, error)
            return
        self._queue.discard(entry.key)
        message = f"Successfully assigned {namespace}/{name} to {decision.node}"
        self._recorder.record(Event(pod, "Normal", "Scheduled", message))

    def _not_bound(self, entry: Entry, pod: Object, decision: Decision, error: Exception) -> None:
        assert self.snapshot is not None
        for claim, _ in decision.claims:
            self.snapshot.chosen.pop((meta.namespace(claim), meta.name(claim)), None)
        if self._assumed.get(entry.key) != decision.node:
            return  # the watch has told the truth meanwhile
        self._assumed.pop(entry.key)
        self.snapshot.remove_pod(entry.key)
        text = error.message if isinstance(error, ApiError) else repr(error)
        current = self.view.get("pods", meta.name(pod), meta.namespace(pod))
        if current is None or meta.uid(current) != meta.uid(pod):
            self._queue.discard(entry.key)
            return
        log.info("binding %s to %s: %s", entry.key, decision.node, text)
        self._recorder.record(Event(pod, "Warning", "FailedScheduling", f"binding rejected: {text}"))
        self._queue.retry(entry)

    async def _bind_claims(self, decision: Decision) -> None:
        """Tells the volume controller what was chosen, and waits until it has bound every claim."""
        waiting = []
        for claim, volume in decision.claims:
            key = (meta.namespace(claim), meta.name(claim))
            current = self.view.get("persistentvolumeclaims", key[1], key[0])
            if current is not None and _BOUND in meta.annotations(current):
                continue  # for another pod that uses it, too
            waiting.append((key, self._bound_claims.setdefault(key, asyncio.Event())))
            if volume is None:
                patch: Object = {"metadata": {"annotations": {SELECTED_NODE: decision.node}}}
                await self._client.patch("persistentvolumeclaims", key[1], patch, key[0])
            else:
                ref = meta.object_ref(claim)
                patch = {"spec": {"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | ref}}
                await self._client.patch("persistentvolumes", meta.name(volume), patch)
        try:
            async with self._clock.timeout(_VOLUMES):
                for _, event in waiting:
                    await event.wait()
        finally:
            for key, _ in waiting:
                self._bound_claims.pop(key, None)

    async def _tell(self, entry: Entry, pod: Object, decision: Decision) -> None:
        """Tells the user why, unless the pod has found a node, or another reason, before it is its turn."""
        async with self._telling:
            if entry.resting and self.decisions.get(entry.key, decision) is decision:
                await self._refused(pod, decision)

    async def _make_room(self, pod: Object, decision: Decision) -> None:
        """Pods of lower priority are in the way."""
        assert decision.victims is not None
        if await self._refused(pod, decision):
            try:
                await self._evict(pod, decision.victims)
            except (ApiError, OSError, EOFError, TimeoutError) as error:
                log.info("pod %s: %r", meta.key(pod), error)

    async def _refused(self, pod: Object, decision: Decision) -> bool:
        """Condition and event say why; whether they could be written."""
        self._recorder.record(Event(pod, "Warning", "FailedScheduling", decision.message))
        new = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": decision.message,
        }
        conditions = meta.set_condition(meta.conditions(pod), new, self._clock.now())
        status: Object = {"conditions": conditions}
        old = pod.get("status", {})
        if decision.victims:
            status["nominatedNodeName"] = decision.victims.node
        elif old.get("nominatedNodeName") and not decision.waits:
            status["nominatedNodeName"] = None  # none of those who are in the way can be made to go any more
        if conditions == old.get("conditions") and "nominatedNodeName" not in status:
            return True
        try:
            patch = {"metadata": {"uid": meta.uid(pod)}, "status": status}
            await self._client.patch("pods", meta.name(pod), patch, meta.namespace(pod), subresource="status")
        except (ApiError, OSError, EOFError, TimeoutError) as error:
            log.info("pod %s: %r", meta.key(pod), error)
            return False
        return True

    async def _evict(self, pod: Object, victims: Victims) -> None:
        for victim in victims.pods:
            found = self.view.get("pods", victim.name, victim.namespace)
            if found is None or meta.uid(found) != victim.uid or meta.deleted(found):
                continue
            message = f"{self.name}: preempting to accommodate a higher priority pod"
            new = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": message,
            }
            conditions = meta.set_condition(meta.conditions(found), new, self._clock.now())
            try:
                status = {"status": {"conditions": conditions}}
                await self._client.patch("pods", victim.name, status, victim.namespace, subresource="status")
                await self._client.delete("pods", victim.name, victim.namespace, uid=victim.uid)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
            text = f"Preempted by pod {meta.uid(pod)} on node {victims.node}"
            self._recorder.record(Event(found, "Normal", "Preempted", text))


def _finished(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _asks(pod: Object) -> tuple[Any, ...]:
    """What of a pod a change of must have it tried again: not its status."""
    return pod["spec"], meta.labels(pod)


__all__ = ["RESOURCES", "Scheduler"]
