"""A GET of one stored object waits for nothing, so its answer needs no task and few of the steps of `Server.handle`.

Nothing is decided here that is not decided there: whatever is out of the ordinary (a refusal, an error, another form,
a level without a seat, an audit) takes the long way from its beginning. Asking changes nothing, so that costs only time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.api.status import ApiError
from sampan.client.messages import Request, Response
from sampan.server import components, impersonate, objects, respond, route, usage
from sampan.server.negotiate import form_of

if TYPE_CHECKING:
    from sampan.server.app import Server


def answer(server: Server, request: Request) -> Response | None:
    """The answer that `Server.handle` would give, or None: then ask that."""
    if request.method != "GET" or request.query or request.user is not None or server.audit is not None:
        return None
    if respond.for_eyes(request) or impersonate.asked(request.headers):
        return None
    began = server.clock.monotonic()
    info = route.parse("GET", request.path, "")
    if info.verb != "get" or not info.is_resource or not info.name or info.subresource:
        return None
    row = server.registry.find(info.group, info.version, info.resource)
    if row is None or row.custom or row.deprecated or row.group == usage.GROUP or "get" not in row.verbs:
        return None
    if row.namespaced != bool(info.namespace) or row.plural == components.PLURAL:
        return None
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
    found = server.store.get(row.store_key, objects.key_of(row, info.namespace, info.name))
    if found is None:
        return None
    response = Response(200, flow.json_headers, objects.raw(found, row))
    seconds = server.clock.monotonic() - began
    flow.tally.quick += 1
    flow.tally.quick_seconds += seconds
    server.metrics.answered(info, True, 200, seconds)
    return response
