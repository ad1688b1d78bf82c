"""Protobuf bodies of built-in kinds become plain JSON values; one table of field numbers does it for all of them.

kubectl and operators post `application/vnd.kubernetes.protobuf` for several commands and do not fall back. The table,
`protobuf.json`, has for each message its fields: "NUMBER name TYPE", where TYPE is s string, b bool, i int, u unsigned,
y bytes, d double, m MESSAGE; before it `*` makes a list, `{` a map from string; `~` is a message whose fields belong to
the one around it. The numbers are facts of the published API types.

The encoder on the other side writes zero values too, since it cannot tell unset from zero; what JSON would have left
out is left out here as well. `?` before a type marks fields where a zero is meant (pointers in the original's types,
and those that its JSON always shows).
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from sampan.api.status import ApiError, bad_request
from sampan.base.clock import rfc3339, rfc3339_micro

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAX_DEPTH = 64

Decoder = Callable[[bytes, int], Any]


def decode(body: bytes) -> dict[str, Any]:
    """The object in an envelope (`k8s\\0` and runtime.Unknown). Raises ApiError 400 when it is none or unknown."""
    if not body.startswith(MAGIC):
        raise bad_request("the body of the request was not a protobuf envelope of Kubernetes")
    try:
        envelope = _message("runtime.Unknown")(body[4:], 0)
        types = envelope.get("typeMeta") or {}
        api_version, kind = types.get("apiVersion", ""), types.get("kind", "")
        obj = _message(_name(api_version, kind))(envelope.get("raw") or b"", 0)
    except (IndexError, ValueError, struct.error, RecursionError, OverflowError, OSError) as error:
        # The last two: a time further away than datetime, or the C library, can count.
        raise bad_request(f"the protobuf body cannot be read: {error}") from None
    return {"apiVersion": api_version, "kind": kind, **obj}


def _name(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    short = (group or "core").partition(".")[0]
    name = f"{_PACKAGES.get(group, short)}.{version}.{kind}"
    if name in _table():
        return name
    if f"meta.v1.{kind}" in _table():
        return f"meta.v1.{kind}"
    raise ApiError(
        400, "BadRequest", f'no kind "{kind}" is registered for version "{api_version}" in the protobuf codec'
    )


_PACKAGES = {"rbac.authorization.k8s.io": "rbac", "flowcontrol.apiserver.k8s.io": "flowcontrol"}


@functools.cache
def _table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = orjson.loads(Path(__file__).with_name("protobuf.json").read_bytes())
    return table


@functools.cache
def _message(name: str) -> Decoder:
    """A decoder of one message type, made on first use."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    fields = {}
    for row in _table()[name]:
        number, field, kind, *rest = row.split(" ")
        fields[int(number)] = _field(field, kind, rest[0] if rest else "")

    def message(data: bytes, depth: int) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        result: dict[str, Any] = {}
        position, end = 0, len(data)
        while position < end:
            tag, position = _varint(data, position)
            value, position = _raw(data, position, tag & 7)
            handler = fields.get(tag >> 3)
            if handler is not None:
                handler(result, value, depth)
        return result

    return message


Handler = Callable[[dict[str, Any], Any, int], None]


def _field(name: str, kind: str, type_name: str) -> Handler:
    if kind.startswith("{"):
        return _map_field(name, kind[1:], type_name)
    if kind.startswith("*"):
        convert = _converter(kind[1:], type_name)
        return lambda out, raw, depth: out.setdefault(name, []).append(convert(raw, depth))
    if kind == "~":
        convert = _converter("m", type_name)
        return lambda out, raw, depth: out.update(convert(raw, depth))
    convert = _converter(kind.removeprefix("?"), type_name)
    if kind == "m" or kind.startswith("?"):

        def present(out: dict[str, Any], raw: Any, depth: int) -> None:
            value = convert(raw, depth)
            if value is not None:
                out[name] = value

        return present

    def meaningful(out: dict[str, Any], raw: Any, depth: int) -> None:
        value = convert(raw, depth)
        if value:
            out[name] = value

    return meaningful


def _map_field(name: str, kind: str, type_name: str) -> Handler:
    convert = _converter(kind, type_name)
    empty: Any = {"s": "", "y": "", "i": 0, "b": False}.get(kind)

    def put(out: dict[str, Any], raw: bytes, depth: int) -> None:
        key, value = "", empty
        position = 0
        while position < len(raw):
            tag, position = _varint(raw, position)
            part, position = _raw(raw, position, tag & 7)
            if tag >> 3 == 1:
                key = part.decode()
            else:
                value = convert(part, depth)
        out.setdefault(name, {})[key] = value

    return put


def _converter(kind: str, type_name: str) -> Callable[[Any, int], Any]:
    if kind == "m":
        cell: list[Decoder] = []  # looked up late: types refer to each other

        def nested(raw: bytes, depth: int) -> Any:
            if not cell:
                cell.append(_message(type_name))
            return cell[0](raw, depth + 1)

        return nested
    return _SCALARS[kind]


_SCALARS: dict[str, Callable[[Any, int], Any]] = {
    "s": lambda raw, depth: raw.decode(),
    "b": lambda raw, depth: bool(raw),
    "i": lambda raw, depth: raw - (1 << 64) if raw >> 63 else raw,
    "u": lambda raw, depth: raw,
    "y": lambda raw, depth: base64.b64encode(raw).decode(),
    "d": lambda raw, depth: struct.unpack("<d", raw)[0],
}


def _varint(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    position += 1
    if byte < 128:
        return byte, position
    value, shift = byte & 127, 7
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _raw(data: bytes, position: int, wire: int) -> tuple[Any, int]:
    """The value on the wire: an int (0), 8 bytes (1), bytes (2) or 4 bytes (5)."""
    if wire == 0:
        return _varint(data, position)
    if wire == 2:
        length, position = _varint(data, position)
    elif wire in (1, 5):
        length = 8 if wire == 1 else 4
    else:
        raise ValueError(f"wire type {wire}")
    end = position + length
    if end > len(data):
        raise ValueError("it ends in the middle of a field")
    return data[position:end], end


def _parts(data: bytes) -> dict[int, Any]:
    parts, position = {}, 0
    while position < len(data):
        tag, position = _varint(data, position)
        parts[tag >> 3], position = _raw(data, position, tag & 7)
    return parts


def _unknown(data: bytes, depth: int) -> dict[str, Any]:
    parts = _parts(data)
    types = _parts(parts.get(1, b""))
    if parts.get(3):
        raise ValueError(f"content encoding {parts[3]!r}")
    return {
        "typeMeta": {"apiVersion": types.get(1, b"").decode(), "kind": types.get(2, b"").decode()},
        "raw": parts.get(2, b""),
    }


def _time(data: bytes, depth: int) -> str | None:
    parts = _parts(data)
    return rfc3339(_SCALARS["i"](parts.get(1, 0), 0)) if parts else None


def _micro_time(data: bytes, depth: int) -> str | None:
    parts = _parts(data)
    seconds = _SCALARS["i"](parts.get(1, 0), 0)
    return rfc3339_micro(seconds, parts.get(2, 0)) if parts else None


def _quantity(data: bytes, depth: int) -> str:
    return _parts(data).get(1, b"0").decode() or "0"


def _int_or_string(data: bytes, depth: int) -> int | str:
    parts = _parts(data)
    return parts.get(3, b"").decode() if parts.get(1) else _SCALARS["i"](parts.get(2, 0), 0)


def _json(data: bytes, depth: int) -> Any:
    raw = _parts(data).get(1)
    return orjson.loads(raw) if raw else None


def _schema_or(other: Callable[[bytes], Any], schema: int) -> Decoder:
    """JSONSchemaPropsOr...: a schema in field `schema`, or what `other` makes of the message."""

    def decode(data: bytes, depth: int) -> Any:
        nested = _parts(data).get(schema)
        return other(data) if nested is None else _message(_SCHEMA)(nested, depth + 1)

    return decode


def _schemas(data: bytes) -> list[Any]:
    return [_message(_SCHEMA)(raw, 0) for raw in _repeated(data, 2)]


def _repeated(data: bytes, number: int) -> list[bytes]:
    items, position = [], 0
    while position < len(data):
        tag, position = _varint(data, position)
        value, position = _raw(data, position, tag & 7)
        if tag >> 3 == number:
            items.append(value)
    return items


def _items(data: bytes, depth: int) -> list[str]:
    return [raw.decode() for raw in _repeated(data, 1)]


_EXTENSIONS = "apiextensions.v1."
_SCHEMA = _EXTENSIONS + "JSONSchemaProps"

_SPECIAL: dict[str, Decoder] = {
    "runtime.Unknown": _unknown,
    "runtime.RawExtension": _json,
    "meta.v1.FieldsV1": _json,
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "meta.v1.Verbs": _items,
    "api.resource.Quantity": _quantity,
    "util.intstr.IntOrString": _int_or_string,
    "authentication.v1.ExtraValue": _items,
    "authorization.v1.ExtraValue": _items,
    "certificates.v1.ExtraValue": _items,
    _EXTENSIONS + "JSON": _json,
    _SCHEMA + "OrArray": _schema_or(_schemas, 1),
    _SCHEMA + "OrBool": _schema_or(lambda data: bool(_parts(data).get(1)), 2),
    _SCHEMA + "OrStringArray": _schema_or(lambda data: [raw.decode() for raw in _repeated(data, 2)], 1),
}
