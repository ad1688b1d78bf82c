"""A GET of one stored object waits for nothing, so its answer needs no task and few of the steps of `Server.handle`.

Nothing is decided here that is not decided there: whatever is out of the ordinary (a refusal, an error, another form,
a level without a seat, an audit) takes the long way from its beginning. Asking changes nothing, so that costs only time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sampan.api.registry import Registry, Resource
from sampan.api.status import ApiError
from sampan.client.messages import Request, Response, User
from sampan.server import components, objects, respond, route
from sampan.server.aggregation import usage
from sampan.server.auth import impersonate
from sampan.server.call import Kit
from sampan.server.config import Config
from sampan.server.flowcontrol.fairness import Fairness
from sampan.server.negotiate import form_of
from sampan.server.nonresource import metrics
from sampan.server.route import RequestInfo

_PLACES_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """A collection of a built-in kind: what all paths of its objects have in common."""

    row: Resource
    namespace: str
    series: metrics.Kind

    def info(self, path: str) -> RequestInfo:
        """What `route.parse` says of the path of an object."""
        row, name = self.row, path[path.rindex("/") + 1 :]
        return RequestInfo(
            path,
            "get",
            True,
            row.group,
            row.version,
            row.plural,
            "",
            self.namespace,
            name,
            "",
            route.NO_QUERY,
        )


class Places:
    """Places by the part of a path before the name. Built-in kinds stay where they are, so nothing here grows old."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, Place] = {}

    def find(self, path: str) -> Place | None:
        """Of an object whose GET may be answered at once; None for whatever else `path` names."""
        place = self._known.get(path[: path.rfind("/")])
        return place if place is not None and path[-1] != "/" else self._look(path)

    def _look(self, path: str) -> Place | None:
        info = route.parse("GET", path, "")
        if info.verb != "get" or not info.is_resource or not info.name or info.subresource:
            return None
        row = self._registry.find(info.group, info.version, info.resource)
        if row is None or row.custom or row.deprecated or row.group == usage.GROUP or "get" not in row.verbs:
            return None
        if row.namespaced != bool(info.namespace) or row.plural == components.PLURAL:
            return None
        if path.endswith("/"):
            return None
        if len(self._known) >= _PLACES_LIMIT:
            self._known.clear()
        place = self._known[path[: path.rfind("/")]] = Place(row, info.namespace, metrics.kind_of(info))
        return place


class Answering(Kit, Protocol):
    """What is used of `app.Server`."""

    config: Config
    fairness: Fairness
    metrics: metrics.Metrics
    places: Places

    def authenticate(self, request: Request) -> User: ...


def answer(server: Answering, request: Request) -> Response | None:
    """The answer that `Server.handle` would give, or None: then ask that."""
    if request.method != "GET" or request.query or request.user is not None or server.audit is not None:
        return None
    if respond.for_eyes(request) or impersonate.asked(request.headers):
        return None
    began = server.clock.monotonic()
    place = server.places.find(request.path)
    if place is None:
        return None
    info = place.info(request.path)
    try:
        user = server.authenticate(request)
        flow = server.fairness.flow(user, info)
        if flow is None or not (flow.level.exempt or flow.level.taken < flow.level.seats):
            return None
        if server.config.authorize and not server.authorizer.authorize(user, info)[0]:
            return None
        if not form_of(request.headers).stored:
            return None
    except ApiError:
        return None
    row = place.row
    found = server.store.get(row.store_key, objects.key_of(row, info.namespace, info.name))
    if found is None:
        return None
    response = Response(200, flow.json_headers, objects.raw(found, row))
    seconds = server.clock.monotonic() - began
    flow.tally.quick += 1
    flow.tally.quick_seconds += seconds
    server.metrics.count(place.series, 200, seconds)
    return response
