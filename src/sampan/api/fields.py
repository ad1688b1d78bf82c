"""Turns what a client sent into what the API means: the one way an object enters.

Each schema node is compiled, on first use, into a closure that checks and rebuilds a value in one pass: unknown fields
go, nulls and meaningless zeros go, quantities and times take their canonical form. Only when something is wrong does a
second, slower walk find out where. Source: KEP-2885 (field validation); API conventions, "Primitive types".
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

from sampan.api import complaints, quantity
from sampan.api.schema import Node
from sampan.api.status import ApiError, bad_request
from sampan.api.zeros import keeps_zero
from sampan.base.clock import zulu

# A decoder takes a value and a list in which it notes that a field was unknown; it returns the value to keep.
Decoder = Callable[[Any, list[str]], Any]
# How an object treats one of its keys: (exact type that needs no decoder | None, decoder, keep when empty).
_Field = tuple[type | None, Decoder, bool]


class _Mismatch(Exception):
    """A value that its field cannot hold."""


def normalize(
    obj: dict[str, Any], node: Node, *, strict: bool, known: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The object as the API keeps it, and what strict field validation objects to, e.g. `unknown field "spec.foo"`.

    The input is not changed. With `strict` False unknown fields are dropped in silence and the list is empty. `known`
    is an object that went through this before: what `obj` has in common with it at the top is taken as it is.
    Values of custom resources are pruned only; validation checks their types. Raises ApiError 400 when a value does
    not fit its field.
    """
    unknown: list[str] = []
    try:
        found = decoder(node)(obj, unknown) if known is None else _changed(obj, known, node, unknown)
    except _Mismatch:
        raise _cannot_be_handled(obj, node, complaints.explain(obj, node, _fits)) from None
    if not (strict and unknown):
        return found, []
    return found, [f'unknown field "{path}"' for path in complaints.unknown_fields(obj, node)]


def _changed(obj: dict[str, Any], known: dict[str, Any], node: Node, unknown: list[str]) -> dict[str, Any]:
    """`obj` decoded, but for the parts that `known` has to the letter (1 equals True, but is no boolean)."""
    changed = {k: v for k, v in obj.items() if k not in known or orjson.dumps(v) != orjson.dumps(known[k])}
    found = decoder(node)(changed, unknown)
    return {k: found.get(k) if k in changed else v for k, v in obj.items() if k not in changed or k in found}


def _cannot_be_handled(obj: dict[str, Any], node: Node, why: str) -> ApiError:
    group, version, kind = node.gvk
    sent = str(obj.get("apiVersion") or "")
    version = sent.rpartition("/")[2] if sent else version
    own = str(obj.get("kind") or kind)
    return bad_request(f'{own} in version "{version}" cannot be handled as a {kind or own}: {why}')


def decoder(node: Node) -> Decoder:
    """The compiled form of a node, made once."""
    made = node.compiled
    if made is None:
        made = node.compiled = _compile(node)
    return made


def _fits(value: Any, node: Node) -> bool:
    try:
        decoder(node)(value, [])
    except _Mismatch:
        return False
    return True


def _compile(node: Node) -> Decoder:
    if node.custom:
        return _custom(node)
    match node.type:
        case "object":
            return _object(node) if node.properties else _map(node)
        case "array":
            return _array(node)
        case "string":
            return {"date-time": _time, "micro-time": _micro_time, "byte": _bytes}.get(node.format, _string)
        case "integer":
            return _int64 if node.format == "int64" else _int32
        case "boolean":
            return _boolean
        case "number":
            return _number
        case "quantity":
            return _quantity
        case "int-or-string":
            return _int_or_string
    return _anything


# Objects, maps and lists


def _object(node: Node) -> Decoder:
    fields: dict[str, _Field] = {}

    def decode(value: Any, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise _Mismatch
        result = {}
        for key, item in value.items():
            field = fields.get(key)
            if field is None:
                child = node.properties.get(key)
                if child is None:
                    unknown.append(key)
                    continue
                field = fields[key] = _field(node, key, child)
            if item is None:
                continue
            exact, decode_item, keep = field
            if exact is None:
                item = decode_item(item, unknown)
            elif type(item) is not exact:
                raise _Mismatch
            if keep or item:
                result[key] = item
        return result

    return decode


_EXACT = {"string": str, "boolean": bool}


def _field(owner: Node, key: str, child: Node) -> _Field:
    exact = (
        None
        if child.custom or child.format in ("date-time", "micro-time", "byte")
        else _EXACT.get(child.type)
    )
    return exact, decoder(child), keeps_zero(owner, key, child)


def _map(node: Node) -> Decoder:
    values = node.additional
    if values is None:
        return _raw_object
    zero = _zero(values)
    if values.type == "string" and not values.format:

        def decode_strings(value: Any, unknown: list[str]) -> Any:
            if type(value) is not dict:
                raise _Mismatch
            result = {}
            for key, item in value.items():
                if type(item) is not str:
                    if item is not None:
                        raise _Mismatch
                    item = ""
                result[key] = item
            return result

        return decode_strings
    # Maps of quantities are resource lists, which the original rounds up to thousandths.
    decode_item = _milli_quantity if values.type == "quantity" else decoder(values)

    def decode(value: Any, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise _Mismatch
        return {k: zero if v is None else decode_item(v, unknown) for k, v in value.items()}

    return decode


def _array(node: Node) -> Decoder:
    items = node.items or Node()
    zero = _zero(items)
    if items.type == "string" and not items.format:

        def decode_strings(value: Any, unknown: list[str]) -> Any:
            if type(value) is not list:
                raise _Mismatch
            for item in value:
                if type(item) is not str:
                    if item is not None:
                        raise _Mismatch
                    return ["" if i is None else _string(i, unknown) for i in value]
            return value

        return decode_strings
    made: list[Decoder] = []

    def decode(value: Any, unknown: list[str]) -> Any:
        if type(value) is not list:
            raise _Mismatch
        if not made:
            made.append(decoder(items))  # late: a definition may contain itself
        decode_item = made[0]
        return [
            decode_item({} if v is None and zero == {} else zero if v is None else v, unknown) for v in value
        ]

    return decode


def _zero(node: Node) -> Any:
    """What Go makes of a null in a list or a map."""
    if node.type == "string":
        return ""
    return {"object": {}, "integer": 0, "boolean": False, "quantity": "0", "int-or-string": 0}.get(node.type)


def _raw_object(value: Any, unknown: list[str]) -> Any:
    if type(value) is not dict:
        raise _Mismatch
    return value


def _anything(value: Any, unknown: list[str]) -> Any:
    return value


# Scalars


def _string(value: Any, unknown: list[str]) -> Any:
    if type(value) is not str:
        raise _Mismatch
    return value


def _boolean(value: Any, unknown: list[str]) -> Any:
    if type(value) is not bool:
        raise _Mismatch
    return value


def _int32(value: Any, unknown: list[str]) -> Any:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise _Mismatch
    return value


def _int64(value: Any, unknown: list[str]) -> Any:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise _Mismatch
    return value


def _number(value: Any, unknown: list[str]) -> Any:
    if type(value) is not float and type(value) is not int:
        raise _Mismatch
    return value


def _int_or_string(value: Any, unknown: list[str]) -> Any:
    return value if type(value) is str else _int32(value, unknown)


def _quantity(value: Any, unknown: list[str]) -> Any:
    try:
        if type(value) is str:
            return quantity.canonical(value.strip())
        if type(value) is int or type(value) is float:
            return quantity.canonical(value)
    except ValueError:
        pass
    raise _Mismatch


@lru_cache(maxsize=4096)
def _to_milli(text: str) -> str:
    return str(quantity.parse(text).round_up(-3))


def _milli_quantity(value: Any, unknown: list[str]) -> Any:
    return _to_milli(_quantity(value, unknown))


_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII).fullmatch
_MICROS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)", re.ASCII).fullmatch


def _time(value: Any, unknown: list[str]) -> Any:
    """Whole seconds in UTC."""
    if type(value) is not str:
        raise _Mismatch
    return _whole_seconds(value)


@lru_cache(maxsize=256)
def _whole_seconds(text: str) -> str:
    """Many objects of one moment name it, and conditions say theirs again and again."""
    if not _SECONDS(text):
        raise _Mismatch
    moment = _utc(text)
    return text if len(text) == 20 else zulu(moment, "seconds")


def _micro_time(value: Any, unknown: list[str]) -> Any:
    """Six digits of a second, no fewer, in UTC."""
    if type(value) is not str or not _MICROS(value):
        raise _Mismatch
    return zulu(_utc(value), "microseconds")


def _utc(text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise _Mismatch from None


def _bytes(value: Any, unknown: list[str]) -> Any:
    """base64, its line breaks removed."""
    if type(value) is not str:
        raise _Mismatch
    try:
        data = base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        raise _Mismatch from None
    return base64.b64encode(data).decode()


# Custom resources: pruned, not checked


def _custom(node: Node) -> Decoder:
    if node.type == "array" or (node.items is not None and node.type == "any"):
        items = node.items
        if items is None:
            return _anything
        decode_item = decoder(items)

        def decode_list(value: Any, unknown: list[str]) -> Any:
            if type(value) is not list:
                return value
            return [decode_item(v, unknown) for v in value]

        return decode_list
    if node.type == "object" or node.properties or node.additional is not None:
        return _custom_object(node)
    return _anything


def _custom_object(node: Node) -> Decoder:
    properties, additional, preserve = node.properties, node.additional, node.preserve_unknown
    decoders = {key: decoder(child) for key, child in properties.items()}
    decode_rest = decoder(additional) if additional is not None else None

    def decode(value: Any, unknown: list[str]) -> Any:
        if type(value) is not dict:
            return value
        result = {}
        for key, item in value.items():
            decode_item = decoders.get(key, decode_rest)
            if decode_item is None:
                if preserve:
                    result[key] = item
                else:
                    unknown.append(key)
                continue
            if item is None:
                child = properties.get(key, additional)
                if child is not None and child.nullable:
                    result[key] = None
                continue
            result[key] = decode_item(item, unknown)
        return result

    return decode
