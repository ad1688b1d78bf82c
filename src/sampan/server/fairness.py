"""Priority and fairness: requests of one kind of user cannot crowd out those of another.

A FlowSchema says which priority level a request belongs to; a level has so many seats, and queues for those who wait.
Most requests are answered without waiting for anything, so a seat is taken and given back in one breath; seats fill
up when many requests wait for the disk, for webhooks or for slow readers.
Source: Kubernetes documentation, "API Priority and Fairness"; KEP-1040.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from sampan.api.status import ApiError, too_many_requests
from sampan.base.clock import Clock
from sampan.base.exposition import family
from sampan.client.messages import Response, User
from sampan.server import respond
from sampan.server.lookup import Derived, Lookup

if TYPE_CHECKING:
    from sampan.server.route import RequestInfo

Object = dict[str, Any]
GROUP = "flowcontrol.apiserver.k8s.io"
_SCHEMAS, _LEVELS = f"flowschemas.{GROUP}", f"prioritylevelconfigurations.{GROUP}"

SEATS = 600  # requests under way in all levels: the original's 400 readers and 200 writers
WAIT = 15.0  # seconds in a queue: a quarter of a request's time
_CACHE_LIMIT = 20_000
_STREAMS = frozenset(("exec", "attach", "portforward", "proxy", "log"))  # take no seat: they last
# Metric, kind, what it counts, attribute of a tally or of a level.
_FIGURES = (
    ("current_executing_requests", "gauge", "Requests under way", "running"),
    ("current_executing_seats", "gauge", "Seats taken", "running"),
    ("current_inqueue_requests", "gauge", "Requests that wait for a seat", "waiting"),
    ("current_inqueue_seats", "gauge", "Seats waited for", "waiting"),
    ("dispatched_requests_total", "counter", "Requests that were let through", "dispatched"),
)
_LIMITS = (
    ("nominal_limit_seats", "Seats the level has by its share", "seats"),
    ("lower_limit_seats", "Seats that are left when all others borrow", "lower"),
    ("upper_limit_seats", "Seats it can have by borrowing", "upper"),
    ("current_limit_seats", "Seats it has now", "now"),
)
# Why a request was refused, as the metric says it.
FULL, NO_QUEUE, TIMED_OUT, CANCELLED = "queue-full", "concurrency-limit", "time-out", "cancelled"
_METRIC = "apiserver_flowcontrol"
_TOO_MANY = "Too many requests, please try again later."


class Tally:
    """What became of the requests of one FlowSchema in one priority level."""

    __slots__ = ("dispatched", "level", "refused", "running", "schema", "waiting")

    def __init__(self, schema: str, level: str) -> None:
        self.schema, self.level = schema, level
        self.running = self.waiting = self.dispatched = 0
        self.refused: dict[str, int] = {}

    def refuse(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1


class Waiter(NamedTuple):
    """Who stands in a queue, and since when; `seat` is done when one is handed over."""

    seat: asyncio.Future[None]
    flow: Flow
    user: User
    info: RequestInfo
    since: float


class Level:
    """Seats of a priority level, and those who wait for one: queues that take turns."""

    __slots__ = (
        "borrowing",
        "exempt",
        "hand",
        "length",
        "lendable",
        "name",
        "queues",
        "running",
        "seats",
        "turn",
        "uid",
        "waiting",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = self.waiting = self.turn = 0
        self.queues: list[deque[Waiter]] = []

    @property
    def lower(self) -> int:
        return self.seats - self.lendable

    @property
    def upper(self) -> int:
        return self.seats + self.borrowing

    @property
    def now(self) -> int:
        return max(self.seats, self.running)

    def configure(self, raw: Object, seats: int) -> None:
        """As its object now says; `seats` is its share of all."""
        spec = raw.get("spec") or {}
        limited = spec.get("limited") or {}
        self.uid: str = raw["metadata"].get("uid", "")
        self.exempt = spec.get("type") == "Exempt"
        self.seats = seats
        self.lendable = seats * (limited.get("lendablePercent") or 0) // 100
        percent = limited.get("borrowingLimitPercent")
        self.borrowing = SEATS if percent is None else seats * percent // 100
        queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
        count = (
            queuing.get("queues", 64) if (limited.get("limitResponse") or {}).get("type") == "Queue" else 0
        )
        self.hand = max(1, min(queuing.get("handSize", 8), count))
        self.length = queuing.get("queueLengthLimit", 50)
        while len(self.queues) < count:
            self.queues.append(deque())
        if len(self.queues) > count and not self.waiting:
            del self.queues[count:]

    def choose(self, flow: str) -> deque[Waiter] | None:
        """The shortest of a few queues that belong to a flow; None when even that is full (or there are none)."""
        if not self.queues:
            return None
        value = zlib.crc32(flow.encode()) | zlib.adler32(flow.encode()) << 32
        left = list(range(len(self.queues)))
        best: deque[Waiter] | None = None
        for _ in range(min(self.hand, len(left))):
            value, index = divmod(value, len(left))
            queue = self.queues[left.pop(index)]
            if best is None or len(queue) < len(best):
                best = queue
        return best if best is not None and len(best) < self.length else None

    def next(self) -> Waiter | None:
        """Who has waited longest in the queue whose turn it is."""
        for step in range(len(self.queues)):
            at = (self.turn + step) % len(self.queues)
            queue = self.queues[at]
            while queue:
                waiter = queue.popleft()
                if not waiter.seat.done():
                    self.turn = at + 1
                    return waiter
        return None


class Flow:
    """Where requests of one kind belong: their schema, its level, and what tells them apart from others in it."""

    __slots__ = ("distinguisher", "headers", "id", "json_headers", "level", "tally")

    def __init__(self, level: Level, schema: Object, distinguisher: str, tally: Tally) -> None:
        self.level = level
        self.tally = tally
        self.distinguisher = distinguisher
        name = schema["metadata"]["name"]
        self.id = f"{name}/{distinguisher}"
        self.headers = {
            "x-kubernetes-pf-flowschema-uid": schema["metadata"].get("uid", ""),
            "x-kubernetes-pf-prioritylevel-uid": level.uid,
        }
        self.json_headers = respond.Headers(respond.JSON_HEADERS | self.headers)


class Fairness:
    """`around` a request. Without any FlowSchema (a server of a test) everything passes."""

    def __init__(self, lookup: Lookup, clock: Clock) -> None:
        self._lookup = lookup
        self._clock = clock
        self.levels: dict[str, Level] = {}  # by name
        self._schemas: list[Object] = []
        self._flows: dict[tuple[Any, ...], Flow | None] = {}
        self.tallies: dict[tuple[str, str], Tally] = {}
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
            level.configure(raw, -(-SEATS * limited.get(name, 0) // total))
            self.levels[name] = level
        names = {r["metadata"]["name"] for r in raws}
        self.levels = {n: v for n, v in self.levels.items() if n in names or v.running or v.waiting}
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
            if any(_matches(rule, user, info) for rule in spec.get("rules") or ()):
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
        """The answer of `proceed`, when there is a seat for it. Raises 429."""
        flow = self.flow(user, info)
        if flow is None:
            return await proceed()
        level = flow.level
        try:
            if level.exempt or info.subresource in _STREAMS:
                flow.tally.dispatched += 1
                response = await proceed()
            else:
                if level.running >= level.seats and not self._borrows(level):
                    await self._wait(flow, user, info)
                else:
                    level.running += 1
                response = await self._seated(flow, info, proceed)
        except ApiError as error:
            error.headers = flow.headers
            raise
        if response.headers is respond.JSON_HEADERS:
            response.headers = flow.json_headers
        else:
            response.headers = response.headers | flow.headers
        return response

    async def _seated(
        self, flow: Flow, info: RequestInfo, proceed: Callable[[], Awaitable[Response]]
    ) -> Response:
        kept = False
        flow.tally.dispatched += 1
        flow.tally.running += 1
        try:
            response = await proceed()
            body = response.body
            if not isinstance(body, bytes) and info.verb != "watch" and response.upgrade is None:
                response.body, kept = _Held(body, lambda: self._leave(flow)), True
            return response
        finally:
            if not kept:
                self._leave(flow)

    def _leave(self, flow: Flow) -> None:
        flow.tally.running -= 1
        self._release(flow.level)

    def _borrows(self, level: Level) -> bool:
        """Whether other levels lend a seat: what they may lend and do not use."""
        if level.waiting or level.running - level.seats >= level.borrowing:
            return False
        free = used = 0
        for other in self.levels.values():
            if not other.exempt:
                free += min(other.lendable, max(0, other.seats - other.running))
                used += max(0, other.running - other.seats)
        return used < free

    async def _wait(self, flow: Flow, user: User, info: RequestInfo) -> None:
        """Stand in a queue until a seat is handed over. Raises 429 when the queue is full or nobody came."""
        level, tally = flow.level, flow.tally
        queue = level.choose(flow.id)
        if queue is None:
            tally.refuse(FULL if level.queues else NO_QUEUE)
            raise too_many_requests(_TOO_MANY, 1)
        waiter = Waiter(asyncio.get_running_loop().create_future(), flow, user, info, self._clock.now())
        queue.append(waiter)
        level.waiting += 1
        tally.waiting += 1
        try:
            async with self._clock.timeout(WAIT):
                await waiter.seat
        except TimeoutError:
            self._give_up(waiter, TIMED_OUT)
            raise too_many_requests(_TOO_MANY, 1) from None
        except asyncio.CancelledError:
            self._give_up(waiter, CANCELLED)
            raise
        finally:
            level.waiting -= 1
            tally.waiting -= 1
            if waiter in queue:
                queue.remove(waiter)

    def _give_up(self, waiter: Waiter, why: str) -> None:
        """A seat that was handed to somebody who left at that moment goes to the next."""
        waiter.flow.tally.refuse(why)
        if waiter.seat.done() and not waiter.seat.cancelled():
            self._release(waiter.flow.level)

    def _release(self, level: Level) -> None:
        """A seat is free: it goes to whoever waits for it."""
        if level.waiting and level.running <= level.seats:
            waiter = level.next()
            if waiter is not None:
                waiter.seat.set_result(None)  # the seat changes hands: `running` stays
                return
        level.running -= 1

    def render(self) -> str:
        """Figures for /metrics."""
        tallies = [({"flow_schema": t.schema, "priority_level": t.level}, t) for t in self.tallies.values()]
        levels = [({"priority_level": level.name}, level) for level in self.levels.values()]
        found = [
            family(f"{_METRIC}_{name}", kind, text, ((labels, getattr(t, what)) for labels, t in tallies))
            for name, kind, text, what in _FIGURES
        ]
        found += [
            family(f"{_METRIC}_{name}", "gauge", text, ((labels, getattr(v, what)) for labels, v in levels))
            for name, text, what in _LIMITS
        ]
        refused = (({**labels, "reason": why}, n) for labels, t in tallies for why, n in t.refused.items())
        found.append(family(f"{_METRIC}_rejected_requests_total", "counter", "Requests refused", refused))
        return "".join(found)


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


def _level_name(schema: Object) -> str:
    return ((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name", "")


def _matches(rule: Object, user: User, info: RequestInfo) -> bool:
    if not any(_is_subject(s, user) for s in rule.get("subjects") or ()):
        return False
    if info.is_resource:
        return any(_names_resource(r, info) for r in rule.get("resourceRules") or ())
    return any(_names_path(r, info) for r in rule.get("nonResourceRules") or ())


def _is_subject(subject: Object, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            return (subject.get("user") or {}).get("name") in ("*", user.name)
        case "Group":
            name = (subject.get("group") or {}).get("name")
            return name == "*" or name in user.groups
        case "ServiceAccount":
            account = subject.get("serviceAccount") or {}
            prefix = f"system:serviceaccount:{account.get('namespace', '')}:"
            wanted = account.get("name")
            return user.name.startswith(prefix) and wanted in ("*", user.name[len(prefix) :])
    return False


def _has(values: Any, value: str) -> bool:
    return "*" in (values or ()) or value in (values or ())


def _names_resource(rule: Object, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (
        _has(rule.get("verbs"), info.verb)
        and _has(rule.get("apiGroups"), info.group)
        and _has(rule.get("resources"), resource)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), info.namespace)


def _names_path(rule: Object, info: RequestInfo) -> bool:
    if not _has(rule.get("verbs"), info.verb):
        return False
    for pattern in rule.get("nonResourceURLs") or ():
        if (
            pattern == "*"
            or pattern == info.path
            or pattern.endswith("*")
            and info.path.startswith(pattern[:-1])
        ):
            return True
    return False
