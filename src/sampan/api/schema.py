"""The schema is data: what fields every kind has, and how its lists and maps merge.

Built-in kinds come from the definitions that the `kubernetes-validate` package ships (their OpenAPI, null-able types
undone here); custom resources from their definition. Both become one tree of `Node`, which decoding, defaulting,
patching and server-side apply walk.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from sampan.api import metrics_schema
from sampan.api.registry import Resource

VERSION = "1.37"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_REF = "#/$defs/"

# Definitions whose JSON form is not what their schema says: (type, format).
_SPECIAL: dict[str, tuple[str, str]] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ("quantity", ""),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ("int-or-string", "int-or-string"),
    _META + "Time": ("string", "date-time"),
    _META + "MicroTime": ("string", "micro-time"),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": ("any", ""),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": ("any", ""),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": ("any", ""),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": ("any", ""),
}


class Node:
    """One place in a schema. Absent attributes are empty; `raw` is the schema text it was made from.

    `type` is one of object, array, string, integer, number, boolean, any, int-or-string, quantity.
    `format` adds to OpenAPI's: date-time (whole seconds), micro-time, byte, int32, int64.
    """

    __slots__ = (
        "additional",
        "compiled",
        "custom",
        "default",
        "embedded",
        "enum",
        "format",
        "gvk",
        "has_default",
        "items",
        "list_type",
        "map_keys",
        "map_type",
        "merge_key",
        "name",
        "nullable",
        "patch_strategy",
        "preserve_unknown",
        "properties",
        "raw",
        "required",
        "type",
    )

    def __init__(self, type: str = "any", **given: Any) -> None:
        self.type = type
        self.properties: dict[str, Node] = {}
        self.additional: Node | None = None
        self.items: Node | None = None
        self.required: tuple[str, ...] = ()
        self.list_type = ""
        self.map_keys: tuple[str, ...] = ()
        self.map_type = ""
        self.patch_strategy: tuple[str, ...] = ()
        self.merge_key = ""
        self.format = ""
        self.nullable = False
        self.enum: tuple[Any, ...] = ()
        self.default: Any = None
        self.has_default = False
        self.preserve_unknown = False
        self.embedded = False
        self.name = ""  # of the definition, e.g. io.k8s.api.core.v1.PodSpec
        self.gvk: tuple[str, str, str] = ("", "", "")  # of a root
        self.custom = False  # of a custom resource: its types are checked by validation, not by decoding
        self.raw: dict[str, Any] = {}
        self.compiled: Any = None  # what `api.fields` made of it
        for attribute, value in given.items():
            setattr(self, attribute, value)

    @property
    def description(self) -> str:
        return self.raw.get("description") or ""

    def copy(self) -> Node:
        """A shallow copy: children are shared."""
        twin = Node.__new__(Node)
        for slot in Node.__slots__:
            setattr(twin, slot, getattr(self, slot))
        twin.compiled = None
        return twin

    def child(self, key: str) -> Node | None:
        """The schema of the value under `key`: a property's, or that of any value of a map."""
        return self.properties.get(key) or self.additional

    def __repr__(self) -> str:
        return f"Node({self.name or self.type})"


def _directory() -> Path:
    """Where the definitions lie; the package itself is not imported (it would load a validator we don't use)."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the kubernetes-validate package is not installed")
    root = Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema"
    found = sorted(
        (d for d in root.glob("v1.*-local")),
        key=lambda d: tuple(map(int, re.findall(r"\d+", d.name))),
    )
    exact = [d for d in found if d.name.startswith(f"v{VERSION}.")]
    return (exact or found)[-1]


@lru_cache(maxsize=1)
def definitions() -> dict[str, dict[str, Any]]:
    """Every OpenAPI definition by name. Shared: do not change it."""
    document = orjson.loads((_directory() / "_definitions.json").read_bytes())
    return document["$defs"] | metrics_schema.DEFINITIONS


@lru_cache(maxsize=1)
def _by_kind() -> dict[tuple[str, str, str], str]:
    found: dict[tuple[str, str, str], str] = {}
    for name, definition in definitions().items():
        for gvk in definition.get("x-kubernetes-group-version-kind", ()):
            found[gvk["group"], gvk["version"], gvk["kind"]] = name
    return found


def definition_name(group: str, version: str, kind: str) -> str:
    """e.g. io.k8s.api.core.v1.Pod; empty when there is none."""
    return _by_kind().get((group, version, kind), "")


@lru_cache(maxsize=1024)
def root(group: str, version: str, kind: str) -> Node | None:
    """The schema of a built-in kind (also of bodies that are not resources: DeleteOptions, Scale), or None."""
    name = definition_name(group, version, kind)
    if not name:
        return None
    node = definition(name).copy()
    node.gvk = (group, version, kind)
    return node


_nodes: dict[str, Node] = {}


def definition(name: str) -> Node:
    """The schema of a definition by name. Nodes are shared and made once. Raises KeyError."""
    node = _nodes.get(name)
    if node is None:
        node = _nodes[name] = Node()
        raw = definitions()[name]
        node.name = name
        _fill(node, raw)
        special = _SPECIAL.get(name)
        if special:
            node.type, node.format = special
        elif node.type == "object" and not node.properties and node.additional is None:
            node.preserve_unknown = True  # RawExtension, FieldsV1
    return node


def _fill(node: Node, raw: dict[str, Any]) -> None:
    """Read a definition's text into `node`. Children refer to `node` itself where a kind is recursive."""
    _annotate(node, raw)
    kind = raw.get("type", "any")
    if isinstance(kind, list):
        kind = next(k for k in kind if k != "null")
    node.type = kind
    node.format = raw.get("format", "")
    node.required = tuple(raw.get("required", ()))
    if isinstance(raw.get("additionalProperties"), dict):
        node.additional = _at(raw["additionalProperties"])
    if "items" in raw:
        node.items = _at(raw["items"])
    for key, text in raw.get("properties", {}).items():
        node.properties[key] = _at(text)


def _annotate(node: Node, raw: dict[str, Any]) -> None:
    """What may stand beside a $ref: how the value merges, which values it may have."""
    node.raw = raw
    node.list_type = raw.get("x-kubernetes-list-type", node.list_type)
    node.map_keys = tuple(raw.get("x-kubernetes-list-map-keys", node.map_keys))
    node.map_type = raw.get("x-kubernetes-map-type", node.map_type)
    if "x-kubernetes-patch-strategy" in raw:
        node.patch_strategy = tuple(raw["x-kubernetes-patch-strategy"].split(","))
    node.merge_key = raw.get("x-kubernetes-patch-merge-key", node.merge_key)
    node.enum = tuple(raw.get("enum", node.enum))


_SITE = {
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-patch-merge-key",
}


def _at(raw: dict[str, Any]) -> Node:
    """The node of one use: of a definition as it is, or a copy that carries what stands beside the reference."""
    reference = raw.get("$ref")
    if reference is None:
        node = Node()
        _fill(node, raw)
        if node.type == "object" and node.additional is None and not node.properties:
            node.preserve_unknown = True
        return node
    target = definition(reference[len(_REF) :])
    if not _SITE & raw.keys():
        return target
    node = target.copy()  # `properties` is shared, and so complete even if `target` is still being read
    _annotate(node, raw)
    return node


def child_of(node: Node | None, key: str) -> Node | None:
    """The place of a map's entry; None where no schema says anything."""
    if node is None:
        return None
    return node.properties.get(key) or node.additional


# Custom resources


def from_openapi(schema: dict[str, Any] | None) -> Node:
    """The schema of a custom resource from a definition's `openAPIV3Schema` (structural; None preserves everything).

    apiVersion, kind and metadata are the API's own, whatever the definition says of them.
    """
    node = _custom(schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    node.type = "object"
    _add_identity(node)
    return node


_custom_roots: dict[tuple[str, str, str], tuple[Any, Node | None]] = {}


def for_row(row: Resource) -> Node | None:
    """The schema of a served resource, built in or custom; made once for each definition object."""
    if not row.custom:
        return root(row.group, row.version, row.kind)
    key = (row.group, row.version, row.plural)
    known = _custom_roots.get(key)
    if known is None or known[0] is not row.definition:
        known = _custom_roots[key] = (row.definition, _version_root(row))
    return known[1]


def _version_root(row: Resource) -> Node | None:
    for version in ((row.definition or {}).get("spec") or {}).get("versions", ()):
        if version.get("name") == row.version:
            node = from_openapi((version.get("schema") or {}).get("openAPIV3Schema"))
            node.gvk = (row.group, row.version, row.kind)
            node.name = row.kind
            return node
    return None


def from_part(raw: dict[str, Any]) -> Node:
    """The schema of a part of a custom resource's: what stands in allOf, anyOf, oneOf or not."""
    return _custom(raw)


def _add_identity(node: Node) -> None:
    node.properties = dict(node.properties)
    node.properties["apiVersion"] = Node("string", custom=True)
    node.properties["kind"] = Node("string", custom=True)
    node.properties["metadata"] = definition(_META + "ObjectMeta")


def _custom(raw: dict[str, Any]) -> Node:
    node = Node(raw.get("type") or "any", custom=True, raw=raw)
    if raw.get("x-kubernetes-int-or-string"):
        node.type = "int-or-string"
    node.format = raw.get("format", "")
    node.nullable = bool(raw.get("nullable"))
    node.preserve_unknown = bool(raw.get("x-kubernetes-preserve-unknown-fields"))
    node.embedded = bool(raw.get("x-kubernetes-embedded-resource"))
    node.required = tuple(raw.get("required") or ())
    node.enum = tuple(raw.get("enum") or ())
    node.list_type = raw.get("x-kubernetes-list-type") or ""
    node.map_keys = tuple(raw.get("x-kubernetes-list-map-keys") or ())
    node.map_type = raw.get("x-kubernetes-map-type") or ""
    if raw.get("default") is not None:
        node.default, node.has_default = raw["default"], True
    node.properties = {key: _custom(text) for key, text in (raw.get("properties") or {}).items()}
    additional = raw.get("additionalProperties")
    if isinstance(additional, dict):
        node.additional = _custom(additional)
    elif additional is True:
        node.additional = Node(custom=True, preserve_unknown=True)
    if isinstance(raw.get("items"), dict):
        node.items = _custom(raw["items"])
    if node.embedded:
        _add_identity(node)
    return node
