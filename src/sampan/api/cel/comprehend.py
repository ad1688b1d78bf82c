"""Macros that walk: all, exists, map, filter and their kin. Each step costs what the original's loop costs it.

Source: CEL specification, "Macros"; cel-go ext, "TwoVarComprehensions", "Bindings"; optional values' optMap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sampan.api.cel import types
from sampan.api.cel.ast import Macro
from sampan.api.cel.closures import FAILURES, Code, Frame, Run
from sampan.api.cel.types import BOOL, DYN, INT, Type
from sampan.api.cel.values import NONE, CelError, CostExceeded, Optional

if TYPE_CHECKING:
    from sampan.api.cel.compile import Compiler

# what each step costs beside its parts: the loop's condition and the reading of its result
_STEP = {"all": 3, "exists": 4, "exists_one": 2, "map": 12, "filter": 12}


def macro(compiler: Compiler, node: Macro) -> Code:
    """Code of a macro."""
    source = compiler.visit(node.range)
    if node.kind in ("bind", "optMap", "optFlatMap"):
        return _binding(compiler, node, source)
    kinds = _variables(source.type, len(node.names))
    if kinds is None:
        what = f"expression of type '{source.type}' cannot be range of a comprehension (must be list, map, or dynamic)"
        return compiler.problem(node.range.at, what)
    slots, kept = [], []
    for name, kind in zip(node.names, kinds, strict=True):
        slot, before = compiler.declare(name, kind)
        slots.append(slot)
        kept.append((name, before))
    tests = node.kind in ("all", "exists", "exists_one", "filter") or len(node.args) == 2
    parts = []
    for number, arg in enumerate(node.args):
        wrong = "found no matching overload for '_&&_' applied to '(bool, {})'"
        parts.append(compiler.condition(arg, wrong) if tests and number == 0 else compiler.visit(arg))
    for name, before in reversed(kept):
        compiler.forget(name, before)
    walk = _walk(source.run, slots)
    cost = _STEP.get(node.kind, 12)
    first, last = parts[0], parts[-1]
    match node.kind:
        case "all" | "exists":
            if len(slots) == 1:
                return Code(
                    BOOL, _quantify(source.run, slots[0], first, cost, node.kind == "all"), source.cost + 1
                )
            return Code(BOOL, _quantify_pairs(walk, first, cost, node.kind == "all"), source.cost + 1)
        case "exists_one":
            return Code(BOOL, _exists_one(walk, first, cost), source.cost + 2)
        case "filter":
            kept_slot = slots[0]
            run = _collect(walk, first, lambda fr: fr[kept_slot], 0, cost)
            return Code(types.list_of(kinds[0]), run, source.cost + 11)
        case "map" | "transformList":
            test = first if len(parts) == 2 else None
            run = _collect(walk, test, last.run, last.cost, cost)
            return Code(types.list_of(last.type), run, source.cost + 11)
        case "transformMap":
            test = first if len(parts) == 2 else None
            key = kinds[0] if source.type.kind == "map" else DYN
            return Code(types.map_of(key, last.type), _to_map(walk, test, last, slots[0]), source.cost + 31)
    test = first if len(parts) == 2 else None
    kind = last.type if last.type.kind == "map" else types.map_of(DYN, DYN)
    return Code(kind, _to_entries(walk, test, last), source.cost + 31)


def _variables(source: Type, count: int) -> list[Type] | None:
    match source.kind:
        case "list":
            return [source.params[0]] if count == 1 else [INT, source.params[0]]
        case "map":
            return list(source.params[:count])
        case "dyn" | "param":
            return [DYN] * count
    return None


def _binding(compiler: Compiler, node: Macro, source: Code) -> Code:
    """cel.bind(name, value, expression), value.optMap(name, expression), value.optFlatMap(name, expression)."""
    optional = node.kind != "bind"
    if optional and source.type.kind not in ("optional", "dyn"):
        what = f"found no matching overload for 'hasValue' applied to '{source.type}.()'"
        return compiler.problem(node.at, what)
    kind = source.type.params[0] if source.type.kind == "optional" and optional else source.type
    slot, before = compiler.declare(node.names[0], kind if kind.kind != "optional" or not optional else DYN)
    body = compiler.visit(node.args[0])
    compiler.forget(node.names[0], before)
    value, then, cost = source.run, body.run, body.cost
    if not optional:

        def bind(fr: Frame) -> Any:
            fr[slot] = value(fr)
            return then(fr)

        return Code(body.type, bind, source.cost + cost)
    flat = node.kind == "optFlatMap"

    def mapped(fr: Frame) -> Any:
        given = value(fr)
        if not given.present:
            return NONE
        fr[slot] = given.value
        fr[0] += cost
        return then(fr) if flat else Optional(then(fr))

    return Code(body.type if flat else types.optional_of(body.type), mapped, source.cost + 1)


def _items(value: Any) -> Any:
    if isinstance(value, list | dict):
        return value
    raise CelError("no such overload")


def _walk(source: Run, slots: list[int]) -> Callable[[Frame], Iterable[None]]:
    """Set the variables to one item after the other."""
    if len(slots) == 1:
        (slot,) = slots

        def single(fr: Frame) -> Iterable[None]:
            for fr[slot] in _items(source(fr)):  # noqa: B020 (an item of the frame, not the frame)
                yield

        return single
    first, second = slots

    def pairs(fr: Frame) -> Iterable[None]:
        holder = _items(source(fr))
        for fr[first], fr[second] in holder.items() if isinstance(holder, dict) else enumerate(holder):
            yield

    return pairs


def _exceeded() -> CostExceeded:
    return CostExceeded("operation cancelled: actual cost limit exceeded")


def _quantify(source: Run, slot: int, test: Code, step: int, every: bool) -> Run:
    """all (`every`) or exists over one variable: the most used, so without a generator."""
    body, cost, decisive = test.run, test.cost + step, not every

    def run(fr: Frame) -> bool:
        failure: Exception | None = None
        limit = fr[1]
        for fr[slot] in _items(source(fr)):  # noqa: B020 (an item of the frame, not the frame)
            fr[0] += cost
            if fr[0] > limit:
                raise _exceeded()
            try:
                value = body(fr)
            except FAILURES as error:
                failure = error
                continue
            if value is decisive:
                return decisive
            if value is not every:
                failure = CelError("no such overload")
        if failure is not None:
            raise failure
        return every

    return run


def _quantify_pairs(walk: Callable[[Frame], Iterable[None]], test: Code, step: int, every: bool) -> Run:
    body, cost, decisive = test.run, test.cost + step, not every

    def run(fr: Frame) -> bool:
        failure: Exception | None = None
        for _ in walk(fr):
            _pay(fr, cost)
            try:
                value = body(fr)
            except FAILURES as error:
                failure = error
                continue
            if value is decisive:
                return decisive
            if value is not every:
                failure = CelError("no such overload")
        if failure is not None:
            raise failure
        return every

    return run


def _pay(fr: Frame, cost: int) -> None:
    fr[0] += cost
    if fr[0] > fr[1]:
        raise _exceeded()


def _holds(test: Code, fr: Frame) -> bool:
    value = test.run(fr)
    if value is True or value is False:
        return value
    raise CelError("no such overload")


def _exists_one(walk: Callable[[Frame], Iterable[None]], test: Code, step: int) -> Run:
    cost = test.cost + step

    def run(fr: Frame) -> bool:
        count = 0
        for _ in walk(fr):
            _pay(fr, cost)
            count += _holds(test, fr)
        return count == 1

    return run


def _collect(
    walk: Callable[[Frame], Iterable[None]],
    test: Code | None,
    value: Run,
    more: int,
    step: int,
) -> Run:
    """A list of `value` for the items that pass `test`."""
    cost = step + (test.cost if test is not None else 0)

    def run(fr: Frame) -> list[Any]:
        result: list[Any] = []
        for _ in walk(fr):
            _pay(fr, cost)
            if test is None or _holds(test, fr):
                fr[0] += more
                result.append(value(fr))
        return result

    return run


def _to_map(walk: Callable[[Frame], Iterable[None]], test: Code | None, made: Code, key: int) -> Run:
    cost = 3 + made.cost + (test.cost if test is not None else 0)

    def run(fr: Frame) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for _ in walk(fr):
            _pay(fr, cost)
            if test is None or _holds(test, fr):
                result[fr[key]] = made.run(fr)
        return result

    return run


def _to_entries(walk: Callable[[Frame], Iterable[None]], test: Code | None, made: Code) -> Run:
    cost = 3 + made.cost + (test.cost if test is not None else 0)

    def run(fr: Frame) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for _ in walk(fr):
            _pay(fr, cost)
            if test is None or _holds(test, fr):
                for key, value in made.run(fr).items():
                    if key in result:
                        raise CelError(f"insert failed: key {key} already exists")
                    result[key] = value
        return result

    return run
