"""Which resource a path names and what is to be done with it.

The rules are those of the API's URL scheme (API concepts, "Resource URIs"): legacy `/api/v1`, groups under `/apis`,
the old `/watch/` prefix, and the verb that authorization sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs

Query = dict[str, list[str]]

_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_NAMESPACE_SUBRESOURCES = {"status", "finalize"}
NO_QUERY: Query = {}  # shared: not to be changed


@dataclass(slots=True)
class RequestInfo:
    """What authorization and dispatch need to know. For a path that is no resource only verb and path are set."""

    path: str
    verb: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    tail: str = ""  # what follows a proxy subresource, with its leading slash
    query: Query = field(default_factory=dict)

    def first(self, key: str, default: str = "") -> str:
        values = self.query.get(key)
        return values[0] if values else default


def is_true(values: list[str] | None) -> bool:
    """A boolean query parameter: present and neither empty-listed, `false` nor `0` (apimachinery's conversion)."""
    return bool(values) and values[0].lower() not in ("false", "0")  # type: ignore[index]


def parse(method: str, path: str, query_text: str) -> RequestInfo:
    """The RequestInfo of a decoded `path` and a raw `query_text`."""
    query = parse_qs(query_text, keep_blank_values=True) if query_text else NO_QUERY
    parts = [p for p in path.split("/") if p]
    if len(parts) >= 3 and parts[0] == "api":
        return _resource(method, path, query, "", parts[1], parts[2:])
    if len(parts) >= 4 and parts[0] == "apis":
        return _resource(method, path, query, parts[1], parts[2], parts[3:])
    return RequestInfo(path, method.lower(), query=query)


def _resource(method: str, path: str, query: Query, group: str, version: str, rest: list[str]) -> RequestInfo:
    verb = _VERBS.get(method, "")
    legacy_watch = rest[0] == "watch" and len(rest) > 1
    if legacy_watch:
        rest = rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    resource = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    tail = ""
    if subresource == "proxy":
        tail = path.partition(f"/{name}/proxy")[2]
    elif len(rest) > 3:
        subresource = "/".join(rest[2:])  # no such thing: dispatch answers 404
    info = RequestInfo(path, verb, True, group, version, resource, subresource, namespace, name, tail, query)
    if legacy_watch:
        info.verb = "watch"
        if name:
            info.query = {**query, "fieldSelector": [f"metadata.name={name}"]}
    elif not name:
        _collection_verb(info)
    return info


def _collection_verb(info: RequestInfo) -> None:
    """A collection is listed or watched; a list narrowed to one name counts as naming it (for resourceNames)."""
    if info.verb == "get":
        info.verb = "watch" if is_true(info.query.get("watch")) else "list"
    elif info.verb == "delete":
        info.verb = "deletecollection"
    if info.verb in ("list", "watch", "deletecollection"):
        for term in info.first("fieldSelector").split(","):
            key, _, value = term.partition("=")
            if key == "metadata.name" and value:
                info.name = value.removeprefix("=")
