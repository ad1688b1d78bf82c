"""Columns of custom resources: what additionalPrinterColumns say, else name and age.

A cell whose value does not fit its column's type is null; strings take anything, as JSON. Source: the reference's
"Additional printer columns".
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from sampan.api import jsonpath
from sampan.api.registry import Resource
from sampan.api.table.cells import UNKNOWN, Cells, age, created, name
from sampan.base.objects import Object

_NAME = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}
_AGE = {"name": "Age", "type": "date", "format": "", "description": "", "priority": 0}


def columns(row: Resource) -> tuple[list[dict[str, Any]], Cells]:
    """Column definitions and cells of a custom resource's version."""
    versions = (row.definition or {}).get("spec", {}).get("versions") or []
    version: Object = next((v for v in versions if v.get("name") == row.version), {})
    declared = version.get("additionalPrinterColumns")
    if not declared:
        return [_NAME, _AGE], lambda obj, now: [name(obj), created(obj, now)]
    definitions = [_NAME]
    for column in declared:
        definitions.append(
            {
                "name": column["name"],
                "type": column["type"],
                "format": column.get("format", ""),
                "description": column.get("description", ""),
                "priority": column.get("priority", 0),
            }
        )
    paths = [(column["type"], jsonpath.parse(column["jsonPath"])) for column in declared]

    def cells(obj: Object, now: float) -> list[Any]:
        return [name(obj), *(_cell(kind, path, obj, now) for kind, path in paths)]

    return definitions, cells


def _cell(kind: str, path: jsonpath.Path, obj: Object, now: float) -> Any:
    found = jsonpath.find(obj, path)
    if not found:
        return None
    value = found[0]
    if kind == "integer":
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return int(value) if number else None
    if kind == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "date":
        return age(value, now) if isinstance(value, str) else "<invalid>" if value is not None else UNKNOWN
    if value is None:
        return None
    return value if isinstance(value, str) else orjson.dumps(value).decode()
