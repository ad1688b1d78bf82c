"""Sets of fields in the form `managedFields` stores them (FieldsV1), and how an object and its changes become one.

A set is a trie: keys `f:name` (a field), `k:{...}` (an element by its keys), `v:...` (a value of a set). A place is a
member when its trie is empty or holds `.`. None stands for the empty set. Source: KEP-555 and meta/v1 FieldsV1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import orjson

from sampan.api.schema import Node, child_of
from sampan.base.memo import Memo

Trie = dict[str, Any]
_MEMBER: Trie = {}

# Structs (not pointers) in the reference's types: an empty one is always there, so it is never "added".
_ALWAYS_THERE = frozenset(
    "metadata spec status template strategy updateStrategy jobTemplate loadBalancer scaleTargetRef nodeInfo"
    " daemonEndpoints kubeletEndpoint roleRef involvedObject source containers".split()
)


def union(left: Trie | None, right: Trie | None) -> Trie | None:
    """Members of either. The result may be `left` or `right` itself, or share parts with both: tries never change."""
    if left is None or right is None:
        return right if left is None else left
    result = left
    for key, below in right.items():
        if key == ".":
            continue
        known = left.get(key)
        both = union(known, below)
        if both is not known:
            if result is left:
                result = dict(left)
            result[key] = both
    if result and "." not in result and (is_member(left) or is_member(right)):
        return {".": _MEMBER, **result}
    return result


def difference(left: Trie | None, right: Trie | None) -> Trie | None:
    """Members of `left` that `right` lacks; `left` itself when they share none."""
    if left is None or right is None:
        return left
    result = left
    for key, below in right.items():
        known = None if key == "." else left.get(key)
        if known is None:
            continue
        rest = difference(known, below)
        if rest is not known:
            if result is left:
                result = dict(left)
            if rest is None:
                del result[key]
            else:
                result[key] = rest
    if is_member(right) and is_member(left):
        if result is left:
            result = dict(left)
        result.pop(".", None)
        return result or None
    if not result:
        return result if result is left else None
    return _MEMBER if len(result) == 1 and "." in result else result


def intersection(left: Trie | None, right: Trie | None) -> Trie | None:
    """The fields that are in both."""
    if left is None or right is None:
        return None
    children = {k: intersection(v, right.get(k)) for k, v in left.items() if k != "."}
    return _build(is_member(left) and is_member(right), children)


def without(fields: Trie | None, *path: str) -> Trie | None:
    """The set less everything at and below a path."""
    if fields is None or path[0] not in fields:
        return fields
    rest = dict(fields)
    below = rest.pop(path[0])
    kept = without(below, *path[1:]) if len(path) > 1 else None
    if kept is not None:
        rest[path[0]] = kept
    return rest or None


def members(fields: Trie | None, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every member's path, in the order of the trie."""
    if fields is None:
        return
    if is_member(fields):
        yield prefix
    for key, below in fields.items():
        if key != ".":
            yield from members(below, (*prefix, key))


def show(path: tuple[str, ...]) -> str:
    """A path as messages name it: .spec.ports[port=53,protocol="TCP"].name"""
    text = ""
    for part in path:
        kind, _, rest = part.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            pairs = orjson.loads(rest)
            text += "[" + ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in sorted(pairs.items())) + "]"
        else:
            text += f"[={rest}]"
    return text


def applied(value: Any, node: Node | None) -> Trie | None:
    """The fields an applied configuration names: leaves, and list elements."""
    if isinstance(value, dict) and not is_atomic(value, node):
        children = {}
        for key, item in value.items():
            below = applied(item, child_of(node, key))
            declared = node is not None and key in node.properties
            if item is None or item == {}:
                below = _MEMBER
            elif not declared:
                below = _build(True, below or {})
            if below is not None:
                children[f"f:{key}"] = below
        return children or None
    if isinstance(value, list) and not is_atomic(value, node):
        assert node is not None
        elements: dict[str, Trie | None] = {
            element(item, node): _build(
                True, (applied(item, node.items) or {}) if isinstance(item, dict) else {}
            )
            for item in value
        }
        return elements or None
    return _MEMBER


def whole(value: Any, node: Node | None) -> Trie:
    """Every field of a value that was not there before, the value itself included."""
    if isinstance(value, dict):
        if not value or (node is not None and node.map_type == "atomic"):
            return _MEMBER
        for item in value.values():
            if type(item) is dict or type(item) is list:
                break
        else:
            return _flat(tuple(value))
        fields: Trie = {".": _MEMBER}
        if node is None:
            for key, item in value.items():
                fields["f:" + key] = whole(item, None) if isinstance(item, dict) else _MEMBER
            return fields
        properties, other = node.properties, node.additional
        for key, item in value.items():
            if isinstance(item, dict | list):
                fields["f:" + key] = whole(item, properties.get(key) or other)
            else:
                fields["f:" + key] = _MEMBER
        return fields
    if isinstance(value, list) and value and not is_atomic(value, node):
        assert node is not None
        return {".": _MEMBER, **{key: whole(item, node.items) for key, item in by_key(value, node).items()}}
    return _MEMBER


@functools.lru_cache(maxsize=4096)
def _flat(keys: tuple[str, ...]) -> Trie:
    """A map of nothing but scalars, such as most variables, ports and resource lists: shared by all that look alike."""
    return {".": _MEMBER, **{"f:" + key: _MEMBER for key in keys}}


Changes = tuple[Trie | None, Trie | None, Trie | None]


def compare(old: Any, new: Any, node: Node | None) -> Changes:
    """(removed, modified, added) fields between two values that are both there."""
    if old is new or old == new:
        return None, None, None
    if isinstance(old, dict) and isinstance(new, dict) and not is_atomic(new, node):
        return _compare_maps(old, new, node)
    if isinstance(old, list) and isinstance(new, list) and not is_atomic(new, node):
        assert node is not None
        return _compare_children(by_key(old, node), by_key(new, node), node.items)
    return None, _MEMBER, None


def created(new: Any, node: Node | None) -> Trie | None:
    """Every field of a value where nothing was: all that `compare` with an empty one finds, in a quarter of the time."""
    if not new:
        return None
    if is_atomic(new, node):
        return _MEMBER
    if isinstance(new, list):
        assert node is not None
        return {key: whole(item, node.items) for key, item in by_key(new, node).items()}
    properties, other = (node.properties, node.additional) if node is not None else ({}, None)
    fields: Trie = {}
    for key, item in new.items():
        child = properties.get(key) or other
        if key in _ALWAYS_THERE and key in properties and isinstance(item, dict | list):
            below = _created_spec(item, child) if key == "spec" else created(item, child)
            if below is not None:
                fields["f:" + key] = below
        else:
            fields["f:" + key] = whole(item, child)
    return fields or None


_specs: Memo[Trie] = Memo()


def _created_spec(new: Any, node: Node | None) -> Trie | None:
    """Pods of one template have one spec, and so one set of fields."""
    text = orjson.dumps(new)
    known = _specs.get(node, text)
    if known is None and (known := created(new, node)) is not None:
        _specs.put(node, text, known)
    return known


def _compare_maps(old: Trie, new: Trie, node: Node | None) -> Changes:
    removed: Trie = {}
    modified: Trie = {}
    added: Trie = {}
    properties, other = (node.properties, node.additional) if node is not None else ({}, None)
    for key in (*new, *(key for key in old if key not in new)):
        before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if before == after:
            continue
        child = properties.get(key) or other
        there = after if before is _ABSENT else before
        if (before is _ABSENT or after is _ABSENT) and not (
            key in _ALWAYS_THERE and key in properties and isinstance(there, dict | list)
        ):
            (added if before is _ABSENT else removed)["f:" + key] = whole(there, child)
            continue
        empty = type(there)()
        _note(
            compare(empty if before is _ABSENT else before, empty if after is _ABSENT else after, child),
            "f:" + key,
            removed,
            modified,
            added,
        )
    return removed or None, modified or None, added or None


_ABSENT = object()


def _compare_children(before: Trie, after: Trie, node: Node | None) -> Changes:
    """Elements of two lists by their keys."""
    removed: Trie = {}
    modified: Trie = {}
    added: Trie = {}
    for key, value in before.items():
        if key not in after:
            removed[key] = whole(value, node)
    for key, value in after.items():
        if key not in before:
            added[key] = whole(value, node)
        elif before[key] != value:
            _note(compare(before[key], value, node), key, removed, modified, added)
    return removed or None, modified or None, added or None


def _note(changes: Changes, key: str, removed: Trie, modified: Trie, added: Trie) -> None:
    """Put the changes of one child where they belong."""
    gone, changed, fresh = changes
    if gone is not None:
        removed[key] = gone
    if changed is not None:
        modified[key] = changed
    if fresh is not None:
        added[key] = fresh


def is_atomic(value: Any, node: Node | None) -> bool:
    """Whether a map or list is one value. Without a schema lists are, maps are not."""
    if isinstance(value, list):
        return node is None or node.list_type not in ("map", "set")
    return node is not None and node.map_type == "atomic"


def by_key(items: list[Any], node: Node) -> dict[str, Any]:
    """Elements by their keys. Those that share one are a tuple, which is owned and changes as a whole."""
    found: dict[str, Any] = {}
    for item in items:
        key = element(item, node)
        if key in found:
            first = found[key]
            item = (*first, item) if isinstance(first, tuple) else (first, item)
        found[key] = item
    return found


def element(item: Any, node: Node) -> str:
    """The trie's key of a list element; keys that are left out take their defaults."""
    if node.list_type == "set":
        return "v:" + orjson.dumps(item).decode()
    items = node.items
    if len(node.map_keys) == 1 and isinstance(item, dict):
        key = node.map_keys[0]
        if item.get(key) is not None:
            return f'k:{{"{key}":{orjson.dumps(item[key]).decode()}}}'
    keys = {}
    for key in node.map_keys:
        value = item.get(key) if isinstance(item, dict) else None
        if value is None:
            declared = items.properties.get(key) if items is not None else None
            value = declared.default if declared is not None else None
            if value is None and key == "protocol":
                value = "TCP"
        if value is not None:
            keys[key] = value
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def is_member(fields: Trie) -> bool:
    return not fields or "." in fields


def _build(member: bool, children: dict[str, Any]) -> Trie | None:
    kept = {k: v for k, v in children.items() if v is not None}
    if kept and member:
        return {".": {}, **kept}
    return kept or ({} if member else None)
