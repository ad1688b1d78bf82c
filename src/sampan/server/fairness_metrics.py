"""What became of requests, by FlowSchema, and what /metrics says of it.

Source: Kubernetes documentation, "API Priority and Fairness", "Metrics"; "Kubernetes Metrics Reference".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from sampan.base.exposition import Histogram, Labels, family, histogram
from sampan.server.fairness_level import Level

# Upper bounds of the buckets, seconds: those of the original.
BOUNDS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
# Metric, kind, what it counts, attribute of a tally or of a level.
_FIGURES = (
    ("current_executing_requests", "gauge", "Requests under way", "running"),
    ("current_executing_seats", "gauge", "Seats taken", "seats"),
    ("current_inqueue_requests", "gauge", "Requests that wait for seats", "waiting"),
    ("current_inqueue_seats", "gauge", "Seats waited for", "wanted"),
    ("dispatched_requests_total", "counter", "Requests that were let through", "dispatched"),
)
_LIMITS = (
    ("nominal_limit_seats", "Seats the level has by its share", "seats"),
    ("lower_limit_seats", "Seats that are left when all others borrow", "lower"),
    ("upper_limit_seats", "Seats it can have by borrowing", "upper"),
    ("current_limit_seats", "Seats it has now", "now"),
)
_METRIC = "apiserver_flowcontrol"


class Tally:
    """What became of the requests of one FlowSchema in one priority level."""

    __slots__ = (
        "level",
        "quick",
        "quick_seconds",
        "refused",
        "running",
        "schema",
        "seats",
        "slow",
        "times",
        "waited",
        "waited_in_vain",
        "waiting",
        "wanted",
        "watches",
    )

    def __init__(self, schema: str, level: str) -> None:
        self.schema, self.level = schema, level
        self.running = self.seats = 0  # requests under way, and their seats
        self.waiting = self.wanted = 0  # requests in queues, and the seats they wait for
        self.quick = self.slow = 0  # let through: answered at once, and all others
        self.quick_seconds = 0.0
        self.refused: dict[str, int] = {}
        self.times, self.watches = Histogram(BOUNDS), Histogram(BOUNDS)  # a watch's: up to its first changes
        self.waited, self.waited_in_vain = Histogram(BOUNDS), Histogram(BOUNDS)

    @property
    def dispatched(self) -> int:
        return self.quick + self.slow

    def queued(self, requests: int, seats: int) -> None:
        self.waiting += requests
        self.wanted += seats

    def refuse(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1

    def waits(self) -> Iterator[tuple[Labels, Histogram]]:
        """Most requests wait for nothing, and are not looked at one by one."""
        served = sum(self.waited.counts)
        yield {"execute": "true"}, self.waited.with_more(0.0, self.dispatched - served)
        yield {"execute": "false"}, self.waited_in_vain

    def executions(self) -> Iterator[tuple[Labels, Histogram]]:
        """What is answered at once takes less than the least bound above nothing."""
        yield {"type": "regular"}, self.times.with_more(BOUNDS[1], self.quick, self.quick_seconds)
        yield {"type": "watch"}, self.watches


def render(tallies: Collection[Tally], levels: Collection[Level]) -> str:
    """All figures in Prometheus' text form."""
    named: list[tuple[dict[str, str], Tally]] = [
        ({"flow_schema": t.schema, "priority_level": t.level}, t) for t in tallies
    ]
    found = [
        family(f"{_METRIC}_{name}", kind, text, ((labels, getattr(t, what)) for labels, t in named))
        for name, kind, text, what in _FIGURES
    ]
    found += [
        family(
            f"{_METRIC}_{name}",
            "gauge",
            text,
            (({"priority_level": v.name}, getattr(v, what)) for v in levels),
        )
        for name, text, what in _LIMITS
    ]
    refused = (({**labels, "reason": why}, n) for labels, t in named for why, n in t.refused.items())
    found.append(family(f"{_METRIC}_rejected_requests_total", "counter", "Requests refused", refused))
    found.append(
        histogram(
            f"{_METRIC}_request_wait_duration_seconds",
            "Time that requests waited for seats",
            (({**labels, **more}, one) for labels, t in named for more, one in t.waits()),
        )
    )
    found.append(
        histogram(
            f"{_METRIC}_request_execution_seconds",
            "Time that requests took once they were let through",
            (({**labels, **more}, one) for labels, t in named for more, one in t.executions()),
        )
    )
    return "".join(found)


def by_kind(running: Sequence[int], waiting: Sequence[int]) -> str:
    """Requests that (read, write), as dashboards have told them apart since before there were priority levels."""
    kinds = ({"request_kind": "readOnly"}, {"request_kind": "mutating"})
    return family(
        "apiserver_current_inflight_requests", "gauge", "Requests under way", zip(kinds, running, strict=True)
    ) + family(
        "apiserver_current_inqueue_requests", "gauge", "Requests that wait", zip(kinds, waiting, strict=True)
    )
