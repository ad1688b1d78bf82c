"""Priority and fairness: requests of one kind of user cannot crowd out those of another.

A FlowSchema says which priority level a request belongs to; a level has so many seats, and queues for those who wait.
Most requests are answered without waiting for anything, so a seat is taken and given back in one breath; seats fill
up when many requests wait for the disk, for webhooks or for slow readers.
Source: Kubernetes documentation, "API Priority and Fairness"; KEP-1040.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from sampan.api.status import ApiError
from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.client.messages import Response, User
from sampan.server import respond
from sampan.server.flowcontrol import metrics
from sampan.server.flowcontrol.level import Flow, Level, Waiter
from sampan.server.flowcontrol.rules import matches
from sampan.server.flowcontrol.tally import Tally
from sampan.server.lookup import Derived, Lookup
from sampan.server.route import RequestInfo

GROUP = "flowcontrol.apiserver.k8s.io"
_SCHEMAS, _LEVELS = f"flowschemas.{GROUP}", f"prioritylevelconfigurations.{GROUP}"

SEATS = 600  # of all levels: the original's 400 readers and 200 writers
WAIT = 15.0  # seconds in a queue: a quarter of a request's time
_CACHE_LIMIT = 20_000
_STREAMS = frozenset(("exec", "attach", "portforward", "proxy", "log"))  # take no seat: they last
_READS = frozenset(("get", "list", "watch", "head", "options"))
_LISTS = ("list", "watch")
# Why a request was refused, as the metric says it.
FULL, NO_QUEUE, TIMED_OUT, CANCELLED = "queue-full", "concurrency-limit", "time-out", "cancelled"
_TOO_MANY = "Too many requests, please try again later.\n"

Width = Callable[[RequestInfo, int], int]  # (request, the most it may be) -> seats it takes


@runtime_checkable
class Beginning(Protocol):
    """The body of a watch, which is costly only until what was there is sent."""

    def when_begun(self, tell: Callable[[], None]) -> bool:
        """Whether there is anything to wait for; then `tell` is called once, however it ends."""
        ...


class Fairness:
    """`around` a request. Without any FlowSchema (a server of a test) everything passes."""

    def __init__(self, lookup: Lookup, clock: Clock, width: Width) -> None:
        self._lookup = lookup
        self._clock = clock
        self._width = width
        self.levels: dict[str, Level] = {}  # by name
        self._schemas: list[Object] = []
        self._flows: dict[tuple[Any, ...], Flow | None] = {}
        self.tallies: dict[tuple[str, str], Tally] = {}
        self._running, self._waiting = [0, 0], [0, 0]  # requests that read, that write
        self._state = Derived(lookup, (_SCHEMAS, _LEVELS), self._compile)

    def _compile(self) -> bool:
        """Levels keep who is in them. Returns whether there is anything to do."""
        self._flows.clear()
        raws = self._lookup.list(_LEVELS)
        limited = {
            r["metadata"]["name"]: (
                ((r.get("spec") or {}).get("limited") or {}).get("nominalConcurrencyShares", 30)
            )
            for r in raws
            if (r.get("spec") or {}).get("type") != "Exempt"
        }
        total = sum(limited.values()) or 1
        for raw in raws:
            name = raw["metadata"]["name"]
            level = self.levels.get(name) or Level(name)
            level.configure(raw, -(-SEATS * limited.get(name, 0) // total), SEATS)
            self.levels[name] = level
        names = {r["metadata"]["name"] for r in raws}
        self.levels = {n: v for n, v in self.levels.items() if n in names or v.taken or v.waiting}
        schemas = [s for s in self._lookup.list(_SCHEMAS) if _level_name(s) in names]
        self._schemas = sorted(
            schemas,
            key=lambda s: ((s.get("spec") or {}).get("matchingPrecedence", 1000), s["metadata"]["name"]),
        )
        return bool(self._schemas)

    def flow(self, user: User, info: RequestInfo) -> Flow | None:
        """Where a request belongs; None when no schema matches."""
        if not self._state.get():  # before the cache: this is what empties it
            return None
        if info.is_resource:
            key: tuple[Any, ...] = (
                user.name,
                user.groups,
                info.verb,
                info.resource,
                info.namespace,
                info.group,
                info.subresource,
            )
        else:
            key = (user.name, user.groups, info.verb, info.path)
        try:
            return self._flows[key]
        except KeyError:
            if len(self._flows) >= _CACHE_LIMIT:
                self._flows.clear()
            found = self._flows[key] = self._classify(user, info)
            return found

    def _classify(self, user: User, info: RequestInfo) -> Flow | None:
        for schema in self._schemas:
            spec = schema["spec"]
            if any(matches(rule, user, info) for rule in spec.get("rules") or ()):
                method = (spec.get("distinguisherMethod") or {}).get("type", "")
                distinguisher = {"ByUser": user.name, "ByNamespace": info.namespace}.get(method, "")
                level = _level_name(schema)
                key = (schema["metadata"]["name"], level)
                tally = self.tallies.setdefault(key, Tally(*key))
                return Flow(self.levels[level], schema, distinguisher, tally)
        return None

    async def around(
        self, user: User, info: RequestInfo, proceed: Callable[[], Awaitable[Response]]
    ) -> Response:
        """The answer of `proceed`, when there are seats for it; otherwise 429."""
        flow = self.flow(user, info)
        if flow is None:
            return await proceed()
        level = flow.level
        if info.subresource in _STREAMS:
            flow.tally.slow += 1
            work = proceed()
        else:
            width = self._width(info, level.widest) if info.verb in _LISTS and not level.exempt else 1
            if level.exempt or (not level.waiting and self._room(level, width)):
                level.taken += width
            elif not await self._wait(flow, user, info, width):
                return _refusal(flow)
            work = self._seated(flow, info, width, proceed)
        try:
            response = await work
        except ApiError as error:
            error.headers = flow.headers
            raise
        if response.headers is respond.JSON_HEADERS:
            response.headers = flow.json_headers
        else:
            response.headers = response.headers | flow.headers
        return response

    async def _seated(
        self, flow: Flow, info: RequestInfo, width: int, proceed: Callable[[], Awaitable[Response]]
    ) -> Response:
        began, tally, kept = self._clock.monotonic(), flow.tally, False
        tally.slow += 1
        tally.running += 1
        tally.seats += width
        self._running[info.verb not in _READS] += 1
        try:
            response = await proceed()
            if not isinstance(response.body, bytes) and response.upgrade is None:
                kept = _keep(response, info, partial(self._leave, flow, info, width, began))
            return response
        finally:
            if not kept:
                self._leave(flow, info, width, began)

    def _leave(self, flow: Flow, info: RequestInfo, width: int, began: float) -> None:
        tally = flow.tally
        times = tally.watches if info.verb == "watch" else tally.times
        times.add(self._clock.monotonic() - began)
        tally.running -= 1
        tally.seats -= width
        self._running[info.verb not in _READS] -= 1
        self._release(flow.level, width)

    def _room(self, level: Level, width: int) -> bool:
        """Whether a level has so many seats, of its own or of those that others may lend and do not use."""
        wanted = level.taken + width
        if wanted <= level.seats or (level.seats and not level.taken):  # it may have shrunk below one request
            return True
        if wanted - level.seats > level.borrowing:
            return False
        free = borrowed = 0
        for other in self.levels.values():
            if not other.exempt:
                free += min(other.lendable, max(0, other.seats - other.taken))
                borrowed += max(0, other.taken - other.seats)
        return borrowed + wanted - max(level.taken, level.seats) <= free

    async def _wait(self, flow: Flow, user: User, info: RequestInfo, width: int) -> bool:
        """Stand in a queue until seats are handed over; False when the queue is full or nobody came."""
        level, tally, writes = flow.level, flow.tally, info.verb not in _READS
        queue = level.choose(flow.id)
        if queue is None:
            tally.refuse(FULL if level.queues else NO_QUEUE)
            return False
        seat = asyncio.get_running_loop().create_future()
        waiter = Waiter(seat, flow, user, info, self._clock.now(), width)
        began = self._clock.monotonic()
        queue.append(waiter)
        level.waiting += 1
        tally.queued(1, width)
        self._waiting[writes] += 1
        times = tally.waited_in_vain
        try:
            async with self._clock.timeout(WAIT):
                await seat
            times = tally.waited
        except TimeoutError:
            self._give_up(waiter, TIMED_OUT)
            return False
        except asyncio.CancelledError:
            self._give_up(waiter, CANCELLED)
            raise
        finally:
            times.add(self._clock.monotonic() - began)
            tally.queued(-1, -width)
            self._waiting[writes] -= 1
        return True

    def _give_up(self, waiter: Waiter, why: str) -> None:
        """Seats that were handed to somebody who left at that moment go to the next."""
        level = waiter.flow.level
        waiter.flow.tally.refuse(why)
        if waiter.seat.done() and not waiter.seat.cancelled():
            self._release(level, waiter.width)
            return
        waiter.seat.cancel()
        level.drop(waiter)
        self._serve(level)  # who stands behind may need less

    def _release(self, level: Level, width: int) -> None:
        """Seats are free: they go to whoever waits for them."""
        level.taken -= width
        if level.waiting:
            self._serve(level)

    def _serve(self, level: Level) -> None:
        while (waiter := level.first()) is not None and self._room(level, waiter.width):
            level.serve(waiter)

    def render(self) -> str:
        """Figures for /metrics."""
        kinds = metrics.by_kind(self._running, self._waiting)
        return kinds + metrics.render(self.tallies.values(), self.levels.values())


def _keep(response: Response, info: RequestInfo, leave: Callable[[], None]) -> bool:
    """Whether an answer that is sent in pieces keeps its seats until `leave` is called."""
    body = response.body
    if info.verb == "watch":
        return isinstance(body, Beginning) and body.when_begun(leave)
    assert not isinstance(body, bytes)
    response.body = _Held(body, leave)
    return True


class _Held:
    """A long answer that keeps its seat until it has been read, or is not wanted any more, begun or not."""

    def __init__(self, body: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        self._body = body
        self._leave: Callable[[], None] | None = leave

    def __aiter__(self) -> _Held:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._body)
        except BaseException:
            self._end()
            raise

    async def aclose(self) -> None:
        self._end()
        close = getattr(self._body, "aclose", None)
        if close is not None:
            await close()

    def _end(self) -> None:
        if self._leave is not None:
            self._leave()
            self._leave = None


def _refusal(flow: Flow) -> Response:
    """What the original says is no Status: clients have their own words for it."""
    response = respond.text(_TOO_MANY, 429)
    response.headers |= {"retry-after": "1", "x-content-type-options": "nosniff", **flow.headers}
    return response


def _level_name(schema: Object) -> str:
    return ((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name", "")
