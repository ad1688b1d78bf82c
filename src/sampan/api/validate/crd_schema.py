"""The schema of a custom resource must be structural, and must not ask for more than a server can do.

Source: "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema"; KEP-1693.
"""

from __future__ import annotations

from typing import Any

from sampan.api import re2
from sampan.api import schema as schemas
from sampan.api.validate import custom
from sampan.api.validate.base import (
    Errors,
    FieldError,
    as_json,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from sampan.base.objects import Object

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_EMPTY = {
    "root": "must not be empty at the root",
    "field": "must not be empty for specified object fields",
    "item": "must not be empty for specified array items",
}
_LOGIC = ("allOf", "anyOf", "oneOf")
# What the parts of allOf, anyOf, oneOf and not may not say: they restrict, they don't specify.
_NOT_IN_PARTS = (
    "default",
    "description",
    "title",
    "type",
    "nullable",
    "additionalProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)


def schema(errors: Errors, raw: Object, path: str) -> None:
    """A whole `openAPIV3Schema`."""
    if raw.get("nullable"):
        detail = "nullable cannot be true at the root"
        errors.append(forbidden_field(f"{path}.nullable", detail))
    before = len(errors)
    _limits(errors, raw, path)
    if len(errors) == before:
        _structure(errors, raw, path, "root")
        _rules(errors, raw, path)


# What no schema may contain


def _limits(errors: Errors, raw: Any, path: str) -> None:
    if not isinstance(raw, dict):
        return
    if raw.get("$ref") is not None:
        errors.append(forbidden_field(f"{path}.$ref", "$ref is not supported"))
    if raw.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(forbidden_field(f"{path}.uniqueItems", detail))
    for field, detail in (
        ("definitions", "definitions is not supported"),
        ("dependencies", "dependencies is not supported"),
        ("additionalItems", "additionalItems is not supported"),
        ("patternProperties", "patternProperties is not supported"),
        ("id", "id is not supported"),
    ):
        if raw.get(field):
            errors.append(forbidden_field(f"{path}.{field}", detail))
    additional = raw.get("additionalProperties")
    if additional is not None:
        if raw.get("properties"):
            detail = "additionalProperties and properties are mutual exclusive"
            errors.append(forbidden_field(f"{path}.additionalProperties", detail))
        if additional is False:
            detail = "additionalProperties cannot be set to false"
            errors.append(forbidden_field(f"{path}.additionalProperties", detail))
        _limits(errors, additional, f"{path}.additionalProperties")
    for name, part in sorted((raw.get("properties") or {}).items()):
        _limits(errors, part, f"{path}.properties[{name}]")
    for field in _LOGIC:
        for index, part in enumerate(raw.get(field) or ()):
            _limits(errors, part, f"{path}.{field}[{index}]")
    if raw.get("not"):
        _limits(errors, raw["not"], f"{path}.not")
    items = raw.get("items")
    if isinstance(items, list):
        detail = "items must be a schema object and not an array"
        errors.append(forbidden_field(f"{path}.items", detail))
    elif items is not None:
        _limits(errors, items, f"{path}.items")
    _scalar_limits(errors, raw, path)


def _scalar_limits(errors: Errors, raw: Object, path: str) -> None:
    kind, pattern = raw.get("type", ""), raw.get("pattern")
    if kind == "null":
        detail = "type cannot be set to null, use nullable as an alternative"
        errors.append(forbidden_field(f"{path}.type", detail))
    elif kind and kind not in _TYPES:
        errors.append(not_supported(f"{path}.type", kind, _TYPES))
    if pattern:
        wrong = re2.error(pattern)
        if wrong:
            detail = f"must be a valid regular expression, but isn't: {wrong}"
            errors.append(invalid_value(f"{path}.pattern", pattern, detail))
    if raw.get("x-kubernetes-preserve-unknown-fields") is False:
        detail = "must be true or undefined"
        errors.append(invalid_value(f"{path}.x-kubernetes-preserve-unknown-fields", False, detail))
    _list_type(errors, raw, path)
    _map_type(errors, raw, path)


def _list_type(errors: Errors, raw: Object, path: str) -> None:
    kind, keys = raw.get("x-kubernetes-list-type"), raw.get("x-kubernetes-list-map-keys") or ()
    at, keys_at = f"{path}.x-kubernetes-list-type", f"{path}.x-kubernetes-list-map-keys"
    if kind is not None:
        if not raw.get("type"):
            detail = "must be array if x-kubernetes-list-type is specified"
            errors.append(required(f"{path}.type", detail))
        elif raw["type"] != "array":
            detail = "must be array if x-kubernetes-list-type is specified"
            errors.append(invalid_value(f"{path}.type", raw["type"], detail))
        if kind not in ("atomic", "set", "map"):
            errors.append(not_supported(at, kind, ("atomic", "set", "map")))
    if kind == "map":
        if not keys:
            errors.append(required(keys_at, "must not be empty if x-kubernetes-list-type is map"))
        _map_items(errors, raw, keys, path)
    elif keys:
        if kind is None:
            errors.append(required(at, "must be map if x-kubernetes-list-map-keys is non-empty"))
        else:
            detail = "must be map if x-kubernetes-list-map-keys is non-empty"
            errors.append(invalid_value(at, kind, detail))


def _map_items(errors: Errors, raw: Object, keys: Any, path: str) -> None:
    """Items of an associative list are objects that have the keys."""
    items, at = raw.get("items"), f"{path}.items"
    if not isinstance(items, dict):
        errors.append(required(at, "must have a schema if x-kubernetes-list-type is map"))
        return
    if items.get("type") != "object":
        detail = "must be object if parent array's x-kubernetes-list-type is map"
        errors.append(invalid_value(f"{at}.type", items.get("type", ""), detail))
    properties, seen = items.get("properties") or {}, set()
    for index, key in enumerate(keys):
        where = f"{path}.x-kubernetes-list-map-keys[{index}]"
        child = properties.get(key)
        if child is None:
            errors.append(invalid_value(where, key, "entries must all be names of item properties"))
        elif child.get("type") in ("array", "object"):
            detail = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            errors.append(invalid_value(f"{at}.properties[{key}].type", child["type"], detail))
        elif child.get("nullable"):
            errors.append(
                forbidden_field(
                    f"{at}.properties[{key}].nullable",
                    "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
                )
            )
        elif "default" not in child and key not in (items.get("required") or ()):
            detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            errors.append(required(f"{at}.properties[{key}].default", detail))
        if key in seen:
            errors.append(duplicate(where, key))
        seen.add(key)


def _map_type(errors: Errors, raw: Object, path: str) -> None:
    kind = raw.get("x-kubernetes-map-type")
    if kind is None:
        return
    if raw.get("type") != "object":
        detail = "must be object if x-kubernetes-map-type is specified"
        if not raw.get("type"):
            errors.append(required(f"{path}.type", detail))
        else:
            errors.append(invalid_value(f"{path}.type", raw["type"], detail))
    if kind not in ("atomic", "granular"):
        errors.append(not_supported(f"{path}.x-kubernetes-map-type", kind, ("atomic", "granular")))


# What makes it structural


def _structure(errors: Errors, raw: Object, path: str, level: str) -> None:
    kind = raw.get("type", "")
    either = raw.get("x-kubernetes-int-or-string")
    keeps = raw.get("x-kubernetes-preserve-unknown-fields")
    if level == "root" and kind and kind != "object":
        errors.append(invalid_value(f"{path}.type", kind, "must be object at the root"))
    elif not kind and (level == "root" or not (either or keeps)):
        errors.append(required(f"{path}.type", _EMPTY[level]))
    if kind and either:
        detail = "must be empty if x-kubernetes-int-or-string is true"
        errors.append(invalid_value(f"{path}.type", kind, detail))
    if raw.get("x-kubernetes-embedded-resource"):
        _embedded(errors, raw, path)
    if kind == "array" and raw.get("items") is None:
        errors.append(required(f"{path}.items", "must be specified"))
    if level == "root" or raw.get("x-kubernetes-embedded-resource"):
        _metadata(errors, raw, path)
    if "default" in raw:
        _default(errors, raw, path)
    for name, part in sorted((raw.get("properties") or {}).items()):
        if name == "metadata" and level == "root":
            continue
        _structure(errors, part, f"{path}.properties[{name}]", "field")
    if isinstance(raw.get("items"), dict):
        _structure(errors, raw["items"], f"{path}.items", "item")
    if isinstance(raw.get("additionalProperties"), dict):
        _structure(errors, raw["additionalProperties"], f"{path}.additionalProperties", "field")
    for field in _LOGIC:
        for index, part in enumerate(raw.get(field) or ()):
            _part(errors, part, raw, f"{path}.{field}[{index}]", either=bool(either))
    if raw.get("not"):
        _part(errors, raw["not"], raw, f"{path}.not", either=False)


def _embedded(errors: Errors, raw: Object, path: str) -> None:
    if raw.get("type") != "object":
        detail = "must be object if x-kubernetes-embedded-resource is true"
        errors.append(invalid_value(f"{path}.type", raw.get("type", ""), detail))
    if not raw.get("properties") and not raw.get("x-kubernetes-preserve-unknown-fields"):
        detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        errors.append(required(f"{path}.properties", detail))


def _metadata(errors: Errors, raw: Object, path: str) -> None:
    """Of metadata a schema restricts the name at most."""
    meta = (raw.get("properties") or {}).get("metadata")
    if meta is None:
        return
    at = f"{path}.properties[metadata]"
    allowed = {"type", "properties", "description", "title"}
    names = set(meta.get("properties") or {})
    if set(meta) - allowed or names - {"name", "generateName"}:
        detail = (
            "must not specify anything other than name and generateName, but metadata is implicitly specified"
        )
        errors.append(forbidden_field(at, detail))
    if meta.get("type", "object") != "object":
        errors.append(invalid_value(f"{at}.type", meta["type"], "must be object"))


def _part(errors: Errors, part: Object, whole: Object, path: str, *, either: bool) -> None:
    """A part names only what the whole specifies, and restricts it."""
    for field in _NOT_IN_PARTS:
        if part.get(field) is None or (field == "type" and either):
            continue
        errors.append(forbidden_field(f"{path}.{field}", "must be empty to be structural"))
    for name, child in sorted((part.get("properties") or {}).items()):
        known = (whole.get("properties") or {}).get(name)
        at = f"{path}.properties[{name}]"
        if known is None:
            if not isinstance(whole.get("additionalProperties"), dict):
                where = at[: at.rindex(".properties[")]
                detail = f"because it is defined in {where}.properties[{name}]"
                errors.append(required(_whole_path(path) + f".properties[{name}]", detail))
            continue
        _part(errors, child, known, at, either=False)
    if isinstance(part.get("items"), dict) and isinstance(whole.get("items"), dict):
        _part(errors, part["items"], whole["items"], f"{path}.items", either=False)
    for field in _LOGIC:
        for index, inner in enumerate(part.get(field) or ()):
            _part(errors, inner, whole, f"{path}.{field}[{index}]", either=False)
    if part.get("not"):
        _part(errors, part["not"], whole, f"{path}.not", either=False)


def _whole_path(path: str) -> str:
    """The path of the schema that a part belongs to."""
    for field in (*(f".{name}[" for name in _LOGIC), ".not"):
        at = path.find(field)
        if at >= 0:
            path = path[:at]
    return path


def _default(errors: Errors, raw: Object, path: str) -> None:
    """A default must be valid itself."""
    found: Errors = []
    custom.check(found, raw["default"], schemas.from_part(raw), "")
    for error in found:
        at = f"{path}.default" + (f".{error.field.lstrip('.')}" if error.field else "")
        reason = "FieldValueInvalid" if error.reason == "FieldValueTypeInvalid" else error.reason
        errors.append(FieldError(reason, at, error.message))


# Rules in CEL


def _rules(errors: Errors, raw: Object, path: str) -> None:
    """What every x-kubernetes-validations has; expressions are compiled where there is an interpreter."""
    given = raw.get("x-kubernetes-validations") or ()
    seen: set[bytes] = set()
    for index, rule in enumerate(given):
        at = f"{path}.x-kubernetes-validations[{index}]"
        text, message = rule.get("rule", ""), rule.get("message")
        if not text.strip():
            errors.append(required(f"{at}.rule", "rule is not specified"))
        identity = as_json(text)
        if identity in seen:
            errors.append(duplicate(at, text))
        seen.add(identity)
        if message is not None and not message.strip():
            errors.append(invalid_value(f"{at}.message", message, "message must be non-empty if specified"))
        elif message is not None and "\n" in message:
            detail = "message must not contain line breaks"
            errors.append(invalid_value(f"{at}.message", message, detail))
        elif not message and "\n" in text.strip() and not rule.get("messageExpression"):
            detail = "message must be specified if rule contains line breaks"
            errors.append(required(f"{at}.message", detail))
        reason = rule.get("reason")
        if reason and reason not in _REASONS:
            errors.append(not_supported(f"{at}.reason", reason, _REASONS))
    for name, part in sorted((raw.get("properties") or {}).items()):
        _rules(errors, part, f"{path}.properties[{name}]")
    for field in ("items", "additionalProperties"):
        if isinstance(raw.get(field), dict):
            _rules(errors, raw[field], f"{path}.{field}")


_REASONS = ("FieldValueRequired", "FieldValueInvalid", "FieldValueForbidden", "FieldValueDuplicate")
