"""Aggregated servers: group versions that an APIService gives to a Service are asked of the server behind it.

The caller is authenticated and authorized here; who it is goes along in X-Remote-* headers, which the other server
believes because the connection shows the front proxy's certificate. Source: Kubernetes documentation, "Configure the
Aggregation Layer"; API reference APIService v1.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote

import orjson

from sampan.api import openapi
from sampan.api.registry import Registry
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.messages import Request, Response, User
from sampan.server import respond
from sampan.server.aggregation import usage
from sampan.server.egress.backends import NoBackend, endpoint
from sampan.server.lookup import Derived, Lookup
from sampan.server.route import RequestInfo

BUCKET = "apiservices.apiregistration.k8s.io"
_OWN = User("system:kube-aggregator", ("system:masters",))
_OPENAPI = User("system:aggregator", ("system:masters",))
_PATIENCE = 5.0  # seconds for the discovery document of another server
_DROPPED = frozenset(
    "authorization connection content-length expect host keep-alive proxy-authorization te trailer transfer-encoding".split()
)
_TOKEN = "!#$&'*+-.^_`|~"  # what may stand in a header's name (RFC 9110, 5.6.2)


class Backend(NamedTuple):
    """Where to connect, and how the certificate there is judged: for `name`, by `authorities` (PEM) unless `lax`."""

    host: str
    port: int
    name: str
    authorities: str
    lax: bool


Connect = Callable[[Backend, Request], Awaitable[Response]]


class Aggregator:
    """`connect` is given by the composition root; without it nothing can be reached."""

    def __init__(self, lookup: Lookup, registry: Registry, clock: Clock, ids: Ids) -> None:
        self._lookup = lookup
        self._registry = registry
        self._clock = clock
        self._ids = ids
        self.connect: Connect | None = None
        self._given = Derived(lookup, (BUCKET,), self._read)
        self._resources: dict[tuple[str, str], list[Object]] = {}  # what discovery there said last
        self._openapi: dict[tuple[str, str], dict[str, Object]] = {}  # likewise, by path
        self._swagger: dict[tuple[str, str], Object] = {}  # likewise, of OpenAPI 2.0 what is its own
        self._changes = 0

    # Which group versions are others'

    def _read(self) -> dict[tuple[str, str], Object]:
        found = {}
        for service in self._lookup.list(BUCKET):
            spec = service.get("spec") or {}
            if spec.get("service"):
                found[spec.get("group", ""), spec.get("version", "")] = service
        return dict(sorted(found.items(), key=lambda pair: _priority(pair[1])))

    def given(self) -> dict[tuple[str, str], Object]:
        """APIServices with a Service behind them by (group, version), the most important first."""
        found: dict[tuple[str, str], Object] = self._given.get()
        return found

    def of_path(self, info: RequestInfo) -> Object | None:
        """The APIService that serves a path of the form /apis/GROUP/VERSION..., if one does.

        What is served here stays here, but for metrics.k8s.io: whoever installs an add-on for it wants that one.
        """
        if info.is_resource:
            key = (info.group, info.version)
        else:
            parts = info.path.strip("/").split("/")
            if len(parts) != 3 or parts[0] != "apis":
                return None
            key = (parts[1], parts[2])
        own = key[0] != usage.GROUP and key[1] in self._registry.versions(key[0])
        return None if own else self.given().get(key)

    # Requests

    async def serve(self, service: Object, request: Request, user: User) -> Response:
        """What the server behind `service` answers; 503 in plain text when it cannot be asked."""
        if not _available(service):
            return respond.text("service unavailable\n", 503)
        try:
            return await self._ask(service, request, user)
        except (NoBackend, OSError, TimeoutError) as error:
            return respond.text(f"error trying to reach service: {error}\n", 503)

    async def _ask(self, service: Object, request: Request, user: User) -> Response:
        if self.connect is None:
            raise NoBackend("this server has no way to the cluster's network")
        spec = service["spec"]
        namespace, name = spec["service"].get("namespace", ""), spec["service"].get("name", "")
        port = spec["service"].get("port") or 443
        host, number = endpoint(self._lookup, self._ids, namespace, name, port)
        backend = Backend(
            host, number, f"{name}.{namespace}.svc", _bundle(spec), bool(spec.get("insecureSkipTLSVerify"))
        )
        onward = Request(
            request.method,
            request.path,
            request.query,
            _headers(request),
            request.body,
            repeated=list(_identity(user)),
        )
        return await self.connect(backend, onward)

    # Whether it is there, and what it serves: asked by a controller

    async def check(self, namespace: str, name: str) -> Object:
        """{} when the server behind the APIService `name` answers discovery, else {"error": text}."""
        service = self._lookup.get(BUCKET, name)
        if service is None or not (service.get("spec") or {}).get("service"):
            return {"error": "the APIService is gone"}
        spec = service["spec"]
        key = (spec["group"], spec["version"])
        path = f"/apis/{key[0]}/{key[1]}"
        where = f"https://{spec['service'].get('name')}.{spec['service'].get('namespace')}.svc{path}"
        try:
            status, body = await self._fetch(service, path, _OWN)
            if status != 200:
                return {"error": f"bad status from {where}: {status}"}
            found = _discovered(orjson.loads(body))
            described = await self._described(service, path)
            older = await self._described_before(service, path)
        except TimeoutError:
            return {
                "error": f'failing or missing response from {where}: Get "{where}": context deadline exceeded'
            }
        except (NoBackend, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return {"error": f'failing or missing response from {where}: Get "{where}": {error}'}
        known = (self._resources.get(key), self._openapi.get(key), self._swagger.get(key))
        if (found, described, older) != known:
            self._resources[key], self._openapi[key], self._swagger[key] = found, described, older
            self._changes += 1
        return {}

    async def empty(self, namespace: str, _name: str) -> Object:
        """Delete what other servers keep in a namespace: {"remaining": {resource.group: number}, "failed": [text]}.

        What cannot be asked may have contents, and is named: the namespace must not go before them.
        """
        remaining: dict[str, int] = {}
        failed: list[str] = []
        for (group, version), service in self.given().items():
            if not _available(service):
                failed.append(f"{group}/{version}: stale GroupVersion discovery: {group}/{version}")
                continue
            for entry in self._resources.get((group, version), ()):
                if entry["scope"] != "Namespaced" or "delete" not in entry["verbs"]:
                    continue
                path = f"/apis/{group}/{version}/namespaces/{quote(namespace)}/{entry['resource']}"
                try:
                    left = await self._empty(service, path, entry["verbs"])
                except (NoBackend, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
                    failed.append(f"{group}/{version}: {error}")
                    break
                if left:
                    remaining[f"{entry['resource']}.{group}"] = left
        return {"remaining": remaining, "failed": failed}

    async def _empty(self, service: Object, path: str, verbs: Iterable[str]) -> int:
        """Delete a collection; how many objects it still has then."""
        if "deletecollection" in verbs:
            await self._fetch(service, path, _OWN, "DELETE")
        items = await self._items(service, path) if "list" in verbs else []
        if not items or "deletecollection" in verbs:
            return len(items)
        for item in items:
            await self._fetch(service, f"{path}/{quote(item['metadata']['name'])}", _OWN, "DELETE")
        return len(await self._items(service, path))

    async def _items(self, service: Object, path: str) -> list[Object]:
        status, body = await self._fetch(service, path, _OWN)
        if status != 200:
            raise ValueError(f"{path} answered {status}")
        return orjson.loads(body).get("items") or []

    async def _described(self, service: Object, path: str) -> dict[str, Object]:
        """The entry of the OpenAPI v3 index for a group version, if that server has one."""
        status, body = await self._fetch(service, "/openapi/v3", _OPENAPI)
        if status != 200:
            return {}
        paths = orjson.loads(body).get("paths") or {}
        return {p: v for p, v in paths.items() if f"/{p}" == path and isinstance(v, dict)}

    async def _described_before(self, service: Object, path: str) -> Object:
        """The paths of a group version in that server's OpenAPI 2.0 document, and what they refer to; {} without one."""
        status, body = await self._fetch(service, "/openapi/v2", _OPENAPI)
        if status != 200:
            return {}
        found = orjson.loads(body)
        paths = {p: v for p, v in (found.get("paths") or {}).items() if f"{p}/".startswith(f"{path}/")}
        return {"paths": paths, "definitions": openapi.referred(paths, found.get("definitions") or {})}

    async def _fetch(self, service: Object, path: str, user: User, method: str = "GET") -> tuple[int, bytes]:
        async with self._clock.timeout(_PATIENCE):
            request = Request(method, path, headers={"accept": "application/json"})
            answer = await self._ask(service, request, user)
            body = answer.body
            return answer.status, body if isinstance(body, bytes) else b"".join([c async for c in body])

    # Documents

    def stamp(self) -> tuple[int, int]:
        """Changes whenever a document that names aggregated groups must be made anew."""
        return self._lookup.version(BUCKET), self._changes

    def groups(self) -> list[str]:
        """Groups of aggregated servers, the most important first."""
        return list(dict.fromkeys(group for group, _ in self.given()))

    def versions(self, group: str) -> list[str]:
        return [version for its, version in self.given() if its == group]

    def discovered(self, group: str, version: str) -> Object | None:
        """The version's entry in the aggregated discovery document; None when it is served here."""
        service = self.given().get((group, version))
        if service is None:
            return None
        freshness = "Current" if _available(service) else "Stale"
        resources = self._resources.get((group, version), [])
        return {"version": version, "freshness": freshness, "resources": resources}

    def openapi_index(self) -> dict[str, Object]:
        """Paths of the OpenAPI v3 index that aggregated servers add."""
        return {path: entry for key in self.given() for path, entry in self._openapi.get(key, {}).items()}

    def swagger(self) -> list[Object]:
        """What aggregated servers add to the OpenAPI 2.0 document."""
        return [part for key in self.given() if (part := self._swagger.get(key))]

    async def openapi(self, request: Request, path: str) -> Response | None:
        """The OpenAPI v3 document at `path` below /openapi/v3, passed on; None where no other server has it."""
        for key, service in self.given().items():
            if path in self._openapi.get(key, {}):
                return await self.serve(service, request, _OPENAPI)
        return None


def _available(service: Object) -> bool:
    conditions = (service.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Available" and c.get("status") == "True" for c in conditions)


def _priority(service: Object) -> tuple[int, str, int, str]:
    spec = service["spec"]
    return (
        -spec.get("groupPriorityMinimum", 0),
        spec.get("group", ""),
        -spec.get("versionPriority", 0),
        spec.get("version", ""),
    )


def _bundle(spec: Object) -> str:
    try:
        return base64.b64decode(spec.get("caBundle") or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _headers(request: Request) -> dict[str, str]:
    """What goes on to the other server: nothing that says who the caller is, nothing of this connection alone."""
    upgrade = "upgrade" in request.headers
    kept = {
        name: value
        for name, value in request.headers.items()
        if not name.startswith(("x-remote-", "impersonate-"))
        and (name not in _DROPPED or (upgrade and name == "connection"))
    }
    if request.remote:
        before = kept.get("x-forwarded-for")
        kept["x-forwarded-for"] = f"{before}, {request.remote}" if before else request.remote
    return kept


def _identity(user: User) -> Iterable[tuple[str, str]]:
    yield "X-Remote-User", user.name
    if user.uid:
        yield "X-Remote-Uid", user.uid
    for group in user.groups:
        yield "X-Remote-Group", group
    for key, values in user.extra.items():
        for value in values:
            yield f"X-Remote-Extra-{quote(key, safe=_TOKEN)}", value


def _discovered(document: Object) -> list[Object]:
    """Entries of aggregated discovery from an APIResourceList. Raises KeyError and the like for another document."""
    group, _, version = document["groupVersion"].rpartition("/")
    resources: dict[str, Object] = {}
    for entry in document["resources"]:
        plural, _, sub = entry["name"].partition("/")
        kind = {
            "group": entry.get("group") or group,
            "version": entry.get("version") or version,
            "kind": entry["kind"],
        }
        if sub:
            parent = resources.setdefault(plural, {"resource": plural})
            below = {"subresource": sub, "responseKind": kind, "verbs": entry["verbs"]}
            parent.setdefault("subresources", []).append(below)
            continue
        found = resources.setdefault(plural, {"resource": plural})
        found |= {
            "responseKind": kind,
            "scope": "Namespaced" if entry["namespaced"] else "Cluster",
            "singularResource": entry.get("singularName", ""),
            "verbs": entry["verbs"],
        }
        for field in ("shortNames", "categories"):
            if entry.get(field):
                found[field] = entry[field]
    return sorted((r for r in resources.values() if "verbs" in r), key=lambda r: str(r["resource"]))
