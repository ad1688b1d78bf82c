"""Counters of the server, and /metrics in Prometheus' text form. Source: "Kubernetes Metrics Reference"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class Metrics:
    """Plain counters on the hot path; text is made only when it is asked for.

    `sources` are asked for the figures of other parts of the process, in the same text form, each with its line end.
    """

    def __init__(self) -> None:
        self.sources: list[Callable[[], str]] = []
        self._requests: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[int] = Counter()

    def count(self, verb: str, resource: str) -> None:
        self._requests[verb, resource] += 1

    def refused(self, code: int) -> None:
        self._refusals[code] += 1

    def render(self, objects: dict[str, int], watchers: int, revision: int) -> str:
        """`objects` is the number of stored objects by resource."""
        lines = ["# TYPE apiserver_request_total counter"]
        for (verb, resource), number in sorted(self._requests.items()):
            lines.append(f'apiserver_request_total{{verb="{verb.upper()}",resource="{resource}"}} {number}')
        lines.append("# TYPE apiserver_refused_request_total counter")
        for code, number in sorted(self._refusals.items()):
            lines.append(f'apiserver_refused_request_total{{code="{code}"}} {number}')
        lines.append("# TYPE apiserver_storage_objects gauge")
        for resource, number in sorted(objects.items()):
            lines.append(f'apiserver_storage_objects{{resource="{resource}"}} {number}')
        lines += ["# TYPE apiserver_longrunning_requests gauge"]
        lines.append(f'apiserver_longrunning_requests{{verb="WATCH"}} {watchers}')
        lines += ["# TYPE sampan_store_revision gauge", f"sampan_store_revision {revision}"]
        return "\n".join(lines) + "\n" + "".join(source() for source in self.sources)
