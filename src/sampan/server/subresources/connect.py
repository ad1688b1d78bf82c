"""log, exec, attach, portforward and proxy: the request is passed on to the pod's node, the answer passed back.

Source: API reference, "Pod: misc operations"; the kubelet's paths and parameters.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

import orjson

from sampan.api.registry import Resource
from sampan.api.resources import subresource
from sampan.api.status import ApiError, FieldError, bad_request, internal, invalid, invalid_value, not_found
from sampan.base import hostport
from sampan.base.objects import Object
from sampan.client.messages import Request, Response
from sampan.server import admit
from sampan.server.call import Call
from sampan.server.options import integer
from sampan.server.route import is_true
from sampan.server.subresources import proxied

_HOP = {"authorization", "host", "content-length", "transfer-encoding", "accept-encoding", "expect"}
_PATH = "/:@!$&'()*+,;=-._~%"  # what need not be escaped in a path
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


async def log(call: Call) -> Response:
    """GET of a container's log: a stream of text; nothing yet for a pod without a node."""
    pod = _pod(call)
    query = call.info.query
    options = _log_options(call)
    container = _container(pod, call.info.first("container"), logs=True)
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        return Response(204, {"content-type": "text/plain"})
    for key in ("follow", "previous", "timestamps"):
        if is_true(query.get(key)):
            options[key] = "true"
    for key in ("sinceTime", "stream"):
        if call.info.first(key):
            options[key] = call.info.first(key)
    meta = pod["metadata"]
    path = f"/containerLogs/{meta['namespace']}/{meta['name']}/{container}"
    return await _ask(call, node, "GET", path, urlencode(options))


def _log_options(call: Call) -> Object:
    """The numbers of PodLogOptions, checked. Raises 400 and 422."""
    query, errors, options = call.info.query, [], {}
    for key, least in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)):
        number = integer(query, key)
        if number is None:
            continue
        options[key] = str(number)
        if number < least:
            text = "must be greater than 0" if least else "must be greater than or equal to 0"
            errors.append(invalid_value(key, number, text))
    if "sinceSeconds" in query and query.get("sinceTime"):
        text = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        errors.append(FieldError("FieldValueForbidden", "", text))
    if errors:
        raise invalid("", "PodLogOptions", call.info.name, errors)
    return options


async def stream(call: Call) -> Response:
    """exec, attach or portforward: answered 101 by the node, then bytes both ways.

    A WebSocket begins with a GET: who may only read may not do it (KEP-4006, "Synthetic RBAC CREATE authorization").
    """
    if call.info.verb != "create":
        call.authorize_also("create")
    pod = _pod(call)
    info, meta = call.info, pod["metadata"]
    where = f"{meta['namespace']}/{meta['name']}"
    container = ""
    if info.subresource != "portforward":
        container = _container(pod, info.first("container"))
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise bad_request(f"pod {info.name} does not have a host assigned")
    await _admit(call)
    if info.subresource == "portforward":
        ports = [("port", p) for p in info.query.get("ports", ())]
        return await _ask(call, node, call.request.method, f"/portForward/{where}", urlencode(ports))
    params = [("command", c) for c in info.query.get("command", ())] if info.subresource == "exec" else []
    for key, name in (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")):
        if is_true(info.query.get(key)):
            params.append((name, "1"))
    path = f"/{info.subresource}/{where}/{container}"
    return await _ask(call, node, call.request.method, path, urlencode(params))


async def _admit(call: Call) -> None:
    """Ask admission. What it sees are the request's options, as an object of their own kind. Raises ApiError."""
    info = call.info
    kind = subresource(call.row, info.subresource)
    shape = Resource(kind.group, kind.version, kind.kind, "", True)
    options: Object = {"kind": shape.kind, "apiVersion": shape.api_version}
    if info.subresource == "proxy":
        options["path"] = info.tail
    elif info.subresource == "portforward":
        options["ports"] = [int(p) for p in info.query.get("ports", ()) if p.isdigit()]
    else:
        options |= {k: True for k in ("stdin", "stdout", "stderr", "tty") if is_true(info.query.get(k))}
        if container := info.first("container"):
            options["container"] = container
    if info.subresource == "exec":
        options["command"] = list(info.query.get("command", ()))
    await admit.admit(call, "CONNECT", options, None, shape=shape)


def _pod(call: Call) -> Object:
    item = call.server.store.get("pods", f"{call.info.namespace}/{call.info.name}")
    if item is None:
        raise not_found("", "pods", call.info.name)
    return orjson.loads(item.value)


def _container(pod: Object, wanted: str, *, logs: bool = False) -> str:
    """The container meant: the one named, the only one, or the one an annotation makes the default. Raises 400."""
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    main = [c["name"] for c in spec.get("containers") or []]
    init = [c["name"] for c in spec.get("initContainers") or []]
    debug = [c["name"] for c in spec.get("ephemeralContainers") or []]
    if wanted:
        if wanted not in (*main, *init, *debug):
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    chosen = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER)
    if len(main) == 1:
        return main[0]
    if chosen in (*main, *init, *debug) and not logs:
        return str(chosen)
    if not main:
        raise bad_request(f"a container name must be specified for pod {name}")
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]"
    if init:
        text += f" or one of the init containers: [{' '.join(init)}]"
    if debug:
        text += f" or one of the ephemeral containers: [{' '.join(debug)}]"
    raise bad_request(text)


async def _ask(call: Call, node: str, method: str, path: str, query: str) -> Response:
    """Pass a request on to a node's agent. Raises 502/500 with the cause when it does not answer."""
    nodes = call.server.nodes
    if nodes is None:
        raise internal(f"no connection to node {node}")
    request = Request(method, path, query, _passed_on(call.request), call.request.body, call.user)
    try:
        return await nodes.request(node, request)
    except ApiError:
        raise
    except OSError as error:
        raise internal(f"error dialing backend: {error}") from None


def _passed_on(request: Request) -> dict[str, str]:
    return {k: v for k, v in request.headers.items() if k not in _HOP and not k.startswith("impersonate-")}


async def node_proxy(call: Call) -> Response:
    """Any path of a node's agent."""
    info = call.info
    name = info.name.split(":")[-2] if info.name.count(":") == 2 else info.name.partition(":")[0]
    if call.server.store.get("nodes", name) is None:
        raise not_found("", "nodes", name)
    await _admit(call)
    return await _ask(call, name, call.request.method, info.tail or "/", call.request.query)


async def pod_proxy(call: Call) -> Response:
    """A port of a pod: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`."""
    scheme, name, port = _target(call.info.name)
    call.info.name = name
    pod = _pod(call)
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise bad_request("address not allowed")
    await _admit(call)
    number = _pod_port(pod, port)
    return await _forward(call, scheme, address, number)


def _target(text: str) -> tuple[str, str, str]:
    """(scheme, name, port) of a proxy's name. Raises 400."""
    parts = text.split(":")
    if len(parts) == 1:
        return "http", parts[0], ""
    if len(parts) == 2:
        return "http", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("http", "https", ""):
        return parts[0] or "http", parts[1], parts[2]
    raise bad_request(f'invalid service request "{text}"')


def _pod_port(pod: Object, port: str) -> int:
    ports = [p for c in (pod.get("spec") or {}).get("containers") or [] for p in c.get("ports") or []]
    if port.isdigit():
        return int(port)
    for entry in ports:
        if not port or entry.get("name") == port:
            return int(entry["containerPort"])
    return 80


async def service_proxy(call: Call) -> Response:
    """A ready endpoint of a service: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`; PORT is a name or number."""
    scheme, name, port = _target(call.info.name)
    item = call.server.store.get("services", f"{call.info.namespace}/{name}")
    if item is None:
        raise not_found("", "services", name)
    service = orjson.loads(item.value)
    ports = (service.get("spec") or {}).get("ports") or []
    wanted = [p for p in ports if port in (p.get("name", ""), str(p.get("port")))] if port else ports[:1]
    if not wanted:
        raise ApiError(503, "ServiceUnavailable", f'no service port "{port}" found for service "{name}"')
    await _admit(call)
    for address, number in _endpoints(call, name, wanted[0].get("name") or ""):
        return await _forward(call, scheme, address, number)
    raise ApiError(503, "ServiceUnavailable", f'no endpoints available for service "{call.info.name}"')


def _endpoints(call: Call, service: str, port_name: str) -> list[tuple[str, int]]:
    """Ready (address, port) pairs from the service's EndpointSlices."""
    found = []
    prefix = f"{call.info.namespace}/"
    for item in call.server.store.list("endpointslices.discovery.k8s.io", prefix).items:
        if item.labels.get("kubernetes.io/service-name") != service:
            continue
        piece = orjson.loads(item.value)
        for port in piece.get("ports") or []:
            if (port.get("name") or "") != port_name:
                continue
            for endpoint in piece.get("endpoints") or []:
                if (endpoint.get("conditions") or {}).get("ready", True) is not False:
                    found.append((endpoint["addresses"][0], int(port["port"])))
    return found


async def _forward(call: Call, scheme: str, host: str, port: int) -> Response:
    """Ask `host` for what follows the proxy subresource. Without even a slash, a reader is sent to the path with one."""
    info, method = call.info, call.request.method
    outside = quote(info.path, safe=_PATH)
    if not info.tail and method in ("GET", "HEAD") and "upgrade" not in call.request.headers:
        query = f"?{call.request.query}" if call.request.query else ""
        return Response(301, {"location": f"{outside}/{query}"})
    nodes = call.server.nodes
    forward = getattr(nodes, "forward", None)
    if forward is None:
        raise ApiError(503, "ServiceUnavailable", "the server has no way to the cluster's network")
    path = quote(info.tail or "/", safe=_PATH)
    authority = hostport.join(host, port)
    headers = _passed_on(call.request) | {"host": authority, "x-forwarded-uri": outside}
    request = Request(method, path, call.request.query, headers, call.request.body)
    hosts = (authority, host, call.request.headers.get("host", ""))
    try:
        answer = await forward(scheme, host, port, request)
        return await proxied.through(answer, outside.removesuffix(path), hosts)
    except OSError as error:
        why = f"dial tcp {authority}: connect: {(error.strerror or str(error)).lower()}"
        raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {why}") from None
