"""What became of requests, by FlowSchema: counted as they come and go.

Source: Kubernetes documentation, "API Priority and Fairness", "Metrics".
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.base.exposition import Histogram, Labels

# Upper bounds of the buckets, seconds: those of the original.
BOUNDS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)


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
