"""OpenAPI documents of what a server serves: one v3 document for each group version, one v2 document for all of it.

`kubectl explain` reads the schemas, `kubectl apply` looks here whether the server validates fields, code generators
read everything. Schemas come from `api.schema`'s data and from definitions of custom resources, paths from the rows of
the registry. Pure functions; documents are large (core/v1 is a megabyte), so callers build them off their event loop.
Source: the OpenAPI specifications 3.0 and 2.0; the reference's "OpenAPI specification" for the x-kubernetes names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sampan.api import openapi_custom, openapi_paths, schema
from sampan.api.registry import Resource
from sampan.base.objects import Object

V3_REF = "#/components/schemas/"
V2_REF = "#/definitions/"
_DATA_REF = "#/$defs/"
_BEARER = {"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer token"}

# Values whose JSON form is not what a struct would give.
_SPECIAL: dict[str, Object] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
}


def group_versions(rows: Iterable[Resource]) -> dict[str, list[Resource]]:
    """Rows by the path of their document below /openapi/v3: `api/v1`, `apis/apps/v1`."""
    found: dict[str, list[Resource]] = {}
    for row in rows:
        root = "apis" if row.group else "api"
        found.setdefault(f"{root}/{row.api_version}", []).append(row)
    return dict(sorted(found.items()))


def digest(rows: Iterable[Resource], version: str) -> str:
    """What identifies a document without building it: it changes whenever the document would."""
    text = hashlib.sha512(f"{version} {schema.VERSION}".encode())
    for row in rows:
        meta = (row.definition or {}).get("metadata") or {}
        said = (
            row.api_version,
            row.kind,
            row.plural,
            row.namespaced,
            row.list_kind,
            row.subresources,
            row.verbs,
        )
        text.update(repr((said, meta.get("uid"), meta.get("generation"))).encode())
    return text.hexdigest().upper()


def index(paths: Iterable[str], hashes: Mapping[str, str]) -> Object:
    """/openapi/v3 itself: where the documents are, each with a hash that makes its address eternal."""
    urls = {path: f"/openapi/v3/{path}?hash={hashes[path]}" for path in paths}
    return {"paths": {path: {"serverRelativeURL": url} for path, url in urls.items()}}


def document(rows: Iterable[Resource], version: str) -> Object:
    """The OpenAPI 3.0 document of the rows of one group version: their paths and the schemas these need."""
    rows = list(rows)
    schemas = _Schemas()
    for row in rows:
        if row.custom:
            schemas.add(openapi_custom.schemas(row))
    paths = openapi_paths.paths(rows)
    schemas.need(openapi_paths.roots(rows))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.found.items())),
            "securitySchemes": {"BearerToken": _BEARER},
        },
    }


def swagger(rows: Iterable[Resource], version: str, others: Iterable[Object] = ()) -> Object:
    """The OpenAPI 2.0 document of everything: the v3 documents, said in the older language.

    `others` are parts (`paths`, `definitions`) that other servers wrote; where both say something, we are right.
    """
    definitions: Object = {}
    paths: Object = {}
    for group in group_versions(rows).values():
        part = document(group, version)
        for path, item in part["paths"].items():
            paths[path] = openapi_paths.older(item, to_v2)
        for name, text in part["components"]["schemas"].items():
            if name not in definitions:
                definitions[name] = to_v2(text)
    for more in others:
        paths = more["paths"] | paths
        definitions = more["definitions"] | definitions
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": dict(sorted(definitions.items())),
        "securityDefinitions": {"BearerToken": _BEARER},
        "security": [{"BearerToken": []}],
    }


def referred(value: Any, definitions: Object) -> Object:
    """Those `definitions` of a v2 document that a value refers to, and what they refer to themselves."""
    found: Object = {}
    waiting = list(references(value))
    while waiting:
        name = waiting.pop().removeprefix(V2_REF)
        if name not in found and name in definitions:
            found[name] = definitions[name]
            waiting += references(definitions[name])
    return found


class _Schemas:
    """The component schemas a document needs, with all they refer to."""

    def __init__(self) -> None:
        self.found: Object = {}

    def add(self, made: Object) -> None:
        """Schemas that no data file has; what they refer to comes along."""
        self.found |= made
        for text in made.values():
            self.need(references(text))

    def need(self, names: Iterable[str]) -> None:
        waiting = [name for name in names if name not in self.found]
        definitions = schema.definitions()
        while waiting:
            name = waiting.pop()
            if name in self.found or name not in definitions:
                continue
            text = self.found[name] = _component(name, definitions[name])
            waiting += references(text)


def references(text: Any) -> Iterator[str]:
    """Names of the definitions that a v3 schema refers to."""
    if isinstance(text, dict):
        reference = text.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(V3_REF)
        for value in text.values():
            if isinstance(value, dict | list):
                yield from references(value)
    elif isinstance(text, list):
        for value in text:
            yield from references(value)


def _component(name: str, raw: Object) -> Object:
    special = _SPECIAL.get(name)
    if special is None:
        made = _to_v3(raw)
        if "x-kubernetes-group-version-kind" in made:
            for key in ("apiVersion", "kind"):  # the data says which value they have; the original does not
                made.get("properties", {}).get(key, {}).pop("enum", None)
        return made
    return {"description": raw["description"], **special} if "description" in raw else special


def _to_v3(raw: Object) -> Object:
    """A definition of the data as OpenAPI 3.0: references are not null-able there, nor are built-in types."""
    result: Object = {}
    for key, value in raw.items():
        if key == "type" and isinstance(value, list):
            result["type"] = next(kind for kind in value if kind != "null")
        elif key == "properties":
            result["properties"] = {name: _to_v3(text) for name, text in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            result[key] = _to_v3(value)
        elif key in ("oneOf", "anyOf", "allOf"):
            result[key] = [_to_v3(text) for text in value]
        elif key != "$ref":
            result[key] = value
    reference = raw.get("$ref")
    if reference is not None:
        link = {"$ref": V3_REF + reference.removeprefix(_DATA_REF)}
        if not result:
            return link
        result["allOf"] = [link]  # OpenAPI 3.0 ignores whatever stands beside a $ref
    return result


_GVK = "x-kubernetes-group-version-kind"

# What OpenAPI 2.0 has no words for.
_V3_ONLY = frozenset(("oneOf", "anyOf", "not", "nullable", "deprecated", "writeOnly", "allOf", "$ref"))


def to_v2(text: Object) -> Object:
    """A v3 schema as OpenAPI 2.0. A value that may be several things becomes a string or anything at all."""
    preserved = text.get("nullable") or text.get("x-kubernetes-preserve-unknown-fields")
    result: Object = {}
    if preserved and _GVK in text:  # kubectl would take the properties of a kind for all that it may have
        return {"type": "object", _GVK: text[_GVK]}
    for key, value in text.items():
        if key == "properties" and isinstance(value, dict):
            if not preserved:
                result[key] = {name: to_v2(child) for name, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            if not preserved or key != "items":
                result[key] = to_v2(value)
        elif key == "type" and preserved:
            continue
        elif key not in _V3_ONLY:
            result[key] = value
    links = [text, *text.get("allOf", ())]
    for link in links:
        if isinstance(link.get("$ref"), str):
            result["$ref"] = V2_REF + link["$ref"].removeprefix(V3_REF)
    if "oneOf" in text and "type" not in text and not preserved:
        result["type"] = "string"
    return result
