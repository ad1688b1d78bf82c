"""What the control plane tells about itself: why an object is as it is, and figures for /metrics.

`/debug/sampan/story` is a path like any other: authorization lets only those read it whose role names it, which by
default is system:masters alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sampan.api.registry import Registry, Resource
from sampan.api.status import bad_request
from sampan.base.clock import Clock, RealClock, rfc3339_micro
from sampan.client.metrics import Collector
from sampan.client.runner import Runner
from sampan.scheduler.run import Scheduler

STORY = "/debug/sampan/story"
Query = Mapping[str, Sequence[str]]


def find(registry: Registry, word: str) -> Resource:
    """The resource people call `word`: deployments.apps, deployment, deploy. Raises ApiError 400 when there is none."""
    row = registry.get(word)
    if row is not None:
        return row
    wanted = word.lower()
    for row in registry:
        names = {row.plural, row.singular, row.kind.lower(), *row.short_names}
        names |= {f"{name}.{row.group}" for name in names}
        if wanted in names and registry.get(row.name) is row:
            return row
    raise bad_request(f'the server doesn\'t have a resource type "{word}"')


class StoryTeller:
    """Answers STORY: `?resource=deploy&namespace=default&name=web`."""

    def __init__(self, registry: Registry, runner: Runner | None, scheduler: Scheduler | None) -> None:
        self._registry, self._runner, self._scheduler = registry, runner, scheduler

    def __call__(self, query: Query) -> dict[str, Any]:
        """{"resource", "namespace", "name", "entries": oldest first}. Raises ApiError 400."""
        word, name = _first(query, "resource"), _first(query, "name")
        if not word or not name:
            raise bad_request("resource and name must be given")
        row = find(self._registry, word)
        namespace = _first(query, "namespace") if row.namespaced else ""
        entries = []
        if self._runner is not None:
            found = self._runner.story.about(row.store_key, namespace, name)
            entries = [entry.as_json() for entry in found]
        if row.store_key == "pods":
            entries += self._decisions(namespace, name)
        entries.sort(key=lambda entry: entry["time"])
        return {"resource": row.name, "namespace": namespace, "name": name, "entries": entries}

    def _decisions(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """The scheduler's last decision about a pod, in the form of a reconcile."""
        decision = self._scheduler.decisions.get(f"{namespace}/{name}") if self._scheduler else None
        if decision is None or self._scheduler is None:
            return []
        did = f"bind pods {namespace}/{name} to {decision.node}" if decision.node else ""
        return [
            {
                "time": rfc3339_micro(decision.time),
                "controller": self._scheduler.name,
                "resource": "pods",
                "namespace": namespace,
                "name": name,
                "cause": "having no node",
                "why": decision.message or f"score {decision.score:.0f}",
                "actions": [did] if did else [],
                "refused": {node: list(reasons) for node, reasons in sorted(decision.refused().items())},
                "outcome": "ok",
                "times": 1,
            }
        ]


def _first(query: Query, key: str) -> str:
    return (query.get(key) or ("",))[0]


class Figures:
    """The text of what prometheus scrapes beyond the server's own: controllers, the event loop, the process."""

    def __init__(self, runner: Runner | None, scheduler: Scheduler | None, clock: Clock) -> None:
        self._runner, self._scheduler, self._clock = runner, scheduler, clock
        self._registry: Any = None

    def __call__(self) -> str:
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        if self._registry is None:
            self._registry = CollectorRegistry()
            ProcessCollector(registry=self._registry)
            if self._runner is not None:
                self._registry.register(Collector(self._runner.figures))
            if self._scheduler is not None:
                self._registry.register(_Scheduling(self._scheduler))
            if isinstance(self._clock, RealClock):
                self._registry.register(_Lag(self._clock))
        return generate_latest(self._registry).decode()


class _Scheduling:
    """Names are kube-scheduler's."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        one = self._scheduler
        waiting = GaugeMetricFamily("scheduler_pending_pods", "Pods that wait for a node", labels=["queue"])
        for queue, number in zip(("active", "unschedulable"), one.pending, strict=True):
            waiting.add_metric([queue], number)
        labels = ["result", "profile"]
        tried = CounterMetricFamily("scheduler_schedule_attempts", "Decisions by result", labels=labels)
        for result, number in one.attempts.items():
            tried.add_metric([result, one.name], number)
        times = SummaryMetricFamily("scheduler_scheduling_algorithm_duration_seconds", "Time in decisions")
        times.add_metric([], sum(one.attempts.values()), one.deciding)
        return (waiting, tried, times)


class _Lag:
    """How late the loop's timers fire: what every caller waits in addition."""

    def __init__(self, clock: RealClock) -> None:
        self._clock = clock

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        lag = self._clock.lag
        times = SummaryMetricFamily("sampan_loop_lag_seconds", "How late timers fire")
        times.add_metric([], lag.timers, lag.seconds)
        slow = CounterMetricFamily("sampan_loop_slow_slices", "Timers more than 5 ms late")
        slow.add_metric([], lag.late)
        worst = GaugeMetricFamily("sampan_loop_lag_worst_seconds", "The latest timer since the last scrape")
        worst.add_metric([], lag.take_worst())
        return (times, slow, worst)
