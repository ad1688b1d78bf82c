"""What /metrics says of levels and of what became of requests.

Source: Kubernetes documentation, "API Priority and Fairness", "Metrics"; "Kubernetes Metrics Reference".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sampan.base.exposition import family, histogram
from sampan.server.flowcontrol.level import Level
from sampan.server.flowcontrol.tally import Tally

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
