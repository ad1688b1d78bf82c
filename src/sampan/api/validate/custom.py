"""Objects of custom resources against their schema, in the original's words.

Source: "Extend the Kubernetes API with CustomResourceDefinitions", validation; OpenAPI v3 as structural schemas
restrict it. Rules in CEL are judged elsewhere, and only when nothing is found here.
"""

from __future__ import annotations

from typing import Any

import orjson

from sampan.api import re2, schema
from sampan.api.schema import Node
from sampan.api.validate import formats
from sampan.api.validate.base import (
    Errors,
    FieldError,
    as_json,
    duplicate,
    invalid_value,
    labels,
    not_supported,
    required,
    show,
    subdomain_problems,
    too_long,
    too_many,
)
from sampan.base.objects import Object

_IDENTITY = ("apiVersion", "kind", "metadata")


_NEW: Any = object()  # in place of a former value: there is none


def check_object(
    errors: Errors, obj: Object, node: Node, subresource: str = "", old: Object | None = None
) -> None:
    """A whole object but for its metadata. Through `status`, only the status is judged.

    What has not changed since `old` is not judged again: a schema may have become stricter since (KEP-4008).
    """
    for field in sorted(node.required):
        if field not in obj:
            errors.append(required(field))
    for key in sorted(node.properties):
        if key in obj and key not in _IDENTITY and (subresource != "status" or key == "status"):
            check(errors, obj[key], node.properties[key], key, _before(old, key))
    if subresource != "status":
        _size(errors, obj, node.raw, "")
    _logic(errors, obj, node.raw, "")


def _before(old: Any, key: str) -> Any:
    return old.get(key, _NEW) if isinstance(old, dict) else _NEW


def check(errors: Errors, value: Any, node: Node, path: str, old: Any = _NEW) -> None:
    """One value against its schema."""
    if (
        old is not _NEW and value == old and as_json(value) == as_json(old)
    ):  # to Python, 1 and true are the same
        return
    if value is None:
        if not node.nullable and node.type != "any":
            errors.append(_wrong_type("null", _expected(node), path))
        return
    if not _fits(value, node.type):
        errors.append(_wrong_type(_kind(value), _expected(node), path))
        return
    raw = node.raw
    if isinstance(value, dict):
        _object(errors, value, node, path, old)
    elif isinstance(value, list):
        _list(errors, value, node, path, old)
    elif isinstance(value, str):
        _string(errors, value, raw, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _number(errors, value, raw, path)
    if node.enum and not any(_same(value, v) for v in node.enum):
        listed = [v if isinstance(v, str) else orjson.dumps(v).decode() for v in node.enum]
        errors.append(not_supported(path, value, listed))
    if raw:
        _logic(errors, value, raw, path)


def _same(value: Any, other: Any) -> bool:
    """JSON's equality: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _expected(node: Node) -> str:
    return "integer,string" if node.type == "int-or-string" else node.type


def _wrong_type(got: str, wanted: str, path: str) -> FieldError:
    text = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
    return FieldError("FieldValueTypeInvalid", path, text)


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "number"
        case list():
            return "array"
    return "object"


def _fits(value: Any, kind: str) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return _whole(value) or (isinstance(value, float) and value.is_integer())
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "int-or-string":
            return isinstance(value, str) or _whole(value)
    return True


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# Objects


def _object(errors: Errors, value: Object, node: Node, path: str, old: Any) -> None:
    for field in sorted(node.required):
        if field not in value:
            errors.append(required(f"{path}.{field}"))
    if node.embedded:
        _embedded(errors, value, path)
    _size(errors, value, node.raw, path)
    for key in sorted(value):
        child = node.properties.get(key)
        if child is None:
            child = node.additional
        elif node.embedded and key in _IDENTITY:
            continue
        if child is not None:
            check(errors, value[key], child, f"{path}.{key}", _before(old, key))


def _size(errors: Errors, value: Object, raw: Object, path: str) -> None:
    least, most = raw.get("minProperties"), raw.get("maxProperties")
    if least is not None and len(value) < least:
        text = f"{path} in body should have at least {least} properties"
        errors.append(invalid_value(path, len(value), text))
    if most is not None and len(value) > most:
        errors.append(too_many(path, len(value), most))


def _embedded(errors: Errors, value: Object, path: str) -> None:
    """An object within an object has a kind, and metadata like any other."""
    for field in ("apiVersion", "kind"):
        if not value.get(field):
            errors.append(required(f"{path}.{field}", "must not be empty"))
    meta = value.get("metadata")
    if not isinstance(meta, dict):
        return
    name = meta.get("name")
    if isinstance(name, str) and name:
        for problem in subdomain_problems(name):
            errors.append(invalid_value(f"{path}.metadata.name", name, problem))
    if isinstance(meta.get("labels"), dict):
        given = {k: v for k, v in meta["labels"].items() if isinstance(v, str)}
        labels(errors, f"{path}.metadata.labels", given)


# Lists


def _list(errors: Errors, value: list[Any], node: Node, path: str, old: Any) -> None:
    least, most = node.raw.get("minItems"), node.raw.get("maxItems")
    if least is not None and len(value) < least:
        text = f"{path} in body should have at least {least} items"
        errors.append(invalid_value(path, len(value), text))
    if most is not None and len(value) > most:
        errors.append(too_many(path, len(value), most))
    if node.items is not None:
        keys = node.map_keys if node.list_type == "map" and isinstance(old, list) else ()
        before = {_name(item, keys): item for item in old} if keys else {}
        for index, item in enumerate(value):
            check(errors, item, node.items, f"{path}[{index}]", before.get(_name(item, keys), _NEW))
    if node.list_type in ("set", "map"):
        _unique(errors, value, node, path)


def _name(item: Any, keys: tuple[str, ...]) -> Any:
    """What tells an item of an associative list from the others."""
    return as_json([item.get(key) for key in keys]) if keys and isinstance(item, dict) else None


def _unique(errors: Errors, value: list[Any], node: Node, path: str) -> None:
    """A set holds nothing twice, an associative list no key twice."""
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        identity = item
        if node.list_type == "map":
            if not isinstance(item, dict):
                return
            identity = {k: _key_value(item, k, node) for k in node.map_keys}
            identity = {k: v for k, v in identity.items() if v is not None}
        text = as_json(identity)
        if text in seen:
            errors.append(duplicate(f"{path}[{index}]", identity))
        seen.add(text)


def _key_value(item: Object, key: str, node: Node) -> Any:
    """A key's value, or its default when it is left out."""
    if key in item:
        return item[key]
    child = node.items.properties.get(key) if node.items is not None else None
    return child.default if child is not None and child.has_default else None


# Scalars


def _string(errors: Errors, value: str, raw: Object, path: str) -> None:
    least, most = raw.get("minLength"), raw.get("maxLength")
    if least is not None and len(value) < least:
        text = f"{path} in body should be at least {least} chars long"
        errors.append(invalid_value(path, value, text))
    if most is not None and len(value) > most:
        errors.append(too_long(path, most))
    pattern = raw.get("pattern")
    if pattern and not matches(pattern, value):
        errors.append(invalid_value(path, value, f"{path} in body should match '{pattern}'"))
    kind = raw.get("format")
    if kind and not formats.fits(kind, value):
        errors.append(invalid_value(path, value, f"{path} in body must be of type {kind}: {show(value)}"))


def matches(pattern: str, value: str) -> bool:
    """Whether `value` has what an RE2 pattern describes; a pattern that cannot be read matches everything."""
    try:
        return re2.compile(pattern).search(value) is not None
    except re2.BadPattern:
        return True


def _number(errors: Errors, value: float, raw: Object, path: str) -> None:
    least, most, factor = raw.get("minimum"), raw.get("maximum"), raw.get("multipleOf")
    if least is not None:
        if raw.get("exclusiveMinimum"):
            if value <= least:
                text = f"{path} in body should be greater than {least}"
                errors.append(invalid_value(path, value, text))
        elif value < least:
            text = f"{path} in body should be greater than or equal to {least}"
            errors.append(invalid_value(path, value, text))
    if most is not None:
        if raw.get("exclusiveMaximum"):
            if value >= most:
                errors.append(invalid_value(path, value, f"{path} in body should be less than {most}"))
        elif value > most:
            text = f"{path} in body should be less than or equal to {most}"
            errors.append(invalid_value(path, value, text))
    if factor and value % factor:
        errors.append(invalid_value(path, value, f"{path} in body should be a multiple of {factor}"))
    limit = _RANGES.get(raw.get("format", ""))
    if limit and _whole(value) and not -limit <= value < limit:
        text = f"{path} in body must be of type {raw['format']}: {show(str(value))}"
        errors.append(invalid_value(path, value, text))


_RANGES = {"int32": 2**31, "int64": 2**63}


# allOf, anyOf, oneOf, not


def _logic(errors: Errors, value: Any, raw: Object, path: str) -> None:
    """The parts only restrict values; they specify no new fields."""
    for part in raw.get("allOf") or ():
        _part(errors, value, part, path)
    options = raw.get("anyOf")
    if options and not raw.get("x-kubernetes-int-or-string") and not any(_holds(value, o) for o in options):
        errors.append(invalid_value(path, value, f"{path} in body must validate at least one schema (anyOf)"))
    options = raw.get("oneOf")
    if options and sum(_holds(value, o) for o in options) != 1:
        text = f"{path} in body must validate one and only one schema (oneOf)"
        errors.append(invalid_value(path, value, text))
    refused = raw.get("not")
    if refused and _holds(value, refused):
        errors.append(invalid_value(path, value, f"{path} in body must not validate the schema (not)"))


def _holds(value: Any, raw: Object) -> bool:
    found: Errors = []
    _part(found, value, raw, "")
    return not found


# Parts are compiled once each; the part itself is kept, so that its id is not taken by another.
_parts: dict[int, tuple[Object, Node]] = {}


def _part(errors: Errors, value: Any, raw: Object, path: str) -> None:
    known = _parts.get(id(raw))
    if known is None:
        if len(_parts) > 4096:
            _parts.clear()
        known = _parts[id(raw)] = (raw, schema.from_part(raw))
    check(errors, value, known[1], path)
