"""The OpenAPI 2.0 document as protobuf (gnostic's openapi.v2.Document), which older clients ask for and parse faster.

A table of field numbers drives one encoder. What has no field of its own (x-kubernetes-...) travels as a named piece of
YAML; JSON is YAML. The numbers are facts of gnostic's published OpenAPIv2.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import orjson

from sampan.base.objects import Object

Encoder = Callable[[Any], bytes]

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def encode(document: Object) -> bytes:
    """The bytes of a whole OpenAPI 2.0 document."""
    return _document(document)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _chunk(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int) -> Encoder:
    return lambda value: _chunk(number, value.encode())


def _texts(number: int) -> Encoder:
    return lambda values: b"".join(_chunk(number, value.encode()) for value in values)


def _flag(number: int) -> Encoder:
    return lambda value: _varint(number << 3) + (b"\1" if value else b"\0")


def _integer(number: int) -> Encoder:
    return lambda value: _varint(number << 3) + _varint(int(value) & (1 << 64) - 1)


def _double(number: int) -> Encoder:
    return lambda value: _varint(number << 3 | 1) + struct.pack("<d", value)


def _any(value: Any) -> bytes:
    """A value without a message of its own: `Any.yaml`."""
    return _chunk(2, orjson.dumps(value) + b"\n")


def _anything(number: int) -> Encoder:
    return lambda value: _chunk(number, _any(value))


def _message(number: int, encoder: Encoder) -> Encoder:
    return lambda value: _chunk(number, encoder(value))


def _messages(number: int, encoder: Encoder) -> Encoder:
    return lambda values: b"".join(_chunk(number, encoder(value)) for value in values)


def _named(number: int, encoder: Encoder) -> Encoder:
    """A map as a list of (name, value)."""

    def named(values: Object) -> bytes:
        return b"".join(
            _chunk(number, _chunk(1, name.encode()) + _chunk(2, encoder(value)))
            for name, value in values.items()
        )

    return named


def _struct(fields: dict[str, Encoder], extensions: int) -> Encoder:
    """An encoder of a message: known keys by their encoder, x-... as vendor extensions, others dropped."""
    extension = _named(extensions, _any)

    def encode(value: Object) -> bytes:
        parts = []
        for key, item in value.items():
            encoder = fields.get(key)
            if encoder is not None:
                parts.append(encoder(item))
            elif key.startswith("x-"):
                parts.append(extension({key: item}))
        return b"".join(parts)

    return encode


def _schema(value: Object) -> bytes:
    return _schema_struct(value)


def _additional(value: Any) -> bytes:
    return _flag(2)(value) if isinstance(value, bool) else _chunk(1, _schema(value))


def _types(value: Any) -> bytes:
    return _texts(1)([value] if isinstance(value, str) else value)


_schema_struct = _struct(
    {
        "$ref": _text(1),
        "format": _text(2),
        "title": _text(3),
        "description": _text(4),
        "default": _anything(5),
        "multipleOf": _double(6),
        "maximum": _double(7),
        "exclusiveMaximum": _flag(8),
        "minimum": _double(9),
        "exclusiveMinimum": _flag(10),
        "maxLength": _integer(11),
        "minLength": _integer(12),
        "pattern": _text(13),
        "maxItems": _integer(14),
        "minItems": _integer(15),
        "uniqueItems": _flag(16),
        "maxProperties": _integer(17),
        "minProperties": _integer(18),
        "required": _texts(19),
        "enum": lambda values: b"".join(map(_anything(20), values)),
        "additionalProperties": _message(21, _additional),
        "type": _message(22, _types),
        "items": _message(23, lambda value: _chunk(1, _schema(value))),
        "allOf": _messages(24, _schema),
        "properties": _message(25, _named(1, _schema)),
        "example": _anything(30),
    },
    31,
)

_path_parameter = _struct(
    {"required": _flag(1), "in": _text(2), "description": _text(3), "name": _text(4), "type": _text(5)}, 22
)
_query_parameter = _struct(
    {
        "required": _flag(1),
        "in": _text(2),
        "description": _text(3),
        "name": _text(4),
        "type": _text(6),
        "uniqueItems": _flag(20),
    },
    23,
)
_body_parameter = _struct(
    {
        "description": _text(1),
        "name": _text(2),
        "in": _text(3),
        "required": _flag(4),
        "schema": _message(5, _schema),
    },
    6,
)


def _parameter(value: Object) -> bytes:
    """ParametersItem.parameter, which is a body parameter or one of the others."""
    place = value["in"]
    if place == "body":
        return _chunk(1, _chunk(1, _body_parameter(value)))
    other = _chunk(4, _path_parameter(value)) if place == "path" else _chunk(3, _query_parameter(value))
    return _chunk(1, _chunk(2, other))


_response = _struct({"description": _text(1), "schema": _message(2, lambda v: _chunk(1, _schema(v)))}, 5)
_operation = _struct(
    {
        "tags": _texts(1),
        "description": _text(3),
        "operationId": _text(5),
        "produces": _texts(6),
        "consumes": _texts(7),
        "parameters": _messages(8, _parameter),
        "responses": _message(9, _named(1, lambda value: _chunk(1, _response(value)))),
    },
    13,
)
_path_item = _struct(
    {
        "get": _message(2, _operation),
        "put": _message(3, _operation),
        "post": _message(4, _operation),
        "delete": _message(5, _operation),
        "patch": _message(8, _operation),
        "parameters": _messages(9, _parameter),
    },
    10,
)
_key_security = _struct({"type": _text(1), "name": _text(2), "in": _text(3), "description": _text(4)}, 5)
_document = _struct(
    {
        "swagger": _text(1),
        "info": _message(2, _struct({"title": _text(1), "version": _text(2)}, 7)),
        "paths": _message(8, _named(2, _path_item)),
        "definitions": _message(9, _named(1, _schema)),
        "security": _messages(12, _named(1, _texts(1))),
        "securityDefinitions": _message(13, _named(1, lambda value: _chunk(2, _key_security(value)))),
    },
    16,
)
