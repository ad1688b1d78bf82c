"""Text, lists, sets, numbers and regular expressions: cel-go's extensions and Kubernetes' own list library.

Source: Kubernetes documentation, "Common Expression Language in Kubernetes"; cel-go ext README.
"""

from __future__ import annotations

import base64
import math
import operator
from collections.abc import Callable
from typing import Any

from sampan.api.cel.functions import add, define, search, size, walk, walk_list
from sampan.api.cel.lib_standard import regex, to_string
from sampan.api.cel.types import KINDS
from sampan.api.cel.values import (
    INT_MAX,
    INT_MIN,
    CelError,
    Duration,
    Optional,
    Timestamp,
    TypeValue,
    UInt,
    contains,
    equals,
    go_float,
)

# Strings


@define("string.charAt(int): string")
def _char_at(text: str, at: int) -> str:
    if at == len(text):
        return ""
    if 0 <= at < len(text):
        return text[at]
    raise CelError(f"index out of range: {at}")


@define("string.indexOf(string): int", "string.indexOf(string, int): int", cost=walk)
def _index_of(text: str, part: str, start: int = 0) -> int:
    if not 0 <= start <= len(text):
        raise CelError(f"index out of range: {start}")
    return text.find(part, start)


@define("string.lastIndexOf(string): int", "string.lastIndexOf(string, int): int", cost=walk)
def _last_index_of(text: str, part: str, last: int | None = None) -> int:
    if last is None:
        return text.rfind(part)
    if not 0 <= last <= len(text):
        raise CelError(f"index out of range: {last}")
    return text.rfind(part, 0, last + len(part))


def _ascii(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: "".join(change(c) if c < "\x80" else c for c in text)


add("string.lowerAscii(): string", _ascii(str.lower), walk)
add("string.upperAscii(): string", _ascii(str.upper), walk)
add("string.trim(): string", str.strip, walk)
add("string.reverse(): string", lambda text: text[::-1], walk)
add("string.replace(string, string): string", str.replace, lambda *a: 2 * walk(*a))
add("string.replace(string, string, int): string", str.replace, lambda *a: 2 * walk(*a))


@define("string.split(string): list<string>", "string.split(string, int): list<string>", cost=walk)
def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        parts = list(text)
        return (
            parts if limit < 0 or len(parts) <= limit else [*parts[: limit - 1], "".join(parts[limit - 1 :])]
        )
    return text.split(separator, limit - 1 if limit > 0 else -1)


@define("string.substring(int): string", "string.substring(int, int): string", cost=walk)
def _substring(text: str, start: int, end: int | None = None) -> str:
    last = len(text) if end is None else end
    if not 0 <= start <= len(text):
        raise CelError(f"index out of range: {start}")
    if not 0 <= last <= len(text):
        raise CelError(f"index out of range: {last}")
    if start > last:
        raise CelError(f"invalid substring range. start: {start}, end: {last}")
    return text[start:last]


def _join_cost(*args: Any) -> int:
    return (size(args[-1]) + 9) // 10 + 1


@define("list<string>.join(): string", "list<string>.join(string): string", cost=_join_cost)
def _join(items: list[Any], separator: str = "") -> str:
    if not all(isinstance(i, str) for i in items):
        raise CelError("no such overload")
    return separator.join(items)


_QUOTED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


@define("strings.quote(string): string", cost=walk)
def _quote(text: str) -> str:
    inner = "".join(_QUOTED.get(c, c) for c in text.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{inner}"'


@define("string.format(list<dyn>): string", cost=walk)
def _format(text: str, args: list[Any]) -> str:
    """%s %d %f %e %b %o %x %X with a precision, %% for itself."""
    result: list[str] = []
    used, at = 0, 0
    while at < len(text):
        char = text[at]
        at += 1
        if char != "%":
            result.append(char)
            continue
        if text[at : at + 1] == "%":
            result.append("%")
            at += 1
            continue
        precision = 6
        if text[at : at + 1] == ".":
            end = at + 1
            while end < len(text) and text[end].isdigit():
                end += 1
            precision = int(text[at + 1 : end] or 0)
            if precision > 1000:
                raise CelError("precision too large")
            at = end
        clause = text[at : at + 1]
        at += 1
        if used >= len(args):
            raise CelError(f"index {used} out of range")
        result.append(_clause(clause, args[used], precision))
        used += 1
    return "".join(result)


def _clause(clause: str, value: Any, precision: int) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and not isinstance(value, float)
    if clause == "s":
        return _shown(value)
    if clause == "d" and number:
        return str(int(value)) if whole else go_float(value)
    if clause in ("f", "e") and number:
        return f"{value:.{precision}{clause}}"
    if clause == "b" and (whole or isinstance(value, bool)):
        return f"{int(value):b}"
    if clause == "o" and whole:
        return f"{value:o}"
    if clause in ("x", "X"):
        if whole:
            return f"{value:{clause}}"
        if isinstance(value, str | bytes):
            text = (value.encode() if isinstance(value, str) else value).hex()
            return text.upper() if clause == "X" else text
    if clause not in "sdfebox X" or not clause:
        raise CelError(f'could not parse formatting clause: unrecognized formatting clause "{clause}"')
    raise CelError(
        f"error during formatting: %{clause} clause cannot be used on {KINDS.get(type(value), 'dyn')}"
    )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_shown(k)}: {_shown(v)}" for k, v in value.items())) + "}"
    if value is None:
        return "null"
    if isinstance(value, TypeValue):
        return value.name
    return to_string(value)


# Lists


def _sized(*args: Any) -> int:
    return size(args[0]) + 1


_ORDERED = ("int", "uint", "double", "string", "bool", "bytes", "timestamp", "duration")


def _sum(items: list[Any]) -> Any:
    if not items:
        return 0
    first = items[0]
    if isinstance(first, Duration):
        return Duration(sum(i.ns for i in items))
    total = sum(items)
    if isinstance(first, UInt):
        return UInt(total)
    if isinstance(total, int) and not INT_MIN <= total <= INT_MAX:
        raise CelError("integer overflow")
    return total


for _kind in ("int", "uint", "double", "duration"):
    zero: Any = {"int": 0, "uint": UInt(0), "double": 0.0, "duration": Duration(0)}[_kind]
    add(f"list<{_kind}>.sum(): {_kind}", lambda items, zero=zero: _sum(items) if items else zero, _sized)


def _extreme(name: str, later: Callable[[Any, Any], bool]) -> Callable[[list[Any]], Any]:
    def extreme(items: list[Any]) -> Any:
        if not items:
            raise CelError(f"{name} called on empty list")
        best = items[0]
        for item in items[1:]:
            if later(item, best):
                best = item
        return best

    return extreme


def _is_sorted(items: list[Any]) -> bool:
    return all(not b < a for a, b in zip(items, items[1:], strict=False))


for _kind in _ORDERED:
    add(f"list<{_kind}>.min(): {_kind}", _extreme("min", operator.lt), _sized)
    add(f"list<{_kind}>.max(): {_kind}", _extreme("max", lambda a, b: b < a), _sized)
    add(f"list<{_kind}>.isSorted(): bool", _is_sorted, _sized)


@define("list<A>.indexOf(A): int", cost=_sized)
def _list_index(items: list[Any], wanted: Any) -> int:
    return next((i for i, item in enumerate(items) if equals(item, wanted)), -1)


@define("list<A>.lastIndexOf(A): int", cost=_sized)
def _list_last_index(items: list[Any], wanted: Any) -> int:
    return next((i for i in range(len(items) - 1, -1, -1) if equals(items[i], wanted)), -1)


@define("list<A>.distinct(): list<A>", cost=lambda items, *_: len(items) ** 2 + 1)
def _distinct(items: list[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if not contains(found, item):
            found.append(item)
    return found


@define("list<A>.flatten(): list<dyn>", "list<A>.flatten(int): list<dyn>", cost=_sized)
def _flatten(items: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise CelError("flatten level must be non-negative")
    result: list[Any] = []
    for item in items:
        if isinstance(item, list) and depth:
            result += _flatten(item, depth - 1)
        else:
            result.append(item)
    return result


add("list<A>.reverse(): list<A>", lambda items: items[::-1], _sized)


@define("list<A>.slice(int, int): list<A>", cost=_sized)
def _slice(items: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(items):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


@define("list<A>.sort(): list<A>", cost=_sized)
def _sort(items: list[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        raise CelError("list elements must be comparable") from None


@define("lists.range(int): list<int>", cost=lambda n, *_: max(n, 0) + 1)
def _range(count: int) -> list[int]:
    if count > 1_000_000:
        raise CelError("lists.range: size exceeds the limit")
    return list(range(count))


add("list<A>.first(): optional<A>", lambda items: Optional(items[0]) if items else Optional(present=False))
add("list<A>.last(): optional<A>", lambda items: Optional(items[-1]) if items else Optional(present=False))

# Regular expressions


@define("string.find(string): string", cost=search)
def _find(text: str, pattern: str) -> str:
    found = regex(pattern).search(text)
    return found[0] if found else ""


@define("string.findAll(string): list<string>", "string.findAll(string, int): list<string>", cost=search)
def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [m[0] for m in regex(pattern).finditer(text)]
    return found if limit < 0 else found[:limit]


# Sets


def _product(*args: Any) -> int:
    return size(args[0]) * size(args[1]) + 1


@define("sets.contains(list<A>, list<A>): bool", cost=_product)
def _contains(a: list[Any], b: list[Any]) -> bool:
    return all(contains(a, x) for x in b)


@define("sets.equivalent(list<A>, list<A>): bool", cost=lambda *a: 2 * _product(*a))
def _equivalent(a: list[Any], b: list[Any]) -> bool:
    return _contains(a, b) and _contains(b, a)


@define("sets.intersects(list<A>, list<A>): bool", cost=_product)
def _intersects(a: list[Any], b: list[Any]) -> bool:
    return any(contains(a, x) for x in b)


# Numbers

for _n in (1, 2, 3, 4, 5):
    for _kind in ("int", "uint", "double"):
        _params = ", ".join([_kind] * _n)
        add(f"math.least({_params}): {_kind}", lambda *v: min(v))
        add(f"math.greatest({_params}): {_kind}", lambda *v: max(v))
for _kind in ("int", "uint", "double"):
    add(f"math.least(list<{_kind}>): {_kind}", _extreme("math.least", operator.lt), walk_list)
    add(f"math.greatest(list<{_kind}>): {_kind}", _extreme("math.greatest", operator.gt), walk_list)
    add(f"math.abs({_kind}): {_kind}", lambda v: type(v)(abs(v)))
    add(f"math.sign({_kind}): {_kind}", lambda v: type(v)((v > 0) - (v < 0)))
    add(f"math.sqrt({_kind}): double", lambda v: math.sqrt(v) if v >= 0 else math.nan)
add("math.ceil(double): double", lambda v: float(math.ceil(v)) if math.isfinite(v) else v)
add("math.floor(double): double", lambda v: float(math.floor(v)) if math.isfinite(v) else v)
add("math.trunc(double): double", lambda v: float(math.trunc(v)) if math.isfinite(v) else v)
add(
    "math.round(double): double",
    lambda v: math.copysign(math.floor(abs(v) + 0.5), v) if math.isfinite(v) else v,
)
add("math.isNaN(double): bool", math.isnan)
add("math.isInf(double): bool", math.isinf)
add("math.isFinite(double): bool", math.isfinite)


def _wrap(value: int, unsigned: bool) -> int:
    value &= 2**64 - 1
    return UInt(value) if unsigned else value - 2**64 if value > INT_MAX else value


for _kind in ("int", "uint"):
    _un = _kind == "uint"
    for _name, _bits in (("bitAnd", operator.and_), ("bitOr", operator.or_), ("bitXor", operator.xor)):
        add(
            f"math.{_name}({_kind}, {_kind}): {_kind}",
            lambda a, b, f=_bits, u=_un: _wrap(f(int(a), int(b)), u),
        )
    add(f"math.bitNot({_kind}): {_kind}", lambda a, u=_un: _wrap(~int(a), u))
    add(
        f"math.bitShiftLeft({_kind}, int): {_kind}",
        lambda a, n, u=_un: _wrap(int(a) << min(_shift(n), 64), u),
    )
    add(
        f"math.bitShiftRight({_kind}, int): {_kind}",
        lambda a, n, u=_un: _wrap((int(a) & (2**64 - 1)) >> min(_shift(n), 64), u),
    )


def _shift(by: int) -> int:
    if by < 0:
        raise CelError(f"math.bitShift() negative offset: {by}")
    return by


# Bytes as text


@define("base64.encode(bytes): string", cost=walk)
def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


@define("base64.decode(string): bytes", cost=walk)
def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise CelError("illegal base64 data") from None


__all__ = ["Timestamp"]
