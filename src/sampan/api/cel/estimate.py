"""What a rule may cost at worst, from the sizes that a schema allows: rules that are far too dear are refused at once.

The sizes are those of the original's estimator: what a schema does not limit is limited by the 3 MiB of a request. Ours is
rougher, so a rule is refused only when it is beyond the budget a hundred times; what lies between is limited when it runs.
Source: Kubernetes documentation, "Resource use by validation functions"; KEP-2876.
"""

from __future__ import annotations

from typing import Any

from sampan.api.cel.ast import Call, Choice, Const, Expr, ListOf, Logic, Macro, MapOf, Name, Select
from sampan.api.schema import Node

REQUEST = 3 * 1024 * 1024  # bytes that all of an object may have
RULE_LIMIT = 10_000_000  # cost of a rule, for all places where its schema may stand in an object
FACTOR = 100
_STEP = 4  # of a loop, beside its parts
_WALKS_TEXT = frozenset(
    "contains startsWith endsWith matches find findAll replace split lowerAscii upperAscii indexOf lastIndexOf".split()
)
_WALKS_LIST = frozenset("sum min max isSorted indexOf lastIndexOf @in".split())

Shape = Node | int | None  # the schema of a value, or how long it is, or nothing known


def worst(tree: Expr, node: Node) -> float:
    """The most that one evaluation of a rule on a value of this schema may cost."""
    return _cost(tree, {"self": node, "oldSelf": node})[0]


def size(shape: Shape) -> float:
    """How many items or characters a value may have at most; 1 for what has no length."""
    if shape is None:
        return 1
    if isinstance(shape, int):
        return shape
    raw: dict[str, Any] = shape.raw
    match shape.type:
        case "string":
            length = raw.get("maxLength")
            longest = max((len(str(v)) for v in raw.get("enum") or ()), default=None)
            return longest or (REQUEST - 2 if length is None else 4 * length)
        case "array":
            limit = raw.get("maxItems")
            return (REQUEST - 2) // (_least(shape.items) + 1) if limit is None else limit
        case "object" if shape.additional is not None:
            limit = raw.get("maxProperties")
            return (REQUEST - 2) // (_least(shape.additional) + 6) if limit is None else limit
    return 1


def _least(node: Node | None) -> int:
    """Bytes that a value has at least when it is written."""
    if node is None:
        return 1
    match node.type:
        case "string" | "array":
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
            return cost + 1, _child(shape, tree.field)
        case Logic():
            return sum(_cost(p, scope)[0] for p in tree.parts), None
        case Choice():
            test, (yes, shape), (no, other) = (
                _cost(part, scope) for part in (tree.condition, tree.then, tree.otherwise)
            )
            return test[0] + max(yes, no), shape if size(shape) >= size(other) else other
        case ListOf():
            return 10 + sum(_cost(item, scope)[0] for item, _ in tree.items), len(tree.items)
        case MapOf():
            return 30 + sum(_cost(k, scope)[0] + _cost(v, scope)[0] for k, v, _ in tree.entries), len(
                tree.entries
            )
        case Macro():
            return _macro(tree, scope)
        case Call():
            return _call(tree, scope)
    return 1, None


def _child(shape: Shape, key: str) -> Shape:
    if not isinstance(shape, Node):
        return None
    return shape.properties.get(key, shape.additional)


def _call(tree: Call, scope: dict[str, Shape]) -> tuple[float, Shape]:
    given = [_cost(a, scope) for a in ((tree.target,) if tree.target is not None else ()) + tuple(tree.args)]
    cost = 1 + sum(c for c, _ in given)
    shapes = [s for _, s in given]
    first = shapes[0] if shapes else None
    match tree.function:
        case "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_":
            return cost + 0.1 * min(map(size, shapes)), None
        case "_+_":
            return cost + 0.1 * sum(map(size, shapes)), int(sum(map(size, shapes)))
        case "_[_]" | "_[?_]":
            below = first if isinstance(first, Node) else None
            return cost, (below.items or below.additional) if below is not None else None
    if tree.function in _WALKS_LIST and isinstance(shapes[-1], Node) and shapes[-1].type == "array":
        cost += size(shapes[-1])
    elif tree.function in _WALKS_TEXT:
        others = max([0.1 * size(s) for s in shapes[1:]], default=1)
        cost += 0.1 * size(first) * max(1, others if tree.function in ("contains", "matches") else 1)
    return cost, first


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
    return cost + size(source) * (body + _STEP), int(size(source))
