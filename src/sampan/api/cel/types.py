"""What an expression may be: CEL's types, and those of a custom resource from its schema.

A schema also says how its JSON becomes values: times, durations and bytes are text there, and lists may be sets.
Source: CEL specification, "Types"; API concepts, "Custom resource validation", table of schema and CEL types.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sampan.api.cel.values import (
    CelError,
    Duration,
    Made,
    MapList,
    Optional,
    SetList,
    Timestamp,
    TypeValue,
    UInt,
    parse_duration,
    parse_timestamp,
)
from sampan.api.schema import Node


class Type:
    """`kind` is dyn, null, bool, int, uint, double, string, bytes, timestamp, duration, type, list, map, optional,
    object, param, or the name of an opaque type. Objects have `fields` by their escaped name."""

    __slots__ = ("convert", "fields", "kind", "name", "node", "params")

    def __init__(self, kind: str, params: tuple[Type, ...] = (), name: str = "") -> None:
        self.kind, self.params, self.name = kind, params, name
        self.fields: dict[str, Field] = {}
        self.convert: Callable[[Any], Any] | None = None  # from JSON; None when JSON is the value
        self.node: Node | None = None

    def __str__(self) -> str:
        if self.kind in ("list", "map", "type") and self.params:
            return f"{self.kind}({', '.join(map(str, self.params))})"
        if self.kind == "optional":
            return f"optional_type({self.params[0]})"
        return self.name or self.kind

    def __repr__(self) -> str:
        return f"Type({self})"


class Field:
    """A property: its name in JSON and its type."""

    __slots__ = ("key", "type")

    def __init__(self, key: str, type: Type) -> None:
        self.key, self.type = key, type


DYN, NULL, BOOL, INT, UINT, DOUBLE = map(Type, ("dyn", "null", "bool", "int", "uint", "double"))
STRING, BYTES, TIMESTAMP, DURATION, TYPE = map(Type, ("string", "bytes", "timestamp", "duration", "type"))
_PLAIN = {t.kind: t for t in (DYN, NULL, BOOL, INT, UINT, DOUBLE, STRING, BYTES, TIMESTAMP, DURATION, TYPE)}


@lru_cache(maxsize=512)
def list_of(item: Type) -> Type:
    return Type("list", (item,))


@lru_cache(maxsize=512)
def map_of(key: Type, value: Type) -> Type:
    return Type("map", (key, value))


@lru_cache(maxsize=512)
def optional_of(item: Type) -> Type:
    return Type("optional", (item,))


def object_of(name: str, fields: dict[str, Type]) -> Type:
    """A declared object with these fields."""
    made = Type("object", name=name)
    made.fields = {key: Field(key, kind) for key, kind in fields.items()}
    return made


KINDS: dict[type, str] = {
    bool: "bool",
    int: "int",
    UInt: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    SetList: "list",
    MapList: "list",
    dict: "map",
    Made: "object",
    type(None): "null",
    Timestamp: "timestamp",
    Duration: "duration",
    Optional: "optional",
    TypeValue: "type",
}


@lru_cache(maxsize=512)
def read(text: str) -> Type:
    """A type as declarations write it: int, list<A>, map<string, dyn>, optional<A>, net.IP."""
    text = text.strip()
    head, _, inner = text.partition("<")
    if inner:
        params = tuple(read(part) for part in split(inner[:-1]))
        return {"list": list_of, "map": map_of, "optional": optional_of}[head](*params)
    if text in _PLAIN:
        return _PLAIN[text]
    return Type("param", name=text) if len(text) == 1 else Type(text, name=text)


def split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth, last = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "<") - (char == ">")
        if char == "," and not depth:
            parts.append(text[last:i])
            last = i + 1
    return [*parts, text[last:]] if text.strip() else []


def assignable(wanted: Type, given: Type, bound: dict[str, Type]) -> bool:
    """Whether `given` may stand where `wanted` does; type parameters are bound on the way."""
    kind = wanted.kind
    if kind == "param":
        known = bound.get(wanted.name)
        if known is None or known.kind == "dyn" or (known.kind == "null" and given.kind != "dyn"):
            bound[wanted.name] = given
            return True
        return assignable(known, given, bound)
    if kind == "dyn" or given.kind == "dyn":
        return True
    if given.kind == "param":  # the item of an empty list
        return True
    if kind == "object":
        return wanted is given or (given.kind == "object" and wanted.node is given.node is not None)
    if kind == "map" and given.kind == "object":
        return False
    if kind != given.kind:
        return given.kind == "null" and kind in ("timestamp", "duration", "object")
    if kind == "type":
        return True
    return all(assignable(w, g, bound) for w, g in zip(wanted.params, given.params, strict=False))


def resolve(kind: Type, bound: dict[str, Type]) -> Type:
    """With type parameters replaced by what they were bound to."""
    if kind.kind == "param":
        return bound.get(kind.name, DYN)
    if not kind.params:
        return kind
    return {"list": list_of, "map": map_of, "optional": optional_of}.get(kind.kind, lambda *_: kind)(
        *(resolve(p, bound) for p in kind.params)
    )


def join(a: Type, b: Type) -> Type:
    """The type of a value that is one or the other: theirs, or dyn."""
    if a.kind == "dyn" or b.kind == "dyn":
        return DYN
    if a.kind == "null" and b.kind != "null":
        return b if b.kind in ("timestamp", "duration", "object") else DYN
    return a if assignable(a, b, {}) else DYN


# Names

_RESERVED = frozenset(
    "true false null in as break const continue else for function if import let loop package namespace return "
    "var void while".split()
)
_PARTS = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_NAME = re.compile(r"[a-zA-Z_]([a-zA-Z0-9_.\-/])*")


def escape(name: str) -> str | None:
    """A property's name in expressions; None when it has none."""
    if not _NAME.fullmatch(name):
        return None
    if name in _RESERVED:
        return f"__{name}__"
    return re.sub(r"__|[.\-/]", lambda m: _PARTS[m[0]], name)


# From schemas


def declared(node: Node, *, root: bool = False) -> Type | None:
    """The type of a schema; None where it says too little (its values then have no name in expressions)."""
    if id(node) in _open:  # a schema that contains itself
        return DYN
    _open.add(id(node))
    try:
        return _declared(node, root)
    finally:
        _open.discard(id(node))


_open: set[int] = set()


def _declared(node: Node, root: bool) -> Type | None:
    match node.type:
        case "int-or-string":
            return DYN
        case "array":
            return _array(node)
        case "object":
            return _object(node, root or node.embedded)
        case "string":
            return _string(node)
        case "integer":
            return INT
        case "number":
            return _NUMBER
        case "boolean":
            return BOOL
    return _object(node, True) if node.embedded else None


def _made(kind: str, params: tuple[Type, ...], node: Node) -> Type:
    made = Type(kind, params)
    made.node = node
    return made


def _string(node: Node) -> Type:
    match node.format or node.raw.get("format", ""):
        case "byte":
            return _BYTES
        case "duration":
            return _DURATION
        case "date-time":
            return _TIMESTAMP
        case "date":
            return _DATE
    return STRING


_NUMBER = Type("double")
_NUMBER.convert = lambda value: float(value) if type(value) is int else value


def _reading(kind: Type, function: Callable[[str], Any]) -> Type:
    made = Type(kind.kind)

    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return function(value)
        except ValueError as error:
            raise CelError(f"Invalid {kind.kind}: {error}") from None

    made.convert = convert
    return made


_BYTES = _reading(BYTES, lambda text: base64.b64decode(text))
_DURATION = _reading(DURATION, parse_duration)
_TIMESTAMP = _reading(TIMESTAMP, parse_timestamp)
_DATE = _reading(TIMESTAMP, lambda text: parse_timestamp(f"{text}T00:00:00Z"))


def _array(node: Node) -> Type | None:
    item = declared(node.items) if node.items is not None else None
    if item is None:
        return None
    made = _made("list", (item,), node)
    change, kind, keys = item.convert, node.list_type, node.map_keys
    if kind == "set":
        made.convert = lambda value: (
            SetList(map(change, value) if change else value) if isinstance(value, list) else value
        )
    elif kind == "map":
        made.convert = lambda value: (
            MapList(map(change, value) if change else value, keys) if isinstance(value, list) else value
        )
    elif change is not None:
        made.convert = lambda value: [change(v) for v in value] if isinstance(value, list) else value
    return made


def _object(node: Node, identified: bool) -> Type | None:
    if node.additional is not None and node.raw.get("additionalProperties") is not True:
        value = declared(node.additional)
        if value is None:
            return None
        made = _made("map", (STRING, value), node)
        change = value.convert
        if change is not None:
            made.convert = lambda obj: (
                {k: change(v) for k, v in obj.items()} if isinstance(obj, dict) else obj
            )
        return made
    made = _made("object", (), node)
    made.name = "object"
    for key, child in node.properties.items():
        if identified and key in ("apiVersion", "kind", "metadata"):
            continue
        kind, name = declared(child), escape(key)
        if kind is not None and name is not None:
            made.fields[name] = Field(key, kind)
    if identified:
        made.fields["apiVersion"] = Field("apiVersion", STRING)
        made.fields["kind"] = Field("kind", STRING)
        made.fields["metadata"] = Field("metadata", METADATA)
    changes = {f.key: f.type.convert for f in made.fields.values() if f.type.convert is not None}
    if changes:
        made.convert = _members(changes)
    return made


def _members(changes: dict[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Only what needs it is made anew; the rest of the object is shared."""

    def convert(obj: Any) -> Any:
        if not isinstance(obj, dict):
            return obj
        result = obj
        for key, change in changes.items():
            value = obj.get(key)
            if value is not None:
                made = change(value)
                if made is not value:
                    if result is obj:
                        result = dict(obj)
                    result[key] = made
        return result

    return convert


METADATA = object_of("object", {"name": STRING, "generateName": STRING})
