"""What a rule may cost at worst, from the sizes that a schema allows: rules that may cost too much are refused at once.

Sizes are those of the original's estimator: what a schema does not limit is limited by the 3 MiB of a request. What
functions cost is what the original's tests say they do; where those are silent the estimate is low, and running limits.
Source: Kubernetes documentation, "Resource use by validation functions"; KEP-2876.
"""

from __future__ import annotations

import math
from typing import Any

from sampan.api.cel.ast import Call, Choice, Const, Expr, ListOf, Logic, Macro, MapOf, Name, Select
from sampan.api.schema import Node

REQUEST = 3 * 1024 * 1024  # bytes that all of an object may have
RULE_LIMIT = 10_000_000  # cost of a rule, for all places where its schema may stand in an object
SCHEMA_LIMIT = 100_000_000  # of all rules of a schema
_STEP = 3  # of a loop, beside its parts
_KEEP = 11  # more of one that makes a list
_LIST, _MAP = 10, 30  # of making one
_TIMES = 32  # characters of a duration or a time at most
_LEAST = {"date-time": 21, "date": 12, "duration": 3}  # bytes that such a text has at least, with its quotes
_ORDERED = ("_<_", "_<=_", "_>_", "_>=_")
_PREFIXES = ("startsWith", "endsWith")
_REGEX = ("matches", "find", "findAll")
_WALKS_TEXT = ("lowerAscii", "upperAscii", "trim", "substring", "indexOf", "lastIndexOf")
_WALKS_LIST = ("sum", "min", "max", "isSorted", "indexOf", "lastIndexOf")

Shape = Node | int | None  # the schema of a value, or how long it is, or nothing known


def worst(tree: Expr, node: Node) -> float:
    """The most that one evaluation of a rule on a value of this schema may cost."""
    return _cost(tree, {"self": node, "oldSelf": node})[0]


def _walk(length: float) -> float:
    """What it costs to look at so many characters or items."""
    return math.ceil(length / 10)


def size(shape: Shape) -> float:
    """How many items or characters a value may have at most; 0 for numbers and the like, 1 for what is not known."""
    if shape is None:
        return 1
    if isinstance(shape, int):
        return shape
    raw: dict[str, Any] = shape.raw
    match shape.type:
        case "string":
            length = raw.get("maxLength")
            if length is not None:
                return 4 * length
            longest = max((len(str(v)) for v in raw.get("enum") or ()), default=None)
            return longest or (_TIMES if raw.get("format") in _LEAST else REQUEST - 2)
        case "array":
            limit = raw.get("maxItems")
            return (REQUEST - 2) // (_least(shape.items) + 1) if limit is None else limit
        case "object" if shape.additional is not None:
            limit = raw.get("maxProperties")
            return (REQUEST - 2) // (_least(shape.additional) + 6) if limit is None else limit
        case "integer" | "number" | "boolean":
            return 0
    return 1


def _least(node: Node | None) -> int:
    """Bytes that a value has at least when it is written."""
    if node is None:
        return 1
    match node.type:
        case "string":
            return _LEAST.get(str(node.raw.get("format")), 2)
        case "array":
            return 2
        case "boolean":
            return 4
        case "object":
            needed = node.raw.get("required") or ()
            return 2 + sum(len(k) + 4 + _least(node.properties.get(k)) for k in needed)
    return 1


def _cost(tree: Expr, scope: dict[str, Shape]) -> tuple[float, Shape]:
    match tree:
        case Const():
            return 0, len(tree.value) if isinstance(tree.value, str | bytes) else None
        case Name():
            return 1, scope.get(tree.name)
        case Select():
            cost, shape = _cost(tree.operand, scope)
            if tree.test:
                return cost - 1, 0
            return cost + 1, shape.properties.get(tree.field) if isinstance(shape, Node) else None
        case Logic():
            return sum(_cost(p, scope)[0] for p in tree.parts), None
        case Choice():
            test, (yes, shape), (no, other) = (
                _cost(part, scope) for part in (tree.condition, tree.then, tree.otherwise)
            )
            return test[0] + max(yes, no), shape if size(shape) >= size(other) else other
        case ListOf():
            return _LIST + sum(_cost(item, scope)[0] for item, _ in tree.items), len(tree.items)
        case MapOf():
            return _MAP + sum(_cost(k, scope)[0] + _cost(v, scope)[0] for k, v, _ in tree.entries), len(
                tree.entries
            )
        case Macro():
            return _macro(tree, scope)
        case Call():
            return _call(tree, scope)
    return 1, None


def _call(tree: Call, scope: dict[str, Shape]) -> tuple[float, Shape]:
    given = [_cost(a, scope) for a in ((tree.target,) if tree.target is not None else ()) + tuple(tree.args)]
    before = sum(c for c, _ in given)
    cost, shape = _own(tree.function, [s for _, s in given])
    return before + cost, shape


def _own(function: str, shapes: list[Shape]) -> tuple[float, Shape]:
    """What a function costs beside its arguments, and the shape of what it gives."""
    first = shapes[0] if shapes else None
    sizes = [size(s) for s in shapes] or [1]
    if function in ("_==_", "_!=_"):
        return _walk(min(sizes)), None
    if function in _ORDERED:
        return max(1, _walk(min(sizes))), None
    if function == "_+_":
        return max(1, _walk(sum(sizes))), int(sum(sizes))
    if function in ("_[_]", "_[?_]"):
        below = first if isinstance(first, Node) else None
        return 1, (below.items or below.additional) if below is not None else None
    if len(shapes) > 1 and function in _PREFIXES:
        return _walk(sizes[1]), None
    if len(shapes) > 1 and function == "contains":
        return _walk(sizes[0]) * _walk(sizes[1]), None
    if len(shapes) > 1 and function in _REGEX:
        return _walk(sizes[0] + 1) * math.ceil(sizes[1] / 4), first
    if function == "split":
        return 2 * _walk(sizes[0]), first
    if len(shapes) > 2 and function == "replace":
        longer = sizes[0] * max(1, sizes[2] / max(1, sizes[1]))
        return _walk(longer), int(longer)
    if isinstance(first, Node) and first.type == "array":
        item = size(first.items)
        if function == "join":
            longer = sizes[0] * item + max(0, sizes[0] - 1) * (sizes[1] if len(shapes) > 1 else 0)
            return _walk(longer), int(longer)
        if function in _WALKS_LIST:
            return sizes[0] * (1 + _walk(item)), first.items
    if function == "@in" and isinstance(shapes[-1], Node) and shapes[-1].type == "array":
        return sizes[-1], None
    if function in _WALKS_TEXT:
        return _walk(sizes[0]), first
    return 1, None


def _macro(tree: Macro, scope: dict[str, Shape]) -> tuple[float, Shape]:
    cost, source = _cost(tree.range, scope)
    if tree.kind in ("bind", "optMap", "optFlatMap"):
        body, shape = _cost(tree.args[0], scope | {tree.names[0]: source})
        return cost + body, shape
    node = source if isinstance(source, Node) else None
    item = node.items if node is not None and node.type == "array" else None
    value = item or (node.additional if node is not None else None)
    names: dict[str, Shape] = {tree.names[-1]: value if item is not None or len(tree.names) > 1 else None}
    inside = {**scope, **dict.fromkeys(tree.names), **names}
    body = sum(_cost(arg, inside)[0] for arg in tree.args)
    makes = tree.kind in ("map", "filter")
    step = _STEP + (_KEEP if makes else 0)
    return cost + 1 + size(source) * (body + step), int(size(source)) if makes else None
