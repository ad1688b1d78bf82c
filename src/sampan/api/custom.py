"""Objects of custom resources against their schema: defaults, and validation in the original's words.

Source: "Extend the Kubernetes API with CustomResourceDefinitions"; OpenAPI v3 as structural schemas restrict it.
"""

from __future__ import annotations

from typing import Any

from sampan.api import schema
from sampan.api.copying import copied
from sampan.api.registry import Resource
from sampan.api.schema import Node
from sampan.api.status import FieldError
from sampan.api.validate import custom as rules
from sampan.base.objects import Object

# (resource, version) -> (its definition, schema, revision before which objects may lack defaults)
_nodes: dict[tuple[str, str], tuple[Any, Node, int]] = {}


def schema_node(row: Resource) -> Node:
    """The schema of a custom row, compiled once for each state of its definition."""
    return _compiled_row(row)[1]


def default_since(row: Resource) -> int:
    """Objects stored before this revision may lack defaults that the definition gives now; 0 when it gives none."""
    return _compiled_row(row)[2]


def _compiled_row(row: Resource) -> tuple[Any, Node, int]:
    key = (row.name, row.version)
    kept = _nodes.get(key)
    if kept is not None and kept[0] is row.definition:
        return kept
    text = (version_of(row).get("schema") or {}).get("openAPIV3Schema")
    node = schema.from_openapi(text)
    node.gvk = (row.group, row.version, row.kind)
    version = (row.definition or {}).get("metadata", {}).get("resourceVersion") or "0"
    kept = _nodes[key] = (row.definition, node, int(version) if _has_defaults(node) else 0)
    return kept


def _has_defaults(node: Node) -> bool:
    children = [*node.properties.values(), *(n for n in (node.items, node.additional) if n is not None)]
    return any(child.has_default or (child.custom and _has_defaults(child)) for child in children)


def version_of(row: Resource) -> Object:
    """The entry of `spec.versions` that a row was made from."""
    for version in ((row.definition or {}).get("spec") or {}).get("versions") or ():
        if version.get("name") == row.version:
            return version
    return {}


def default_status(row: Resource, obj: Object) -> None:
    """A new object has no status of its sender's, but the one its schema gives (Gateway API: "Waiting for controller")."""
    node = schema_node(row).properties.get("status")
    if node is not None and node.has_default:
        obj["status"] = copied(node.default)
        apply_schema_defaults(obj["status"], node)


def apply_schema_defaults(value: Any, node: Node) -> None:
    """Fill in `default`s, also below values that are there. A null where null is not allowed counts as absent."""
    if isinstance(value, dict):
        for key, child in node.properties.items():
            if child.has_default and (key not in value or (value[key] is None and not child.nullable)):
                value[key] = copied(child.default)
            if key in value:
                apply_schema_defaults(value[key], child)
        if node.additional is not None:
            for key in list(value):
                if key not in node.properties:
                    if value[key] is None and node.additional.has_default and not node.additional.nullable:
                        value[key] = copied(node.additional.default)
                    apply_schema_defaults(value[key], node.additional)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            apply_schema_defaults(item, node.items)


def validate(row: Resource, obj: Object, old: Object | None, subresource: str = "") -> list[FieldError]:
    """What is wrong with an object of a custom resource (its metadata is checked elsewhere)."""
    node = schema_node(row)
    errors: list[FieldError] = []
    rules.check_object(errors, obj, node, subresource, old)
    if _has_rules(node):
        from sampan.api import cel  # takes 25 ms to load: only for those who use it

        errors += cel.validate_rules(node, obj, old, errors)
    return errors


_ruled: dict[int, tuple[Node, bool]] = {}  # by identity of the schema's root


def _has_rules(node: Node) -> bool:
    """Whether there are x-kubernetes-validations anywhere in a schema."""
    kept = _ruled.get(id(node))
    if kept is None or kept[0] is not node:
        if len(_ruled) > 1000:
            _ruled.clear()
        kept = _ruled[id(node)] = (node, _mentions_rules(node))
    return kept[1]


def _mentions_rules(node: Node) -> bool:
    children = [*node.properties.values(), *(n for n in (node.items, node.additional) if n is not None)]
    own = bool(node.raw.get("x-kubernetes-validations"))
    return own or any(child.custom and _mentions_rules(child) for child in children)
