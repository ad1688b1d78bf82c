"""ConfigMaps and Secrets. Source: API reference, ConfigMap; "Secrets", types of Secret."""

from __future__ import annotations

import base64
import binascii

import orjson

from sampan.api import jsontext, names
from sampan.api.validate.base import (
    IMMUTABLE,
    NONE,
    Errors,
    forbidden_field,
    invalid_value,
    required,
    too_long,
)
from sampan.base.objects import Object

_LIMIT = 1024 * 1024
_SEALED = "field is immutable when `immutable` is set"
_REDACTED = "<secret contents redacted>"
_ACCOUNT = "kubernetes.io/service-account.name"


def config_map(errors: Errors, obj: Object) -> None:
    """At most 1 MiB of data, text and bytes together; a key is in one of both. Source: "ConfigMaps"."""
    data, binary = obj.get("data") or NONE, obj.get("binaryData") or NONE
    size = 0
    for key, value in data.items():
        _key(errors, f"data[{key}]", key)
        if key in binary:
            errors.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
        size += len(value) if value.isascii() else len(value.encode())
    for key, value in binary.items():
        _key(errors, f"binaryData[{key}]", key)
        size += _decoded_size(value)
    if size > _LIMIT:
        errors.append(too_long("[]", _LIMIT))


def _key(errors: Errors, path: str, key: str) -> None:
    for problem in names.config_key(key):
        errors.append(invalid_value(path, key, problem))


def _decoded_size(text: str | None) -> int:
    """Bytes that base64 text stands for."""
    text = text or ""
    return len(text) * 3 // 4 - text[-2:].count("=")


def config_map_update(errors: Errors, new: Object, old: Object) -> None:
    _sealed(errors, new, old, ("data", "binaryData"))
    config_map(errors, new)


def _sealed(errors: Errors, new: Object, old: Object, fields: tuple[str, ...]) -> None:
    """What is marked immutable stays so, and as it is."""
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        errors.append(forbidden_field("immutable", _SEALED))
    for field in fields:
        if (new.get(field) or NONE) != (old.get(field) or NONE):
            errors.append(forbidden_field(field, _SEALED))


def secret(errors: Errors, obj: Object) -> None:
    """At most 1 MiB of data; its type says which keys must be there. Source: "Secrets", types of Secret."""
    data = obj.get("data") or NONE
    size = 0
    for key, value in data.items():
        _key(errors, f"data[{key}]", key)
        size += _decoded_size(value)
    if size > _LIMIT:
        errors.append(too_long("data", _LIMIT))
    kind = obj.get("type", "")
    if kind == "kubernetes.io/service-account-token":
        if not (obj["metadata"].get("annotations") or NONE).get(_ACCOUNT):
            errors.append(required(f"metadata.annotations[{_ACCOUNT}]"))
    elif kind in _JSON_KEYS:
        _json(errors, data, _JSON_KEYS[kind])
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            errors.append(required("data[username]"))
            errors.append(required("data[password]"))
    elif kind == "kubernetes.io/ssh-auth":
        if not data.get("ssh-privatekey"):
            errors.append(required("data[ssh-privatekey]"))
    elif kind == "kubernetes.io/tls":
        for key in ("tls.crt", "tls.key"):
            if key not in data:
                errors.append(required(f"data[{key}]"))


_JSON_KEYS = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
}


def _json(errors: Errors, data: Object, key: str) -> None:
    """The key is there, and is JSON."""
    path = f"data[{key}]"
    if key not in data:
        errors.append(required(path))
        return
    try:
        text = base64.b64decode(data[key] or "", validate=True)
    except (binascii.Error, ValueError):
        return  # decoding has refused it
    try:
        orjson.loads(text)
    except ValueError:
        errors.append(invalid_value(path, _REDACTED, jsontext.explain(text)))


def secret_update(errors: Errors, new: Object, old: Object) -> None:
    """Its type stays; an immutable one stays as it is."""
    if new.get("type", "") != old.get("type", ""):
        errors.append(invalid_value("type", new.get("type", ""), IMMUTABLE))
    _sealed(errors, new, old, ("data",))
    secret(errors, new)
