"""What stands below an object: status, scale, binding, eviction, logs and the rest, each handled in a file of its own.

Also the kinds that can only be created (reviews, Binding), since they, too, are answered and not stored.

of workloads       scale
of pods            binding, eviction
passed on to nodes connect (log, exec, attach, portforward, proxy), proxied (pages read through a proxy)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sampan.api.registry import Resource
from sampan.api.resources import subresource
from sampan.api.status import ApiError, method_not_allowed, no_such_path
from sampan.client.messages import Response
from sampan.server import admit, decode, patch, read, respond, write
from sampan.server.call import Call
from sampan.server.negotiate import form_of
from sampan.server.options import write_options
from sampan.server.subresources import binding, connect, eviction, scale

Handler = Callable[[Call], Awaitable[Response]]
_TOKEN_REQUEST = Resource("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", True)


async def dispatch(call: Call) -> Response:
    """A request to `call.info.subresource`. Raises 404 when the kind has none of that name, 405 for a wrong verb."""
    info, row = call.info, call.row
    if info.subresource not in row.subresources:
        raise no_such_path()
    if row.namespaced and not info.namespace:
        raise no_such_path()
    passed_on = info.subresource == "proxy"  # with any method, also those the API gives no verb (OPTIONS)
    if not passed_on and info.verb not in subresource(row, info.subresource).verbs:
        raise method_not_allowed()
    handler = _HANDLERS.get((row.store_key, info.subresource)) or _HANDLERS.get(("", info.subresource))
    if handler is None:
        raise no_such_path()
    if handler not in _STREAMS:
        custom = row.custom and info.subresource != "scale"  # that is a kind of Kubernetes
        call.form = form_of(call.request.headers, custom=custom)
    return await handler(call)


async def _part(call: Call) -> Response:
    """A part of the object that is read and written as the whole object: status, approval, resize, …"""
    verb = call.info.verb
    if verb == "get":
        return read.get(call)
    return await (write.update(call) if verb == "update" else patch.patch(call))


async def _token(call: Call) -> Response:
    """TokenRequest of a service account."""
    if call.server.tokens is None:
        raise no_such_path()
    options = write_options(call.info.query, "CreateOptions")
    obj = decode.body(call, _TOKEN_REQUEST, options.validation)
    await admit.admit(call, "CREATE", obj, None, options, shape=_TOKEN_REQUEST)
    answer = call.server.tokens.request(obj, call.info.namespace, call.info.name)
    return respond.obj(call, answer, 201)


async def create_only(call: Call) -> Response:
    """POST of a kind that is answered, not stored."""
    if call.row.plural == "bindings":
        return await binding.bind(call)
    from sampan.server.auth import reviews

    options = write_options(call.info.query, "CreateOptions")
    obj = decode.body(call, call.row, options.validation)
    handler = reviews.REVIEWS.get(call.row.kind)
    if handler is None:
        raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
    server = call.server
    answer = handler(obj, call.user, call.info.namespace, server.authenticator, server.authorizer)
    return respond.obj(call, answer, 201)


_HANDLERS: dict[tuple[str, str], Handler] = {
    ("", "status"): _part,
    ("", "approval"): _part,
    ("", "scale"): scale.scale,
    ("pods", "binding"): binding.bind,
    ("pods", "eviction"): eviction.evict,
    ("pods", "ephemeralcontainers"): _part,
    ("pods", "resize"): _part,
    ("namespaces", "finalize"): _part,
    ("serviceaccounts", "token"): _token,
    ("pods", "log"): connect.log,
    ("pods", "exec"): connect.stream,
    ("pods", "attach"): connect.stream,
    ("pods", "portforward"): connect.stream,
    ("pods", "proxy"): connect.pod_proxy,
    ("services", "proxy"): connect.service_proxy,
    ("nodes", "proxy"): connect.node_proxy,
}
_STREAMS = {connect.log, connect.stream, connect.pod_proxy, connect.service_proxy, connect.node_proxy}
