"""Defaults of custom resources: those their definition's schema gives.

Source: API docs, "Extend the Kubernetes API with CustomResourceDefinitions", "Defaulting".
"""

from __future__ import annotations

from typing import Any

from sampan.api.copying import copied
from sampan.api.schema import Node


def schema_defaults(value: Any, node: Node) -> None:
    """Fill, in place, every absent property of `value` that has a default; then look inside, defaults included.

    A null counts as absent where null is not allowed.
    """
    if isinstance(value, dict):
        for key, child in node.properties.items():
            if child.has_default and (key not in value or (value[key] is None and not child.nullable)):
                value[key] = copied(child.default)
        for key, item in value.items():
            inner = node.properties.get(key, node.additional)
            if inner is None or not inner.custom:
                continue
            if item is None and inner.has_default and not inner.nullable:
                item = value[key] = copied(inner.default)  # a value of a map
            schema_defaults(item, inner)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            schema_defaults(item, node.items)
