"""JSON patch (RFC 6902) with the reference server's leniency, which clients have come to rely on.

It differs from the RFC, and so from the libraries: replacing a missing key of a map adds it, copying a missing key
copies null, a path may lack its leading slash, and -1 means the end of a list.
"""

from __future__ import annotations

from typing import Any

import orjson

from sampan.api.copying import copied
from sampan.api.status import ApiError, bad_request

MAX_OPERATIONS = 10_000
MAX_COPIED = 3 * 1024 * 1024  # bytes of JSON that all copies of a patch may add: each may double the document


def json_patch(doc: Any, patch: Any) -> Any:
    """The patched document; `doc` is not changed. Raises ApiError 400 for a malformed patch, 422 when a step fails."""
    if not isinstance(patch, list):
        raise bad_request(f"json: cannot unmarshal {_go_kind(patch)} into Go value of type jsonpatch.Patch")
    if len(patch) > MAX_OPERATIONS:
        text = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}"
        raise ApiError(413, "RequestEntityTooLarge", text)
    holder = {"": copied(doc), "left": MAX_COPIED}  # every path begins at "", so that nobody reaches "left"
    for operation in patch:
        if not isinstance(operation, dict):
            kind = _go_kind(operation)
            raise bad_request(f"json: cannot unmarshal {kind} into Go value of type jsonpatch.Operation")
        try:
            _OPERATIONS[operation["op"]](holder, operation)
        except (KeyError, IndexError, ValueError, TypeError):
            raise _refused() from None
    if "" not in holder:  # the document itself was removed, or moved into itself
        raise _refused()
    return holder[""]


def _refused() -> ApiError:
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def _add(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    parent, key = _locate(holder, operation["path"])
    _put(parent, key, operation.get("value"))


def _remove(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    parent, key = _locate(holder, operation["path"])
    del parent[_index(parent, key)]


def _replace(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    parent, key = _locate(holder, operation["path"])
    index = _index(parent, key)
    if isinstance(parent, list):
        parent[index]  # raises IndexError: only maps take a missing key
    parent[index] = operation.get("value")


def _move(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    parent, key = _locate(holder, operation["from"])
    value = parent.pop(_index(parent, key))
    parent, key = _locate(holder, operation["path"])
    _put(parent, key, value)


def _copy(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    parent, key = _locate(holder, operation["from"])
    value = parent.get(key) if isinstance(parent, dict) else parent[_index(parent, key)]
    target, name = _locate(holder, operation["path"])
    holder["left"] -= len(orjson.dumps(value))
    if holder["left"] < 0:
        raise ValueError("the accumulated size of copies is too large")
    _put(target, name, copied(value))


def _test(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    parent, key = _locate(holder, operation["path"])
    wanted = operation.get("value")
    if isinstance(parent, dict) and key not in parent:
        if wanted is None and "value" in operation:
            return
        raise _refused()
    if not _same(parent[_index(parent, key)], wanted):
        raise _refused()


_OPERATIONS = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}


def _locate(holder: dict[str, Any], path: Any) -> tuple[Any, str]:
    """The container a path's last part lives in, and that part."""
    parts = path.split("/")
    if parts[0] != "":
        parts.insert(0, "")
    names = [part.replace("~1", "/").replace("~0", "~") for part in parts]
    target: Any = holder
    for name in names[:-1]:
        target = target[_index(target, name)]
    if not isinstance(target, dict | list):
        raise TypeError(f"{path} leads into a value")
    return target, names[-1]


def _index(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        return key
    index = int(key)
    if index < -1 or index >= len(container):
        raise IndexError(key)
    return index


def _put(parent: Any, key: str, value: Any) -> None:
    if isinstance(parent, dict):
        parent[key] = value
    elif key in ("-", "-1"):
        parent.append(value)
    else:
        index = int(key)
        if not 0 <= index <= len(parent):
            raise IndexError(key)
        parent.insert(index, value)


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON values: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _go_kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "bool", type(None): "null"}
    return names.get(type(value), "number")
