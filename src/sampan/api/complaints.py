"""Where a value did not fit its schema, and what Go's decoder would have said: walked only when a request is refused
or warned of.

Clients show these sentences and some match on them. Source: the messages of encoding/json, time and encoding/base64,
as the API server answers them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sampan.api import quantity
from sampan.api.schema import Node
from sampan.api.wire import go_type

Fits = Callable[[Any, Node], bool]


class _Found(Exception):
    """Carries the first complaint out of the walk."""


def unknown_fields(obj: Any, node: Node) -> list[str]:
    """Paths of the fields that the schema lacks, e.g. `spec.containers[0].foo`, in the order of the document."""
    found: list[str] = []
    _find_unknown(obj, node, "", found)
    return found


def explain(obj: Any, node: Node, fits: Fits) -> str:
    """The first complaint that Go's decoder would have. `fits` tells whether a scalar fits its node."""
    try:
        _walk(obj, node, node.name.rpartition(".")[2] or node.gvk[2], (), fits)
    except _Found as found:
        return str(found)
    return "json: cannot be decoded"


def _find_unknown(value: Any, node: Node, path: str, found: list[str]) -> None:
    if isinstance(value, dict):
        if node.type not in ("object", "any"):
            return
        closed = bool(node.properties) if not node.custom else node.type == "object"
        for key, item in value.items():
            child = node.properties.get(key, node.additional)
            here = f"{path}.{key}" if path else key
            if child is not None:
                _find_unknown(item, child, here, found)
            elif closed and not node.preserve_unknown:
                found.append(here)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            _find_unknown(item, node.items, f"{path}[{index}]", found)


def _walk(value: Any, node: Node, struct: str, path: tuple[str, ...], fits: Fits) -> None:
    if value is None:
        return
    if node.custom and not isinstance(value, dict | list):
        return
    if node.type == "object" and isinstance(value, dict):
        inner = node.name.rpartition(".")[2] if node.properties and node.name else struct
        for key, item in value.items():
            child = node.properties.get(key)
            if child is not None:
                _walk(item, child, inner, (*path, key), fits)
            elif node.additional is not None:
                _walk(item, node.additional, inner, path, fits)
        return
    if node.type == "array" and isinstance(value, list):
        for item in value:
            _walk(item, node.items or Node(), struct, path, fits)
        return
    if node.custom:
        return
    if not fits(value, node):
        raise _Found(_complaint(value, node, struct, path))


def _complaint(value: Any, node: Node, struct: str, path: tuple[str, ...]) -> str:
    where = f"Go struct field {struct}.{'.'.join(path)}" if path else "Go value"
    kind = _go_value(value)
    if node.type == "quantity":
        try:
            quantity.parse(value if isinstance(value, str) else "?")
        except ValueError as error:
            return str(error)
    if node.type == "int-or-string":
        return f"json: cannot unmarshal {kind} into Go value of type int32"
    if node.format in ("date-time", "micro-time"):
        if not isinstance(value, str):
            return f"json: cannot unmarshal {kind} into Go value of type string"
        return time_error(value, micro=node.format == "micro-time")
    if node.format == "byte" and isinstance(value, str):
        return f"illegal base64 data at input byte {_bad_base64(value)}"
    return f"json: cannot unmarshal {kind} into {where} of type {_go_name(node)}"


def _go_value(value: Any) -> str:
    """A number that fits no integer is quoted; other values are named by type."""
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        text = "number"
        if isinstance(value, float) or not -(2**31) <= value < 2**31:
            text += f" {value!r}"
        return text
    return go_type(value)


def _go_name(node: Node) -> str:
    """The Go type of a field as its decoder names it."""
    if node.name and node.type == "object":
        *_, version, name = node.name.split(".")
        return f"{version}.{name}"
    match node.type:
        case "object":
            if node.additional is not None and node.additional.type == "quantity":
                return "v1.ResourceList"
            return f"map[string]{_go_name(node.additional) if node.additional else 'interface {}'}"
        case "array":
            return f"[]{_go_name(node.items) if node.items else 'interface {}'}"
        case "integer":
            return node.format or "int32"
        case "boolean":
            return "bool"
        case "number":
            return "float64"
    return "[]uint8" if node.format == "byte" else node.type


def _bad_base64(text: str) -> int:
    """The offset at which Go gives up."""
    for index, char in enumerate(text):
        if not re.match(r"[A-Za-z0-9+/\r\n]", char):
            return index
    return len(text) - len(text) % 4


_LAYOUT = (
    ("2006", r"\d{4}"),
    ("-", "-"),
    ("01", r"\d\d"),
    ("-", "-"),
    ("02", r"\d\d"),
    ("T", "T"),
    ("15", r"\d\d"),
    (":", ":"),
    ("04", r"\d\d"),
    (":", ":"),
    ("05", r"\d\d(\.\d+)?"),
    ("Z07:00", r"Z|[+-]\d\d:\d\d"),
)


def time_error(text: str, *, micro: bool = False) -> str:
    """What Go says of a text that is no RFC 3339 time."""
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    rest = text
    pieces = list(_LAYOUT)
    if micro:
        pieces[10:11] = [("05", r"\d\d"), (".000000", r"\.\d{6}")]
    for element, pattern in pieces:
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            return f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{element}"'
        rest = rest[match.end() :]
    if rest:
        return f'parsing time "{text}": extra text: "{rest}"'
    part = _out_of_range(text)
    return f'parsing time "{text}": {part} out of range'


def _out_of_range(text: str) -> str:
    month, hour, minute, second = int(text[5:7]), int(text[11:13]), int(text[14:16]), int(text[17:19])
    if not 1 <= month <= 12:
        return "month"
    if hour > 23:
        return "hour"
    if minute > 59:
        return "minute"
    return "second" if second > 59 else "day"
