"""What each controller has done so far, as plain counters; prometheus' forms are made only when someone scrapes.

Metric names are those of client-go's workqueue and of controller-runtime, so that known dashboards work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sampan.client.queue import Queue


class Figures:
    """Counters of one controller: reconciles by result, and seconds spent in them."""

    def __init__(self, name: str, queue: Queue) -> None:
        self.name = name
        self.queue = queue
        self.succeeded = 0
        self.failed = 0
        self.seconds = 0.0

    def reconciled(self, outcome: str, seconds: float) -> None:
        """One more reconcile, of so many seconds. `outcome`: "ok", or what went wrong."""
        if outcome == "ok":
            self.succeeded += 1
        else:
            self.failed += 1
        self.seconds += seconds


class Collector:
    """A prometheus collector over `figures()` of a Runner."""

    def __init__(self, figures: Callable[[], Iterable[Figures]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks a collector for, under the names that controller-runtime and client-go use."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        depth = GaugeMetricFamily("workqueue_depth", "Keys that wait", labels=["name"])
        unfinished = GaugeMetricFamily(
            "controller_runtime_active_workers", "Keys in work", labels=["controller"]
        )
        added = CounterMetricFamily("workqueue_adds", "Keys added", labels=["name"])
        retried = CounterMetricFamily("workqueue_retries", "Keys tried again", labels=["name"])
        results = CounterMetricFamily(
            "controller_runtime_reconcile", "Reconciles by result", labels=["controller", "result"]
        )
        times = SummaryMetricFamily("workqueue_work_duration_seconds", "Time in reconciles", labels=["name"])
        waits = SummaryMetricFamily("workqueue_queue_duration_seconds", "Time in the queue", labels=["name"])
        ages = GaugeMetricFamily(
            "workqueue_unfinished_work_seconds", "Time of what is in work", labels=["name"]
        )
        oldest = GaugeMetricFamily(
            "workqueue_longest_running_processor_seconds", "Time of the longest work", labels=["name"]
        )
        for one in self._figures():
            depth.add_metric([one.name], len(one.queue))
            unfinished.add_metric([one.name], one.queue.working)
            added.add_metric([one.name], one.queue.added)
            retried.add_metric([one.name], one.queue.retried)
            results.add_metric([one.name, "success"], one.succeeded)
            results.add_metric([one.name, "error"], one.failed)
            times.add_metric([one.name], one.succeeded + one.failed, one.seconds)
            waits.add_metric([one.name], one.queue.taken, one.queue.waited)
            running = one.queue.unfinished()
            ages.add_metric([one.name], sum(running))
            oldest.add_metric([one.name], max(running, default=0.0))
        yield from (depth, unfinished, added, retried, results, times, waits, ages, oldest)
