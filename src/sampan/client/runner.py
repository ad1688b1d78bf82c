"""Runs controllers: watches wake keys, a key's reconcile says what to do, and it is done; failures are tried again.

All that is impure about a controller is here and in `execute`: queues, back-off, writes, events. With a virtual clock
and seeded ids a run repeats exactly: queues are first in first out, and views are sorted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sampan.api.status import ApiError
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.base.tasks import Tasks
from sampan.client.client import Client
from sampan.client.events import EventRecorder
from sampan.client.execute import Effect, Executor
from sampan.client.metrics import Figures
from sampan.client.plan import Controller, Key, Mapper, Plan
from sampan.client.queue import Queue
from sampan.client.story import Entry, Story
from sampan.client.view import DEFAULT_INDEXES, CachedView

_READS = 10  # times one reconcile may ask for more reads
_UNHEARD = ("events", "events.events.k8s.io")  # no controller of "*" is woken by these

log = logging.getLogger(__name__)


def _namespace_ends(error: ApiError) -> bool:
    return any(c.get("reason") == "NamespaceTerminating" for c in (error.details or {}).get("causes") or ())


class _Work:
    """One controller with its queue."""

    def __init__(
        self, controller: Controller, queue: Queue, executor: Executor, recorder: EventRecorder
    ) -> None:
        self.controller = controller
        self.queue = queue
        self.executor = executor
        self.recorder = recorder
        self.figures = Figures(controller.name, queue)
        self.concerns: Callable[[Object], bool] | None = getattr(controller, "concerns", None)
        self.acts_on_absent = controller.resource == "*" or controller.removed is not None


class Runner:
    """`await start()`, then controllers act until `await stop()`.

    `client_for(controller name)` gives each controller its own identity. `view` is shared when given (it must follow the
    resources of all controllers); otherwise one is made, which follows the resources `also`, too, for others to share.
    `effects` answer `effect:NAME` reads. `concurrency` is how many keys of one controller are worked on at once.
    """

    def __init__(
        self,
        client: Client,
        controllers: Iterable[Controller],
        *,
        clock: Clock,
        ids: Ids,
        view: CachedView | None = None,
        also: Iterable[str] = (),
        effects: Mapping[str, Effect] | None = None,
        client_for: Callable[[str], Client] | None = None,
        concurrency: int = 8,
        story: Story | None = None,
    ) -> None:
        self._clock = clock
        self._controllers = list(controllers)
        self._own_view = view is None
        self.view = view or CachedView(
            client,
            [*_resources(self._controllers), *also],
            clock=clock,
            ids=ids,
            indexes=_indexes(self._controllers),
            signs={r: sign for c in self._controllers for r, sign in getattr(c, "signs", {}).items()},
        )
        self.story = story or Story()
        self._works: list[_Work] = []
        self._tasks = Tasks()
        for controller in self._controllers:
            own = client_for(controller.name) if client_for else client
            recorder = EventRecorder(own, clock=clock, ids=ids, component=component(controller.name))
            executor = Executor(own, self.view, effects)
            work = _Work(controller, None, executor, recorder)  # type: ignore[arg-type]
            work.queue = work.figures.queue = Queue(
                self._starter(work),
                clock=clock,
                ids=ids,
                concurrency=1 if getattr(controller, "alone", False) else concurrency,
            )
            self._works.append(work)
        self._wakes = _wakes(self._works)

    async def start(self) -> None:
        """Returns when the view is complete and every object has been queued once."""
        self.view.subscribe(self._changed)
        if self._own_view:
            await self.view.start()
        else:
            for resource in self.view.resources():
                for obj in self.view.list(resource):
                    self._changed(resource, None, obj)
        for work in self._works:
            work.queue.open()

    async def stop(self) -> None:
        """Ends all work, finished or not: what was cut off is decided anew by whoever runs next."""
        self.view.unsubscribe(self._changed)
        for work in self._works:
            work.queue.close()
        await self._tasks.cancel()
        for work in self._works:
            await work.recorder.stop()
        if self._own_view:
            await self.view.stop()

    @property
    def idle(self) -> bool:
        """No controller has anything to do now (timers may run)."""
        return all(work.queue.idle for work in self._works)

    def figures(self) -> list[Figures]:
        """Counters of each controller; `client.metrics.Collector` turns them into prometheus' form."""
        return [work.figures for work in self._works]

    # What wakes a key

    def _changed(self, resource: str, old: Object | None, new: Object | None) -> None:
        wakes = self._wakes.get(resource) or self._wakes.get("*")
        if not wakes:
            return
        meta = (new or old or {})["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        verb = "created" if old is None else "deleted" if new is None else "changed"
        cause = f"{resource} {namespace}/{name} {verb}"
        known = [obj for obj in (old, new) if obj is not None]
        moved = known[-1:] if _found_as_before(known) else known
        count = self.view.count
        for works, mapper, by_metadata in wakes:
            if mapper is not None:
                awake = [w for w in works if w.acts_on_absent or count(w.controller.resource)]
                if awake:
                    self._wake(awake, mapper, moved if by_metadata else known, cause)
                continue
            for work in works:
                if work.concerns is not None and not any(map(work.concerns, known)):
                    continue
                if work.controller.resource != "*":
                    work.queue.add(Key(namespace, name), cause)
                elif resource not in _UNHEARD:
                    work.queue.add(Key(namespace, f"{resource}/{name}"), cause)

    def _wake(self, works: list[_Work], mapper: Mapper, known: list[Object], cause: str) -> None:
        for obj in known:
            try:
                for key in mapper(obj, self.view):
                    for work in works:
                        work.queue.add(key, cause)
            except Exception:
                log.exception("%s: which keys a change concerns", works[0].controller.name)

    # What is done for a key

    def _starter(self, work: _Work) -> Callable[[Key, str], None]:
        def start(key: Key, cause: str) -> None:
            """Decides at once; most decisions are that there is nothing to do, and need no task."""
            began = self._clock.monotonic()
            controller = work.controller
            try:
                plan = self._decide(controller, key, {})
            except Exception as error:
                entry = self._entry(work, key, cause)
                self._failed(work, key, entry, error)
                self._ended(work, key, entry, began)
                return
            if plan.idle and not plan.why:
                self._went_well(work, key, plan)
                work.queue.done(key)
                work.figures.reconciled("ok", self._clock.monotonic() - began)
                self.story.looked(self._clock.now(), controller.name, controller.resource, key)
                return
            entry = self._entry(work, key, cause)
            if plan.idle:
                self._succeeded(work, key, entry, plan)
                self._ended(work, key, entry, began)
                return
            self._tasks.start(self._work(work, key, entry, plan, began))

        return start

    def _entry(self, work: _Work, key: Key, cause: str) -> Entry:
        return Entry(self._clock.now(), work.controller.name, work.controller.resource, key, cause)

    async def _work(self, work: _Work, key: Key, entry: Entry, plan: Plan, began: float) -> None:
        try:
            plan = await self._carry_out(work, key, entry, plan)
        except asyncio.CancelledError:
            entry.outcome = "stopped"
            raise
        except Exception as error:
            self._failed(work, key, entry, error)
        else:
            self._succeeded(work, key, entry, plan)
        finally:
            self._ended(work, key, entry, began)

    def _succeeded(self, work: _Work, key: Key, entry: Entry, plan: Plan) -> None:
        entry.why = plan.why
        self._went_well(work, key, plan)

    def _went_well(self, work: _Work, key: Key, plan: Plan) -> None:
        work.queue.succeeded(key)
        work.queue.forget_timer(key)
        if plan.requeue_after is not None:
            work.queue.add_later(key, plan.requeue_after, "its own timer")

    def _ended(self, work: _Work, key: Key, entry: Entry, began: float) -> None:
        work.queue.done(key)
        work.figures.reconciled(entry.outcome, self._clock.monotonic() - began)
        self.story.add(entry)

    def _failed(self, work: _Work, key: Key, entry: Entry, error: Exception) -> None:
        conflict = isinstance(error, ApiError) and error.code == 409
        entry.outcome = error.message if isinstance(error, ApiError) else repr(error)
        if isinstance(error, ApiError) and _namespace_ends(error):
            work.queue.succeeded(key)  # the object goes with its namespace: there is nothing to try again for
            return
        delay = work.queue.failed(key, f"again after: {entry.outcome}", conflict=conflict)
        who = f"{work.controller.name} {key.namespace}/{key.name}"
        if isinstance(error, ApiError | OSError | EOFError | TimeoutError):
            log.info("%s: %s; again in %.3f s", who, entry.outcome, delay)
        else:
            log.error("%s failed; again in %.3f s", who, delay, exc_info=error)

    async def _carry_out(self, work: _Work, key: Key, entry: Entry, plan: Plan) -> Plan:
        """Reads what the plan asks for and decides again until it has all; then does it. Returns the last plan."""
        reads: dict[tuple[str, str, str], Any] = {}
        for _ in range(_READS):
            missing = [read for read in plan.reads if read not in reads]
            if not missing:
                break
            for read in missing:
                reads[read] = await work.executor.fetch(read)
            plan = self._decide(work.controller, key, reads)
        else:
            raise RuntimeError(f"{work.controller.name} never has enough reads: {missing}")
        entry.why = plan.why
        await work.executor.run(plan, entry.did, work.recorder.record)
        return plan

    def _decide(self, controller: Controller, key: Key, reads: dict[tuple[str, str, str], Any]) -> Plan:
        resource, name = controller.resource, key.name
        if resource == "*":
            resource, _, name = key.name.partition("/")
        obj = self.view.get(resource, name, key.namespace)
        self.view.fetched = reads
        try:
            if obj is None:
                removed = controller.removed
                return removed(key, self.view, self._clock.now()) if removed else Plan()
            return controller.reconcile(obj, self.view, self._clock.now())
        finally:
            self.view.fetched = {}


def component(name: str) -> str:
    """What Events say they come from: `deployment` is `deployment-controller`."""
    name = name.partition("/")[0]  # one account may have several rules: `persistent-volume-binder/volumes`
    return name if "-" in name else f"{name}-controller"


def _resources(controllers: Iterable[Controller]) -> list[str]:
    found: dict[str, None] = {}
    for controller in controllers:
        found[controller.resource] = None
        found.update(dict.fromkeys(controller.watches))
        found.update(dict.fromkeys(getattr(controller, "reads", ())))
    return list(found)


def _indexes(controllers: Iterable[Controller]) -> dict[str, dict[str, Any]]:
    """The default ones and what controllers declare as `indexes = {resource: {name: function}}`."""
    merged = {resource: dict(functions) for resource, functions in DEFAULT_INDEXES.items()}
    for controller in controllers:
        for resource, functions in getattr(controller, "indexes", {}).items():
            merged.setdefault(resource, {}).update(functions)
    return merged


def _found_as_before(known: list[Object]) -> bool:
    """Whether an object has the labels and owners it had."""
    if len(known) < 2:
        return False
    before, now = known[0]["metadata"], known[1]["metadata"]
    return all(before.get(field) == now.get(field) for field in ("labels", "ownerReferences"))


_Wakes = list[tuple[list[_Work], Mapper | None, bool]]


def _wakes(works: Iterable[_Work]) -> dict[str, _Wakes]:
    """Resource -> who is woken by its changes: by its own keys (None), or by those a mapper gives, which is asked once
    for all who share it (True: it is marked `by_metadata`). "*" is any other."""
    found: dict[str, dict[Mapper | None, list[_Work]]] = {}
    for work in works:
        found.setdefault(work.controller.resource, {}).setdefault(None, []).append(work)
        for resource, mapper in work.controller.watches.items():
            found.setdefault(resource, {}).setdefault(mapper, []).append(work)
    wakes = {
        resource: [(woken, mapper, getattr(mapper, "by_metadata", False)) for mapper, woken in mapped.items()]
        for resource, mapped in found.items()
    }
    anything = wakes.get("*", [])
    return {resource: own if resource == "*" else own + anything for resource, own in wakes.items()}
