"""Strategic merge patch: lists merge by the key the schema names, and directives say what a plain merge cannot.

Source: the API reference's "patch strategy" and "patch merge key" of each field, and the strategic merge patch page of
the contributors' guide for the directives `$patch`, `$retainKeys`, `$setElementOrder/F`, `$deleteFromPrimitiveList/F`.
"""

from __future__ import annotations

from typing import Any

from sampan.api.schema import Node, child_of
from sampan.api.status import ApiError, bad_request

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_VALUES = "$deleteFromPrimitiveList/"

Map = dict[str, Any]


def strategic_merge(doc: Map, patch: Any, node: Node | None) -> Map:
    """The patched document, made of the arguments, which are used up. `node` is the schema of the kind.

    Raises ApiError: 400 for a patch that is no object or contradicts itself, 500 (as the reference does) for a
    directive nobody knows or an element without its merge key.
    """
    if not isinstance(patch, dict):
        raise bad_request("json: cannot unmarshal array into Go value of type map[string]interface {}")
    return _merge_map(doc, patch, node)


def _failed(text: str) -> ApiError:
    return ApiError(500, "", text)


def _merge_map(original: Map, patch: Map, node: Node | None) -> Map:
    if _PATCH in patch:
        directive = patch.pop(_PATCH)
        if directive == "replace":
            return patch
        if directive == "delete":
            return {}
        raise _failed(f"unknown patch type: {directive} in map: {go_text({_PATCH: directive, **patch})}")
    _retain_keys(original, patch)
    _ordered_lists(original, patch, node)
    for key, value in patch.items():
        if key.startswith(_DELETE_VALUES):
            if not isinstance(value, list):
                raise bad_request("invalid patch format of primitive list")
            field = key.removeprefix(_DELETE_VALUES)
            if isinstance(original.get(field), list):
                original[field] = [item for item in original[field] if item not in value]
        elif value is None:
            original.pop(key, None)
        elif key not in original:
            original[key] = _plain(value)
        else:
            original[key] = _merge_value(original[key], value, child_of(node, key))
    return original


def _merge_value(original: Any, patch: Any, node: Node | None) -> Any:
    if isinstance(original, dict) and isinstance(patch, dict):
        replace = node is not None and "replace" in node.patch_strategy
        return _plain(patch) if replace else _merge_map(original, patch, node)
    if isinstance(original, list) and isinstance(patch, list):
        return _merge_list(original, patch, node) if _merges(node) else _plain(patch)
    return patch


def _merges(node: Node | None) -> bool:
    return node is not None and "merge" in node.patch_strategy


def _retain_keys(original: Map, patch: Map) -> None:
    """`$retainKeys` lists every key that may stay; a patch that sets another one contradicts itself."""
    if _RETAIN not in patch:
        return
    keep = patch.pop(_RETAIN)
    directives = (_PATCH, _ORDER, _DELETE_VALUES)
    named = [key for key, value in patch.items() if value is not None and not key.startswith(directives)]
    if not isinstance(keep, list) or any(key not in keep for key in named):
        raise bad_request("invalid patch format of retainKeys")
    for key in [key for key in original if key not in keep]:
        del original[key]


def _ordered_lists(original: Map, patch: Map, node: Node | None) -> None:
    """Merge the lists whose order the patch dictates, and take them out of it."""
    for key in [key for key in patch if key.startswith(_ORDER)]:
        order, field = patch.pop(key), key.removeprefix(_ORDER)
        child = child_of(node, field)
        before, change = original.get(field), patch.get(field)
        if not (
            isinstance(order, list) and all(one is None or isinstance(one, list) for one in (before, change))
        ):
            raise bad_request("invalid patch format of setElementOrder list")
        merge_key = child.merge_key if child is not None else ""
        if change and order:
            _check_order(change, order, merge_key)
        if before is None and change is None:
            continue
        if change is None:
            merged = before
        elif before is None:
            merged = _plain(change)
        else:
            merged = _merge_value(before, change, child)
        patch.pop(field, None)
        original[field] = _arrange(merged or [], order, before or [], merge_key)


def _check_order(change: list[Any], order: list[Any], merge_key: str) -> None:
    """Every element the patch does not delete must be in the order list, in the same sequence."""
    kept = [_identity(e, merge_key) for e in change if not (isinstance(e, dict) and _PATCH in e)]
    wanted = iter([_identity(e, merge_key) for e in order])
    if not all(any(item == other for other in wanted) for item in kept):
        raise _failed(
            f"The order in patch list:\n{go_text(change)}\n doesn't match $setElementOrder list:\n{go_text(order)}\n"
        )


def _merge_list(original: list[Any], patch: list[Any], node: Node | None) -> list[Any]:
    merge_key = node.merge_key if node is not None else ""
    if not any(isinstance(item, dict) for item in [*original, *patch]):
        merged = list(dict.fromkeys([*original, *patch]))
        return _arrange(merged, patch, original, "")
    if not merge_key:
        raise _failed("cannot merge lists without merge key")
    before = list(original)
    merged, additions = _list_directives(list(original), patch, merge_key)
    items = node.items if node is not None else None
    for change in additions:
        if merge_key not in change:
            raise _failed(f"map: {go_text(change)} does not contain declared merge key: {merge_key}")
        for i, item in enumerate(merged):
            if _identity(item, merge_key) == _identity(change, merge_key):
                merged[i] = _merge_map(item, change, items)
                break
        else:
            merged.append(_plain(change))
    return _arrange(merged, additions, before, merge_key)


def _list_directives(original: list[Any], patch: list[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """Carry out `$patch` elements; returns what is left of the original and of the patch."""
    additions, replace = [], False
    for change in patch:
        directive = change.get(_PATCH)
        if directive is None:
            additions.append(change)
        elif directive == "delete":
            if merge_key not in change:
                raise _failed("delete patch type with no merge key defined")
            original = [e for e in original if _identity(e, merge_key) != _identity(change, merge_key)]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise _failed("merging lists cannot yet be specified in the patch")
        else:
            raise _failed(f"unknown patch type: {directive} in map: {go_text(change)}")
    return ([] if replace else original), additions


def _arrange(merged: list[Any], order: list[Any], before: list[Any], merge_key: str) -> list[Any]:
    """Elements of `order` in its sequence, the others in their old one; where both are known, the old one decides."""
    wanted = _positions(order, merge_key)
    known = _positions(before, merge_key)
    far = len(merged) + len(before)
    named = sorted(
        (e for e in merged if _identity(e, merge_key) in wanted),
        key=lambda e: wanted[_identity(e, merge_key)],
    )
    others = sorted(
        (e for e in merged if _identity(e, merge_key) not in wanted),
        key=lambda e: known.get(_identity(e, merge_key), far),
    )
    result = []
    while named and others:
        left, right = known.get(_identity(others[0], merge_key)), known.get(_identity(named[0], merge_key))
        first = others if left is not None and right is not None and left < right else named
        result.append(first.pop(0))
    return result + named + others


def _positions(items: list[Any], merge_key: str) -> dict[str, int]:
    positions: dict[str, int] = {}
    for i, item in enumerate(items):
        positions.setdefault(_identity(item, merge_key), i)
    return positions


def _identity(item: Any, merge_key: str) -> str:
    return go_text(item.get(merge_key) if isinstance(item, dict) else item)


def _plain(value: Any) -> Any:
    """A patch taken as the value: nulls and directives are not data."""
    if isinstance(value, dict):
        return {
            k: _plain(v)
            for k, v in value.items()
            if v is not None and k not in (_PATCH, _RETAIN) and not k.startswith((_ORDER, _DELETE_VALUES))
        }
    if isinstance(value, list):
        return [_plain(e) for e in value if not (isinstance(e, dict) and e.get(_PATCH) == "delete")]
    return value


def go_text(value: Any) -> str:
    """A JSON value as Go's %v prints it, for messages clients compare: map[a:1 b:[x y]]."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{go_text(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_text, value)) + "]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)
