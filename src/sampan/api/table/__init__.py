"""Tables: how `kubectl get` shows a kind, computed by the server. Source: meta/v1 Table, the reference's printers.

A kind's columns are one line of text and one function from an object to its cells. Columns whose name ends in `*` are
shown only by `-o wide` (priority 1); `:integer` and the like give a type other than string, `:name` the format that
marks an identifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.api.registry import Resource
from sampan.api.table import cluster, custom, devices, network, policy, storage, usage, workloads
from sampan.api.table.cells import Cells
from sampan.base.objects import Object

_KINDS: dict[str, tuple[str, Cells]] = {}
for _family in (workloads, network, storage, policy, cluster, devices, usage):
    _KINDS |= _family.COLUMNS

_FALLBACK = "Name|Created At:date"


def render(
    row: Resource, objects: Sequence[Object], now: float, *, include: str = "Metadata", headers: bool = True
) -> dict[str, Any]:
    """The Table of `objects` at the time `now`. `include` is Metadata, Object or None; `headers=False` leaves the
    column definitions out (all but the first event of a watch)."""
    columns, cells = columns_of(row)
    rows = [_row(obj, _cells(obj, now, cells, len(columns)), include) for obj in objects]
    table: dict[str, Any] = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}}
    table["columnDefinitions"] = columns if headers else []
    table["rows"] = rows
    return table


def _cells(obj: Object, now: float, cells: Cells, count: int) -> list[Any]:
    """The cells of an object; one that lacks what its kind must have does not hide the others."""
    try:
        return cells(obj, now)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return [obj.get("metadata", {}).get("name", ""), *["<invalid>"] * (count - 1)]


def columns_of(row: Resource) -> tuple[list[dict[str, Any]], Cells]:
    """The column definitions of a kind and the function that fills them."""
    if row.custom:
        return custom.columns(row)
    text, cells = _KINDS.get(row.store_key, (_FALLBACK, _created))
    return [_definition(part) for part in text.split("|")], cells


def _definition(text: str) -> dict[str, Any]:
    name, _, kind = text.partition(":")
    wide = name.endswith("*")
    name = name.rstrip("*")
    identifier = name == "Name" or kind == "name"
    return {
        "name": name,
        "type": "string" if identifier else kind or "string",
        "format": "name" if identifier else "",
        "description": "",
        "priority": 1 if wide else 0,
    }


def _row(obj: Object, cells: list[Any], include: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": cells}
    phase = obj.get("status", {}).get("phase") if obj.get("kind") == "Pod" else None
    if phase in _COMPLETED:
        row["conditions"] = [
            {"type": "Completed", "status": "True", "reason": phase, "message": _COMPLETED[phase]}
        ]
    if include == "None":
        row["object"] = None
    elif include == "Object":
        row["object"] = obj
    else:
        row["object"] = partial(obj)
    return row


_COMPLETED = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}


def partial(obj: Object) -> Object:
    """PartialObjectMetadata: an object's metadata alone."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj.get("metadata", {}),
    }


def _created(obj: Object, now: float) -> list[Any]:
    meta = obj.get("metadata", {})
    return [meta.get("name", ""), meta.get("creationTimestamp")]
