"""/debug/api_priority_and_fairness: who runs and who waits right now, as tables for people.

Source: Kubernetes documentation, "API Priority and Fairness", "Debug endpoints".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from sampan.api.status import method_not_allowed
from sampan.client.messages import Request, Response
from sampan.server import respond
from sampan.server.flowcontrol.fairness import CANCELLED, FULL, NO_QUEUE, TIMED_OUT, Fairness
from sampan.server.flowcontrol.level import Level
from sampan.server.route import RequestInfo

_ROOT = "/debug/api_priority_and_fairness/dump_"
_LEVELS = (
    "PriorityLevelName ActiveQueues IsIdle IsQuiescing WaitingRequests ExecutingRequests "
    "DispatchedRequests RejectedRequests TimedoutRequests CancelledRequests"
)
_QUEUES = (
    "PriorityLevelName Index PendingRequests ExecutingRequests SeatsInUse NextDispatchR "
    "InitialSeatsSum MaxSeatsSum TotalWorkSum"
)
_REQUESTS = (
    "PriorityLevelName FlowSchemaName QueueIndex RequestIndexInQueue FlowDistingsher ArriveTime "
    "InitialSeats FinalSeats AdditionalLatency"
)
_DETAILS = " UserName Verb APIPath Namespace Name APIVersion Resource SubResource"


def answer(fairness: Fairness, request: Request, info: RequestInfo) -> Response | None:
    """The table a path asks for; None for other paths."""
    what = info.path.removeprefix(_ROOT)
    if what == info.path or what not in ("priority_levels", "queues", "requests"):
        return None
    if request.method != "GET":
        raise method_not_allowed()
    levels = sorted(fairness.levels.values(), key=lambda level: level.name)
    if what == "priority_levels":
        return respond.text(_table(_LEVELS, (_level(fairness, level) for level in levels)))
    if what == "queues":
        return respond.text(_table(_QUEUES, (row for level in levels for row in _queues(level))))
    details = "includeRequestDetails" in info.query
    rows = (row for level in levels for row in _requests(level, details))
    return respond.text(_table(_REQUESTS + (_DETAILS if details else ""), rows))


def _table(heads: str, rows: Iterable[Iterable[object]]) -> str:
    return "".join(", ".join(map(str, row)) + "\n" for row in (heads.split(), *rows))


def _level(fairness: Fairness, level: Level) -> tuple[object, ...]:
    tallies = [t for t in fairness.tallies.values() if t.level == level.name]

    def refused(*why: str) -> int:
        return sum(t.refused.get(w, 0) for t in tallies for w in why)

    running = sum(t.running for t in tallies)
    idle = not running and not level.waiting
    return (
        level.name,
        sum(1 for queue in level.queues if queue),
        str(idle).lower(),
        "false",
        level.waiting,
        running,
        sum(t.dispatched for t in tallies),
        refused(FULL, NO_QUEUE),
        refused(TIMED_OUT),
        refused(CANCELLED),
    )


def _queues(level: Level) -> Iterator[tuple[object, ...]]:
    for index, queue in enumerate(level.queues):
        seats = sum(waiter.width for waiter in queue)
        widest = max((waiter.width for waiter in queue), default=0)
        yield level.name, index, len(queue), 0, 0, "0.00000000ss", seats, widest, "0.00000000ss"


def _requests(level: Level, details: bool) -> Iterator[tuple[object, ...]]:
    for index, queue in enumerate(level.queues):
        for position, waiter in enumerate(queue):
            flow, info = waiter.flow, waiter.info
            since = datetime.fromtimestamp(waiter.since, UTC).isoformat().replace("+00:00", "Z")
            row: tuple[object, ...] = (
                level.name,
                flow.tally.schema,
                index,
                position,
                flow.distinguisher,
                since,
                waiter.width,
                0,
                "0s",
            )
            if details:
                version = f"{info.group}/{info.version}".lstrip("/")
                names = (info.namespace, info.name, version, info.resource, info.subresource)
                row += (waiter.user.name, info.verb, info.path, *names)
            yield row
