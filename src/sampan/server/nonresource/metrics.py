"""Counters of the server, and /metrics in Prometheus' text form. Source: "Kubernetes Metrics Reference"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from sampan.base.exposition import Histogram, Labels, family, histogram
from sampan.server.route import RequestInfo

# Upper bounds of the durations' buckets, seconds: those of the original.
BUCKETS: tuple[float, ...] = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
BUCKETS += (5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
_VERBS = {verb: verb.upper() for verb in ("get", "list", "watch", "patch", "delete", "deletecollection")}
_VERBS |= {"create": "POST", "update": "PUT", "head": "GET", "post": "POST", "put": "PUT"}
_CONNECTS = {"exec", "attach", "portforward", "proxy", "log"}  # last as long as their caller likes
_LABELS = ("verb", "group", "version", "resource", "subresource", "scope")
Kind = tuple[str, ...]  # values of _LABELS


class Metrics:
    """Plain counters on the hot path; text is made only when it is asked for.

    `sources` are asked for the figures of other parts of the process, in the same text form, each with its line end.
    """

    def __init__(self) -> None:
        self.sources: list[Callable[[], str]] = []
        self._requests: Counter[tuple[Kind, int]] = Counter()
        self._durations: dict[Kind, Histogram] = {}
        self._checks: Counter[tuple[str, str]] = Counter()  # by endpoint and name

    def checked(self, endpoint: str, names: Iterable[str]) -> None:
        """Somebody asked `endpoint` (healthz, livez, readyz), and these checks were fine."""
        self._checks.update((endpoint, name) for name in names)

    def slis(self) -> str:
        """/metrics/slis: how the checks went that somebody asked for (KEP-3466). Who is here to answer is healthy."""
        labels = [{"name": name, "type": endpoint} for endpoint, name in self._checks]
        counts = self._checks.values()
        return family(
            "kubernetes_healthcheck",
            "gauge",
            "Result of the last run of a health check: 1 is fine",
            ((of, 1) for of in labels),
        ) + family(
            "kubernetes_healthchecks_total",
            "counter",
            "Runs of a health check by their result",
            (({**of, "status": "success"}, count) for of, count in zip(labels, counts, strict=True)),
        )

    def answered(self, info: RequestInfo, known: bool, code: int, seconds: float | None) -> None:
        """A request ended with `code`; `known`: its path names a resource that is served.

        seconds: from its arrival to its answer; None when that tells nothing, as of callers inside the process.
        """
        kind = kind_of(info, code) if known else (_VERBS.get(info.verb, "OTHER"), "", "", "", "", "")
        if info.verb == "watch" or info.subresource in _CONNECTS:
            seconds = None
        self.count(kind, code, seconds)

    def count(self, kind: Kind, code: int, seconds: float | None) -> None:
        """`answered`, for a caller who knows the kind of its requests."""
        self._requests[kind, code] += 1
        if seconds is None:
            return
        durations = self._durations.get(kind)
        if durations is None:
            durations = self._durations[kind] = Histogram(BUCKETS)
        durations.add(seconds)

    def render(self, objects: Mapping[str, int], watchers: int, revision: int) -> str:
        """`objects` is the number of stored objects by resource."""
        took = [(_labels(kind), durations) for kind, durations in self._durations.items()]
        requests = ({**_labels(kind), "code": str(code)} for kind, code in self._requests)
        own = [
            family(
                "apiserver_request_total",
                "counter",
                "Requests by what they asked for and the code of the answer",
                zip(requests, self._requests.values(), strict=True),
            ),
            histogram(
                "apiserver_request_duration_seconds",
                "Time from a request's arrival to its answer, without watches and streams",
                took,
            ),
            # What kube-prometheus measures availability by. The original leaves out the time in webhooks and queues.
            histogram(
                "apiserver_request_sli_duration_seconds",
                "The same, under the name that service level indicators are made of",
                took,
            ),
            family(
                "apiserver_storage_objects",
                "gauge",
                "Stored objects by resource",
                (({"resource": name}, number) for name, number in sorted(objects.items())),
            ),
            family(
                "apiserver_longrunning_requests",
                "gauge",
                "Watches under way",
                [({"verb": "WATCH"}, watchers)],
            ),
            family(
                "sampan_store_revision", "gauge", "Revision of the newest stored change", [({}, revision)]
            ),
        ]
        return "".join(own) + "".join(source() for source in self.sources)


def kind_of(info: RequestInfo, code: int = 200) -> Kind:
    """What a request for a known resource is counted as."""
    scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
    subresource = info.subresource if code != 404 else ""  # what does not exist must not add a series
    return (_VERBS.get(info.verb, "OTHER"), info.group, info.version, info.resource, subresource, scope)


def _labels(kind: Kind) -> Labels:
    return dict(zip(_LABELS, kind, strict=True))
