"""What an expression runs as: for each kind of node one function here, which makes the closure that gives its value.

A closure takes the frame, a list: cost so far, its limit, then variables by number. What a part surely costs is paid by
whoever made it (`compile`); here only branches, and costs that depend on sizes, are counted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from sampan.api.cel.functions import Family
from sampan.api.cel.lib_standard import quick_equals
from sampan.api.cel.types import KINDS, Type
from sampan.api.cel.values import NONE, CelError, Made, Optional, UInt

Frame = list[Any]
Run = Callable[[Frame], Any]
FIRST = 2  # of a frame: where its variables begin
# What a part may raise that && and || may absorb: errors of CEL, and of Python where a dyn was not what it should be.
FAILURES = (CelError, TypeError, AttributeError, ValueError, KeyError, OverflowError)
NOTHING = object()


class Code:
    """A part made ready: what it gives, how, and what it always costs. `const` and `slot` allow shorter closures."""

    __slots__ = ("const", "cost", "run", "slot", "type")

    def __init__(self, type: Type, run: Run, cost: int = 0, const: Any = NOTHING, slot: int = 0) -> None:
        self.type, self.run, self.cost, self.const, self.slot = type, run, cost, const, slot


def made(name: str, members: list[tuple[str, Run, bool]]) -> Run:
    """A value of a named type, with those optional members that are there."""

    def run(fr: Frame) -> Made:
        found = Made(name)
        for field, value, optional in members:
            given = value(fr)
            if optional:
                if not given.present:
                    continue
                given = given.value
            found[field] = given
        return found

    return run


def _no_key(holder: Any, key: str) -> Any:
    if isinstance(holder, Optional):
        return _maybe_value(holder, key)
    if isinstance(holder, dict) or holder is None:
        raise CelError(f"no such key: {key}")
    raise CelError("no such overload")


def field_of(slot: int, key: str) -> Run:
    """`a.b` of a variable: the most frequent part of all takes one closure."""

    def run(fr: Frame) -> Any:
        try:
            return fr[slot][key]
        except (KeyError, TypeError):
            return _no_key(fr[slot], key)

    return run


def field(operand: Run, key: str) -> Run:
    """`a.b` of what another part gives."""

    def run(fr: Frame) -> Any:
        holder = operand(fr)
        try:
            return holder[key]
        except (KeyError, TypeError):
            return _no_key(holder, key)

    return run


def has(operand: Run, key: str) -> Run:
    """`has(a.b)`."""

    def run(fr: Frame) -> bool:
        holder = operand(fr)
        if isinstance(holder, Optional):
            if not holder.present:
                return False
            holder = holder.value
        if isinstance(holder, dict):
            return key in holder
        raise CelError("no such overload")

    return run


def _maybe_value(holder: Any, key: str) -> Optional:
    if isinstance(holder, Optional):
        if not holder.present:
            return NONE
        holder = holder.value
    if not isinstance(holder, dict):
        raise CelError("no such overload")
    return Optional(holder[key]) if key in holder else NONE


def maybe_field(operand: Run, key: str) -> Run:
    """`a.?b`: an optional value."""
    return lambda fr: _maybe_value(operand(fr), key)


def direct(function: Callable[..., Any], args: list[Code]) -> Run:
    """A call whose function and cost are known."""
    runs = [a.run for a in args]
    if len(runs) == 1:
        (one,) = runs
        return lambda fr: function(one(fr))
    if len(runs) == 2:
        left, right = runs
        if args[1].const is not NOTHING:
            value = args[1].const
            return lambda fr: function(left(fr), value)
        return lambda fr: function(left(fr), right(fr))
    return lambda fr: function(*[run(fr) for run in runs])


def counted(function: Callable[..., Any], cost: Callable[..., int], runs: list[Run]) -> Run:
    """A call whose cost depends on its arguments."""

    def run(fr: Frame) -> Any:
        values = [r(fr) for r in runs]
        fr[0] += cost(*values)
        return function(*values)

    return run


def dispatch(family: Family, runs: list[Run]) -> Run:
    """A call whose overload is chosen by the types of the values."""
    seen = family.seen

    def run(fr: Frame) -> Any:
        values = [r(fr) for r in runs]
        overload = seen.get(tuple(map(type, values))) or family.find(*values)
        cost = overload.cost
        fr[0] += cost if isinstance(cost, int) else cost(*values)
        return overload.function(*values)

    return run


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "_==_": operator.eq,
    "_!=_": operator.ne,
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
}
_NUMBERS = frozenset(("int", "uint", "double"))


def quick(name: str, args: list[Code]) -> Run | None:
    """Comparisons of numbers and of short constant text, which cost 1 whatever the values are; None for others."""
    compare = _COMPARISONS.get(name)
    if compare is None:
        return None
    left, right = args
    if quick_equals(left.type, right.type) and left.type.kind == "string":
        short = any(isinstance(a.const, str) and len(a.const) <= 10 for a in args)
        if not short or (isinstance(left.const, str) and not left.const) or right.const == "":
            return None
    elif not (left.type.kind in _NUMBERS and right.type.kind in _NUMBERS):
        return None
    run, value = left.run, right.const
    if value is NOTHING:
        other = right.run
        return lambda fr: compare(run(fr), other(fr))
    match name:
        case "_==_":
            return lambda fr: run(fr) == value
        case "_!=_":
            return lambda fr: run(fr) != value
        case "_<_":
            return lambda fr: run(fr) < value
        case "_<=_":
            return lambda fr: run(fr) <= value
        case "_>_":
            return lambda fr: run(fr) > value
    return lambda fr: run(fr) >= value


def both(left: Run, right: Run, cost: int) -> Run:
    """&&: false decides from either side, whatever happened on the other."""

    def run(fr: Frame) -> bool:
        try:
            first = left(fr)
        except FAILURES as error:
            first = error
        if first is False:
            return False
        fr[0] += cost
        second = right(fr)
        if second is False:
            return False
        if first is True and second is True:
            return True
        raise first if isinstance(first, Exception) else CelError("no such overload")

    return run


def either(left: Run, right: Run, cost: int) -> Run:
    """||: true decides from either side, whatever happened on the other."""

    def run(fr: Frame) -> bool:
        try:
            first = left(fr)
        except FAILURES as error:
            first = error
        if first is True:
            return True
        fr[0] += cost
        second = right(fr)
        if second is True:
            return True
        if first is False and second is False:
            return False
        raise first if isinstance(first, Exception) else CelError("no such overload")

    return run


def chain(steps: list[tuple[Run, int]], decisive: bool) -> Run:
    """Many parts of one && or ||: the first that equals `decisive` ends it."""

    def run(fr: Frame) -> bool:
        failure: Exception | None = None
        for part, cost in steps:
            fr[0] += cost
            try:
                value = part(fr)
            except FAILURES as error:
                failure = failure or error
                continue
            if value is decisive:
                return decisive
            if value is not (not decisive):
                failure = failure or CelError("no such overload")
        if failure is not None:
            raise failure
        return not decisive

    return run


def branch(test: Run, yes: Code, no: Code) -> Run:
    """`a ? b : c`, which pays for the side it takes."""
    then, otherwise, then_cost, otherwise_cost = yes.run, no.run, yes.cost, no.cost

    def run(fr: Frame) -> Any:
        decided = test(fr)
        if decided is True:
            fr[0] += then_cost
            return then(fr)
        if decided is False:
            fr[0] += otherwise_cost
            return otherwise(fr)
        raise CelError("no such overload")

    return run


def optional_list(items: list[tuple[Run, bool]]) -> Run:
    """`[a, ?b]`: optional members that are absent are left out."""

    def run(fr: Frame) -> list[Any]:
        result = []
        for item, optional in items:
            value = item(fr)
            if not optional:
                result.append(value)
            elif value.present:
                result.append(value.value)
        return result

    return run


def map_of(entries: list[tuple[Run, Run, bool]]) -> Run:
    """`{a: b, ?c: d}`; a key that stands twice is an error."""

    def run(fr: Frame) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_run, value_run, optional in entries:
            key, value = key_run(fr), value_run(fr)
            if optional:
                if not value.present:
                    continue
                value = value.value
            if not isinstance(key, str | int | UInt | bool):
                raise CelError(f"unsupported key type: {KINDS.get(type(key), 'dyn')}")
            if key in result:
                raise CelError(f"Failed with repeated key: {key}")
            result[key] = value
        return result

    return run
