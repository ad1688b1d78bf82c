"""The paths of OpenAPI documents: which operations a row of the registry has, with their parameters and bodies.

kubectl asks here whether PATCH of a kind knows `fieldValidation` and `dryRun`; `kubectl explain` finds the kind of a
resource by its path; code generators name their methods by `operationId`. Source: API concepts, and the API
reference's operations and their parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sampan.api import openapi_custom, schema
from sampan.api.registry import Resource
from sampan.api.resources import Subresource, subresource
from sampan.base.objects import Object

_REF = "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_MEDIA = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_STREAMS = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


def _query(name: str, kind: str, text: str) -> Object:
    return {"name": name, "in": "query", "description": text, "schema": {"type": kind, "uniqueItems": True}}


def _in_path(name: str, text: str) -> Object:
    return {
        "name": name,
        "in": "path",
        "description": text,
        "required": True,
        "schema": {"type": "string", "uniqueItems": True},
    }


_PRETTY = _query("pretty", "string", "Whether the answer is indented for people to read.")
_NAMESPACE = _in_path("namespace", "The namespace of the object, which also scopes authorization.")
_PROXY_PATH = _in_path("path", "What to ask of the other side.")

_DRY_RUN = _query("dryRun", "string", "`All` carries out every step except storing.")
_MANAGER = _query("fieldManager", "string", "The name under which changes of fields are recorded.")
_VALIDATION = _query(
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: `Ignore`, `Warn` (the default) or `Strict`.",
)
_FORCE = _query("force", "boolean", "Apply takes fields from other managers instead of conflicting.")
_WRITE = [_DRY_RUN, _MANAGER, _VALIDATION]
_LIST = [
    _query("allowWatchBookmarks", "boolean", "A watch also sends BOOKMARK events with the revision reached."),
    _query("continue", "string", "Where the page before ended, as its metadata said."),
    _query("fieldSelector", "string", "Only objects whose fields match."),
    _query("labelSelector", "string", "Only objects whose labels match."),
    _query("limit", "integer", "The most objects to answer in one page."),
    _query("resourceVersion", "string", "The revision to read from; 0 is any."),
    _query("resourceVersionMatch", "string", "How `resourceVersion` binds a list: Exact or NotOlderThan."),
    _query("sendInitialEvents", "boolean", "A watch begins with what exists, then a bookmark."),
    _query("timeoutSeconds", "integer", "How long a list or watch may last."),
    _query("watch", "boolean", "Send changes as they happen instead of a list."),
]
_DELETE = [
    _DRY_RUN,
    _query("gracePeriodSeconds", "integer", "Seconds before the object is deleted; 0 is at once."),
    _query(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete an object that cannot be read any more.",
    ),
    _query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    _query("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
]
_LOG = [
    _query("container", "string", "Which container; needed when the pod has several."),
    _query("follow", "boolean", "Keep sending as the container writes."),
    _query("insecureSkipTLSVerifyBackend", "boolean", "Do not check the certificate of the node."),
    _query("limitBytes", "integer", "The most bytes to send."),
    _query("previous", "boolean", "The log of the instance that ended before this one."),
    _query("sinceSeconds", "integer", "Only lines younger than this."),
    _query("stream", "string", "All, Stdout or Stderr."),
    _query("tailLines", "integer", "Only this many lines from the end."),
    _query("timestamps", "boolean", "Begin each line with its time."),
]
_EXEC = [
    _query("command", "string", "The command, one parameter an argument; no shell."),
    _query("container", "string", "Which container; needed when the pod has several."),
    _query("stderr", "boolean", "Connect the standard error."),
    _query("stdin", "boolean", "Connect the standard input."),
    _query("stdout", "boolean", "Connect the standard output."),
    _query("tty", "boolean", "Give the command a terminal."),
]
_CONNECT: dict[str, list[Object]] = {
    "exec": _EXEC,
    "attach": _EXEC[1:],
    "portforward": [_query("ports", "integer", "Ports to forward.")],
    "proxy": [_query("path", "string", "What to ask of the other side.")],
}

_METHODS = {"get": "Get", "post": "Post", "put": "Put", "delete": "Delete", "patch": "Patch"}
_VERB_METHODS = {"get": "get", "create": "post", "update": "put", "delete": "delete", "patch": "patch"}


def paths(rows: Iterable[Resource]) -> Object:
    """Path items of OpenAPI 3.0 for the rows of one group version, by path."""
    found: Object = {}
    for row in rows:
        found |= _Row(row).paths()
    return dict(sorted(found.items()))


def roots(rows: Iterable[Resource]) -> set[str]:
    """Names of the component schemas that the operations of rows refer to."""
    names = {_META + kind for kind in ("Patch", "Status", "DeleteOptions", "WatchEvent")}
    for row in rows:
        if not row.custom:
            names |= {_component(row, row.kind), _component(row, row.list_kind)}
        for sub in row.subresources:
            described = subresource(row, sub)
            names.add(schema.definition_name(described.group, described.version, described.kind))
    return names - {""}


def older(item: Object, to_v2: Callable[[Object], Object]) -> Object:
    """A path item in the words of OpenAPI 2.0. Schemas are translated by `to_v2`."""
    result: Object = {}
    for key, value in item.items():
        if key == "parameters":
            result[key] = [_older_parameter(p) for p in value]
        else:
            result[key] = _older_operation(value, to_v2)
    return result


def _older_parameter(parameter: Object) -> Object:
    return {k: v for k, v in parameter.items() if k != "schema"} | parameter["schema"]


def _older_operation(operation: Object, to_v2: Callable[[Object], Object]) -> Object:
    result = {k: v for k, v in operation.items() if k != "requestBody"}
    parameters = [_older_parameter(p) for p in operation.get("parameters", ())]
    if "requestBody" in operation:
        body = operation["requestBody"]
        content = body["content"]
        wanted = next(iter(content.values()))["schema"]
        result["consumes"] = list(content)
        entry = {"name": "body", "in": "body", "schema": to_v2(wanted)}
        parameters.insert(0, entry | ({"required": True} if body.get("required") else {}))
    if parameters:
        result["parameters"] = parameters
    responses: Object = {}
    for code, response in operation["responses"].items():
        content = response.get("content") or {}
        responses[code] = {"description": response["description"]}
        if content:
            responses[code]["schema"] = to_v2(next(iter(content.values()))["schema"])
            result["produces"] = list(content)
    result["responses"] = responses
    return result


def _component(row: Resource, kind: str) -> str:
    if not kind:
        return ""
    return (
        openapi_custom.name(row, kind) if row.custom else schema.definition_name(row.group, row.version, kind)
    )


def _ref(name: str) -> Object:
    return {"$ref": _REF + name} if name else {"type": "string"}


def _body(name: str, media: tuple[str, ...] = ("*/*",), *, required: bool = True) -> Object:
    body: Object = {"content": {kind: {"schema": _ref(name)} for kind in media}}
    return body | {"required": True} if required else body


def _answers(name: str, *codes: int, media: tuple[str, ...] = _MEDIA) -> Object:
    texts = {200: "OK", 201: "Created", 202: "Accepted"}
    answers: Object = {
        str(code): {
            "description": texts[code],
            "content": {kind: {"schema": _ref(name)} for kind in media},
        }
        for code in codes
    }
    return answers | {"401": {"description": "Unauthorized"}}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class _Row:
    """The path items of one row."""

    def __init__(self, row: Resource) -> None:
        self.row = row
        group = (row.group or "core").removesuffix(".k8s.io")
        words = group.split(".")
        self.tag = words[0] + "".join(map(_capital, words[1:])) + f"_{row.version}"
        self.group = "".join(map(_capital, words)) + _capital(row.version)
        self.scope = "Namespaced" if row.namespaced else ""
        self.component = _component(row, row.kind)
        self.media = _MEDIA[:2] if row.custom else _MEDIA

    def paths(self) -> Object:
        row = self.row
        outer = [_PRETTY] + ([_NAMESPACE] if row.namespaced else [])
        named = [_in_path("name", f"The name of the {row.kind}."), *outer]
        found: Object = {}

        def put(path: str, parameters: list[Object], operations: Object) -> None:
            if operations:
                found[path] = operations | {"parameters": parameters}

        namespace = "{namespace}"
        if row.namespaced:
            put(row.path(), [_PRETTY], self._across())
        put(row.path(namespace), outer, self._collection())
        put(row.path(namespace, "{name}"), named, self._object())
        for name in row.subresources:
            sub = subresource(row, name)
            path = row.path(namespace, "{name}", name)
            if name in _CONNECT and not row.custom:
                put(path, [*named, *_CONNECT[name]], self._connect(sub))
                if name == "proxy":
                    put(path + "/{path}", [*named, _PROXY_PATH], self._connect(sub, "WithPath"))
            else:
                put(path, named, self._subresource(sub))
        return found

    def _operation(self, action: str, name: str, text: str, **more: Any) -> Object:
        gvk = more.pop("gvk", None) or (self.row.group, self.row.version, self.row.kind)
        return {
            "tags": [self.tag],
            "description": text,
            "operationId": name,
            **{key: value for key, value in more.items() if value},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": dict(zip(("group", "version", "kind"), gvk, strict=True)),
        }

    def _list(self, name: str) -> Object:
        listed = _component(self.row, self.row.list_kind)
        return self._operation(
            "list",
            name,
            f"List or watch objects of kind {self.row.kind}.",
            parameters=_LIST,
            responses=_answers(listed, 200, media=(*self.media, *_STREAMS)),
        )

    def _across(self) -> Object:
        """A namespaced collection over all namespaces."""
        row = self.row
        found: Object = {}
        if "list" in row.verbs:
            found["get"] = self._list(f"list{self.group}{row.kind}ForAllNamespaces")
        return found

    def _collection(self) -> Object:
        row = self.row
        subject = f"{self.group}{self.scope}{row.kind}"
        found: Object = {}
        if "list" in row.verbs:
            found["get"] = self._list(f"list{subject}")
        if "create" in row.verbs:
            found["post"] = self._operation(
                "post",
                f"create{subject}",
                f"Create an object of kind {row.kind}.",
                parameters=_WRITE,
                requestBody=_body(self.component),
                responses=_answers(self.component, 200, 201, 202, media=self.media),
            )
        if "deletecollection" in row.verbs:
            selection = [p for p in _LIST if p["name"] not in ("watch", "allowWatchBookmarks")]
            found["delete"] = self._operation(
                "deletecollection",
                f"delete{self.group}Collection{self.scope}{row.kind}",
                f"Delete all selected objects of kind {row.kind}.",
                parameters=[*_DELETE, *selection],
                requestBody=_body(_META + "DeleteOptions", required=False),
                responses=_answers(_META + "Status", 200, media=self.media),
            )
        return found

    def _object(self) -> Object:
        row = self.row
        subject = f"{self.group}{self.scope}{row.kind}"
        found = self._read_and_write(row.verbs, subject, self.component, f"the {row.kind} of that name", None)
        if "delete" in row.verbs:
            found["delete"] = self._operation(
                "delete",
                f"delete{subject}",
                f"Delete the {row.kind} of that name.",
                parameters=_DELETE,
                requestBody=_body(_META + "DeleteOptions", required=False),
                responses=_answers(_META + "Status", 200, 202, media=self.media),
            )
        return found

    def _read_and_write(
        self, verbs: Iterable[str], subject: str, component: str, what: str, gvk: tuple[str, str, str] | None
    ) -> Object:
        """GET, PUT and PATCH of an object or of a part of it."""
        media = self.media
        found: Object = {}
        if "get" in verbs:
            found["get"] = self._operation(
                "get",
                f"read{subject}",
                f"Read {what}.",
                responses=_answers(component, 200, media=media),
                gvk=gvk,
            )
        if "update" in verbs:
            found["put"] = self._operation(
                "put",
                f"replace{subject}",
                f"Replace {what}.",
                parameters=_WRITE,
                requestBody=_body(component),
                responses=_answers(component, 200, 201, media=media),
                gvk=gvk,
            )
        if "patch" in verbs:
            found["patch"] = self._operation(
                "patch",
                f"patch{subject}",
                f"Change a part of {what}.",
                parameters=[*_WRITE, _FORCE],
                requestBody=_body(_META + "Patch", _PATCHES[:3] if self.row.custom else _PATCHES),
                responses=_answers(component, 200, 201, media=media),
                gvk=gvk,
            )
        return found

    def _subresource(self, sub: Subresource) -> Object:
        row = self.row
        subject = f"{self.group}{self.scope}{row.kind}{_capital(sub.name)}"
        same = (sub.group, sub.version) == (row.group, row.version)
        component = _component(row, sub.kind) if same else ""
        component = component or schema.definition_name(sub.group, sub.version, sub.kind)
        gvk = (sub.group, sub.version, sub.kind)
        what = f"{sub.name} of the {row.kind} of that name"
        if sub.name == "log":
            answer = _answers("", 200, media=("text/plain", *_MEDIA))
            read = self._operation(
                "get", f"read{subject}", f"Read {what}.", parameters=_LOG, responses=answer
            )
            return {"get": read}
        found = self._read_and_write(sub.verbs, subject, component, what, gvk)
        if "create" in sub.verbs:
            found["post"] = self._operation(
                "post",
                f"create{subject}",
                f"Create {what}.",
                parameters=_WRITE,
                requestBody=_body(component),
                responses=_answers(component, 200, 201, 202, media=self.media),
                gvk=gvk,
            )
        return found

    def _connect(self, sub: Subresource, suffix: str = "") -> Object:
        """Streams: no body that a schema could describe."""
        row = self.row
        found: Object = {}
        for verb in sub.verbs:
            method = _VERB_METHODS[verb]
            name = f"connect{self.group}{_METHODS[method]}{self.scope}{row.kind}{_capital(sub.name)}{suffix}"
            found[method] = self._operation(
                "connect",
                name,
                f"Connect to {sub.name} of the {row.kind} of that name.",
                responses=_answers("", 200, media=("*/*",)),
                gvk=(sub.group, sub.version, sub.kind),
            )
        return found
