"""Objects of custom resources against their schema: defaults, and validation in the original's words.

Source: "Extend the Kubernetes API with CustomResourceDefinitions"; OpenAPI v3 as structural schemas restrict it.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from functools import lru_cache
from typing import Any

import orjson

from sampan.api import schema
from sampan.api.copying import copied
from sampan.api.registry import Resource
from sampan.api.schema import Node
from sampan.api.status import (
    FieldError,
    duplicate,
    invalid_value,
    not_supported,
    required,
    show,
)

Object = dict[str, Any]

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
    for field in sorted(node.required):
        if field not in obj:
            errors.append(required(field))
    for key in sorted(node.properties):
        if key in obj and key not in ("apiVersion", "kind", "metadata"):
            if subresource == "status" and key != "status":
                continue
            _check(obj[key], node.properties[key], key, errors)
    if not errors:
        errors += _rules(row, node, obj, old)
    return errors


def _rules(row: Resource, node: Node, obj: Object, old: Object | None) -> list[FieldError]:
    """x-kubernetes-validations, when an interpreter of CEL is there."""
    try:
        from sampan.api import cel  # type: ignore[attr-defined]
    except ImportError:
        return []
    return cel.validate_rules(node, obj, old)


def _check(value: Any, node: Node, path: str, errors: list[FieldError]) -> None:
    if value is None:
        if not node.nullable and node.type != "any":
            errors.append(_wrong_type("null", node.type, path, value))
        return
    if not _is_type(value, node):
        errors.append(_wrong_type(_kind(value), _expected(node), path, value))
        return
    raw = node.raw
    if isinstance(value, dict):
        _check_object(value, node, path, errors)
    elif isinstance(value, list):
        _check_list(value, node, path, errors)
    elif isinstance(value, str):
        _check_string(value, raw, path, errors)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(value, raw, path, errors)
    if node.enum and value not in node.enum:
        listed = [v if isinstance(v, str) else orjson.dumps(v).decode() for v in node.enum]
        errors.append(not_supported(path, value, listed))
    _check_logic(value, raw, path, errors)


def _expected(node: Node) -> str:
    return "integer,string" if node.type == "int-or-string" else node.type


def _wrong_type(got: str, wanted: str, path: str, value: Any) -> FieldError:
    text = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
    return FieldError("FieldValueTypeInvalid", path, text)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _is_type(value: Any, node: Node) -> bool:
    match node.type:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "int-or-string":
            return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return True


def _check_object(value: Object, node: Node, path: str, errors: list[FieldError]) -> None:
    for field in sorted(node.required):
        if field not in value:
            errors.append(required(f"{path}.{field}"))
    raw = node.raw
    if node.embedded:
        _check_embedded(value, path, errors)
    if (least := raw.get("minProperties")) is not None and len(value) < least:
        errors.append(
            invalid_value(path, len(value), f"{path} in body should have at least {least} properties")
        )
    if (most := raw.get("maxProperties")) is not None and len(value) > most:
        errors.append(
            FieldError("FieldValueTooMany", path, f"Too many: {len(value)}: must have at most {most} items")
        )
    for key in sorted(value):
        child = node.properties.get(key)
        if child is not None and not (node.embedded and key in ("apiVersion", "kind", "metadata")):
            _check(value[key], child, f"{path}.{key}", errors)
        elif child is None and node.additional is not None:
            _check(value[key], node.additional, f"{path}.{key}", errors)


def _check_embedded(value: Object, path: str, errors: list[FieldError]) -> None:
    for field in ("apiVersion", "kind"):
        if not value.get(field):
            errors.append(required(f"{path}.{field}", "must not be empty"))
    labels = (value.get("metadata") or {}).get("labels")
    if isinstance(labels, dict):
        from sampan.api import names

        for text in labels.values():
            errors += [
                invalid_value(f"{path}.metadata.labels", text, p) for p in names.label_value(str(text))
            ]


def _check_list(value: list[Any], node: Node, path: str, errors: list[FieldError]) -> None:
    raw = node.raw
    if (least := raw.get("minItems")) is not None and len(value) < least:
        errors.append(invalid_value(path, len(value), f"{path} in body should have at least {least} items"))
    if (most := raw.get("maxItems")) is not None and len(value) > most:
        errors.append(
            FieldError("FieldValueTooMany", path, f"Too many: {len(value)}: must have at most {most} items")
        )
    if node.items is not None:
        for index, item in enumerate(value):
            _check(item, node.items, f"{path}[{index}]", errors)
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        if node.list_type == "set":
            identity, shown = item, item
        elif node.list_type == "map" and isinstance(item, dict):
            identity = shown = {k: item[k] for k in node.map_keys if k in item}
        else:
            return
        text = orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)
        if text in seen:
            if isinstance(shown, dict):
                listed = (
                    "map[string]interface {}{" + ", ".join(f'"{k}":{_go(v)}' for k, v in shown.items()) + "}"
                )
                errors.append(
                    FieldError("FieldValueDuplicate", f"{path}[{index}]", f"Duplicate value: {listed}")
                )
            else:
                errors.append(duplicate(f"{path}[{index}]", shown))
        seen.add(text)


def _go(value: Any) -> str:
    return show(value)


def _check_string(value: str, raw: Object, path: str, errors: list[FieldError]) -> None:
    if (least := raw.get("minLength")) is not None and len(value) < least:
        errors.append(invalid_value(path, value, f"{path} in body should be at least {least} chars long"))
    if (most := raw.get("maxLength")) is not None and len(value) > most:
        errors.append(FieldError("FieldValueTooLong", path, f"Too long: may not be more than {most} bytes"))
    if (pattern := raw.get("pattern")) and not _compiled(pattern).search(value):
        errors.append(invalid_value(path, value, f"{path} in body should match '{pattern}'"))
    check = _FORMATS.get(raw.get("format", ""))
    if check is not None and not check(value):
        text = f"{path} in body must be of type {raw['format']}: {show(value)}"
        errors.append(invalid_value(path, value, text))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern.replace(r"\z", r"\Z"))
    except re.error:
        return re.compile("")


def _check_number(value: float, raw: Object, path: str, errors: list[FieldError]) -> None:
    least, most = raw.get("minimum"), raw.get("maximum")
    if least is not None:
        if raw.get("exclusiveMinimum"):
            if value <= least:
                errors.append(invalid_value(path, value, f"{path} in body should be greater than {least}"))
        elif value < least:
            errors.append(
                invalid_value(path, value, f"{path} in body should be greater than or equal to {least}")
            )
    if most is not None:
        if raw.get("exclusiveMaximum"):
            if value >= most:
                errors.append(invalid_value(path, value, f"{path} in body should be less than {most}"))
        elif value > most:
            errors.append(
                invalid_value(path, value, f"{path} in body should be less than or equal to {most}")
            )
    factor = raw.get("multipleOf")
    if factor and value % factor:
        errors.append(invalid_value(path, value, f"{path} in body should be a multiple of {factor}"))


def _check_logic(value: Any, raw: Object, path: str, errors: list[FieldError]) -> None:
    """allOf, anyOf, oneOf, not: the parts only restrict values, they specify no new fields."""
    for part in raw.get("allOf") or ():
        errors += _partial(value, part, path)
    options = raw.get("anyOf")
    fits = raw.get("x-kubernetes-int-or-string") or any(not _partial(value, p, path) for p in options or ())
    if options and not fits:
        errors.append(invalid_value(path, value, f"{path} in body must validate at least one schema (anyOf)"))
    options = raw.get("oneOf")
    if options and sum(not _partial(value, part, path) for part in options) != 1:
        errors.append(
            invalid_value(path, value, f"{path} in body must validate one and only one schema (oneOf)")
        )
    refused = raw.get("not")
    if refused and not _partial(value, refused, path):
        errors.append(invalid_value(path, value, f"{path} in body must not validate the schema (not)"))


_parts: dict[int, tuple[Object, Node]] = {}  # by identity: definitions are kept as long as their parts


def _partial(value: Any, raw: Object, path: str) -> list[FieldError]:
    kept = _parts.get(id(raw))
    if kept is None or kept[0] is not raw:
        if len(_parts) > 10_000:
            _parts.clear()
        kept = _parts[id(raw)] = (raw, schema.from_part(raw))
    found: list[FieldError] = []
    _check(value, kept[1], path, found)
    return found


def _is_time(value: str) -> bool:
    try:
        datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return False
    return "T" in value


def _is_date(value: str) -> bool:
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_address(version: int):
    def check(value: str) -> bool:
        try:
            return ipaddress.ip_address(value).version == version
        except ValueError:
            return False

    return check


def _is_cidr(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return "/" in value


_UUID = re.compile(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$")
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+$")
_HOSTNAME = re.compile(
    r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*\.?$"
)
_FORMATS: dict[str, Any] = {
    "date-time": _is_time,
    "date": _is_date,
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
    "cidr": _is_cidr,
    "uuid": _UUID.match,
    "email": _EMAIL.match,
    "hostname": _HOSTNAME.match,
    "uri": re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:").match,
}
