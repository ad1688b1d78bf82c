"""What expressions of a MutatingAdmissionPolicy make: `Object{...}`, a part of the object, or a list of `JSONPatch{...}`.

Source: Kubernetes documentation, "Mutating Admission Policy"; KEP-3962.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sampan.api import apply
from sampan.api.cel.functions import add
from sampan.api.cel.types import DYN, STRING, Type, object_of
from sampan.api.cel.values import CelError, Duration, Made, Optional, Timestamp, UInt
from sampan.api.schema import Node

_ROOT = "Object"
_JSON_PATCH = object_of("JSONPatch", {"op": STRING, "path": STRING, "from": STRING, "value": DYN})

add("jsonpatch.escapeKey(string): string", lambda text: text.replace("~", "~0").replace("/", "~1"))


@lru_cache(maxsize=512)
def makeable(name: str) -> Type | None:
    """`Object`, `Object.spec.template` and so on may have any fields; `JSONPatch` its own."""
    if name == "JSONPatch":
        return _JSON_PATCH
    return Type("object", name=name) if name == _ROOT or name.startswith(f"{_ROOT}.") else None


def patch_of(value: Any) -> list[dict[str, Any]]:
    """The JSON patch that an expression gave. Raises CelError."""
    if not isinstance(value, list) or not all(isinstance(v, Made) for v in value):
        raise CelError("type mismatch: JSONPatch expression should evaluate to array of JSONPatch")
    return [_plain(operation, "JSONPatch") for operation in value]


def applied(obj: dict[str, Any], value: Any, node: Node | None) -> dict[str, Any]:
    """`obj` with what an apply configuration says laid over it; `obj` is not changed. Raises CelError."""
    if not isinstance(value, Made):
        raise CelError("type mismatch: ApplyConfiguration expression should evaluate to Object")
    wish = _plain(value, _ROOT)
    try:
        return apply.laid_over(obj, wish, node)
    except ValueError as error:
        raise CelError(f"error applying patch: {error}") from None


def _plain(value: Any, name: str) -> Any:
    """JSON; what was made must be named after its place. Raises CelError."""
    if isinstance(value, Made):
        if value.type_name != name:
            text = f'unexpected type name "{value.type_name}", expected "{name}", which matches field name path from root Object type'
            raise CelError(text)
        return {key: _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise CelError("a map that becomes JSON must have text for keys")
        return {key: _plain(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, name) for item in value]
    match value:
        case UInt():
            return int(value)
        case Timestamp() | Duration():
            return str(value)
        case bytes():
            import base64

            return base64.b64encode(value).decode()
        case Optional():
            raise CelError("an optional value is not JSON")
        case None | bool() | int() | float() | str():
            return value
    return str(value)
