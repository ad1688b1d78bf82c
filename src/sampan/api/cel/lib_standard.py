"""Operators, conversions and the functions that every CEL has. Source: CEL specification, "Standard definitions"."""

from __future__ import annotations

import math
import operator
import re
from typing import Any

from sampan.api import re2
from sampan.api.cel import types
from sampan.api.cel.functions import add, define, search, size, walk, walk_both
from sampan.api.cel.types import KINDS
from sampan.api.cel.values import (
    INT_MAX,
    INT_MIN,
    NONE,
    SECOND,
    UINT_MAX,
    CelError,
    Duration,
    MapList,
    Optional,
    SetList,
    Timestamp,
    TypeValue,
    UInt,
    contains,
    equals,
    go_float,
    key_of,
    parse_duration,
    parse_timestamp,
)


def _least(*args: Any) -> int:
    """Of a comparison: it may end with the shorter of the two."""
    return (min(size(args[0]), size(args[1])) + 9) // 10


def _int(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise CelError("integer overflow")


def _uint(value: int) -> UInt:
    if 0 <= value <= UINT_MAX:
        return UInt(value)
    raise CelError("unsigned integer overflow")


# Comparison: of scalars 1, of text by its length

add("_==_(A, A): bool", equals, _least)
add("_!=_(A, A): bool", lambda a, b: not equals(a, b), _least)
for _name, _compare in (
    ("_<_", operator.lt),
    ("_<=_", operator.le),
    ("_>_", operator.gt),
    ("_>=_", operator.ge),
):
    for _a in ("int", "uint", "double"):
        for _b in ("int", "uint", "double"):
            add(f"{_name}({_a}, {_b}): bool", _compare)
    for _a in ("bool", "timestamp", "duration"):
        add(f"{_name}({_a}, {_a}): bool", _compare)
    for _a in ("string", "bytes"):
        add(f"{_name}({_a}, {_a}): bool", _compare, _least)


@define("_>_(timestamp, timestamp): bool", "_>_(duration, duration): bool")
def _later(a: Any, b: Any) -> bool:
    return b < a


# Arithmetic


@define("_+_(int, int): int")
def _add(a: int, b: int) -> int:
    return _int(a + b)


@define("_-_(int, int): int")
def _subtract(a: int, b: int) -> int:
    return _int(a - b)


@define("_*_(int, int): int")
def _multiply(a: int, b: int) -> int:
    return _int(a * b)


@define("_/_(int, int): int")
def _divide(a: int, b: int) -> int:
    if b == 0:
        raise CelError("division by zero")
    return _int(a // b if (a < 0) == (b < 0) else -(-a // b))


@define("_%_(int, int): int")
def _modulo(a: int, b: int) -> int:
    if b == 0:
        raise CelError("modulus by zero")
    return int(math.fmod(a, b)) if abs(a) < 2**53 > abs(b) else a - b * _divide(a, b)


add("_+_(uint, uint): uint", lambda a, b: _uint(int(a) + int(b)))
add("_-_(uint, uint): uint", lambda a, b: _uint(int(a) - int(b)))
add("_*_(uint, uint): uint", lambda a, b: _uint(int(a) * int(b)))


@define("_/_(uint, uint): uint")
def _divide_uint(a: UInt, b: UInt) -> UInt:
    if not b:
        raise CelError("division by zero")
    return UInt(int(a) // int(b))


@define("_%_(uint, uint): uint")
def _modulo_uint(a: UInt, b: UInt) -> UInt:
    if not b:
        raise CelError("modulus by zero")
    return UInt(int(a) % int(b))


add("_+_(double, double): double", operator.add)
add("_-_(double, double): double", operator.sub)
add("_*_(double, double): double", operator.mul)


@define("_/_(double, double): double")
def _divide_double(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1, b)


add("-_(int): int", lambda a: _int(-a))
add("-_(double): double", operator.neg)
add("-_(duration): duration", lambda a: Duration(-a.ns))
add("!_(bool): bool", operator.not_)
add("_+_(string, string): string", operator.add, walk_both)
add("_+_(bytes, bytes): bytes", operator.add, walk_both)
add("_+_(timestamp, duration): timestamp", lambda a, b: Timestamp(a.ns + b.ns))
add("_+_(duration, timestamp): timestamp", lambda a, b: Timestamp(a.ns + b.ns))
add("_+_(duration, duration): duration", lambda a, b: Duration(a.ns + b.ns))
add("_-_(timestamp, duration): timestamp", lambda a, b: Timestamp(a.ns - b.ns))
add("_-_(timestamp, timestamp): duration", lambda a, b: Duration(a.ns - b.ns))
add("_-_(duration, duration): duration", lambda a, b: Duration(a.ns - b.ns))


@define("_+_(list<A>, list<A>): list<A>")
def _concatenate(a: list[Any], b: list[Any]) -> list[Any]:
    """A union where the schema says set; where it says map, items of the right replace those with their keys."""
    if type(a) is SetList:
        return SetList([*a, *(x for x in b if not contains(a, x))])
    if type(a) is MapList:
        later = {key_of(x, a.keys): x for x in b}
        merged = [later.pop(key_of(x, a.keys), x) for x in a]
        return MapList([*merged, *later.values()], a.keys)
    return [*a, *b]


# Containers

add("@in(A, list<A>): bool", lambda a, b: contains(b, a), lambda a, b, *_: len(b))


@define("@in(A, map<A, B>): bool")
def _in_map(key: Any, obj: dict[Any, Any]) -> bool:
    try:
        return key in obj
    except TypeError:
        return False


@define("_[_](list<A>, int): A", "_[_](list<A>, dyn): A")
def _index(items: list[Any], at: Any) -> Any:
    if isinstance(at, bool) or not isinstance(at, int | float) or at != int(at):
        raise CelError("no such overload")
    if 0 <= at < len(items):
        return items[int(at)]
    raise CelError(f"index out of bounds: {int(at)}")


@define("_[_](map<A, B>, A): B")
def _key(obj: dict[Any, Any], key: Any) -> Any:
    try:
        return obj[key]
    except (KeyError, TypeError):
        raise CelError(f"no such key: {key}") from None


@define("_[_](optional<list<A>>, int): optional<A>", "_[?_](optional<list<A>>, int): optional<A>")
@define("_[_](optional<map<A, B>>, A): optional<B>", "_[?_](optional<map<A, B>>, A): optional<B>")
@define("_[?_](list<A>, int): optional<A>", "_[?_](map<A, B>, A): optional<B>")
def _maybe(holder: Any, key: Any) -> Optional:
    if isinstance(holder, Optional):
        if not holder.present:
            return NONE
        holder = holder.value
    try:
        return Optional(_key(holder, key) if isinstance(holder, dict) else _index(holder, key))
    except CelError:
        return NONE


@define("size(string): int", "size(bytes): int", "size(list<A>): int", "size(map<A, B>): int")
@define("string.size(): int", "bytes.size(): int", "list<A>.size(): int", "map<A, B>.size(): int")
def _size(value: Any) -> int:
    return len(value)


# Text

add("string.startsWith(string): bool", str.startswith, lambda a, b, *_: walk(b))
add("string.endsWith(string): bool", str.endswith, lambda a, b, *_: walk(b))
add("string.contains(string): bool", lambda a, b: b in a, lambda a, b, *_: walk(a) * walk(b))


def regex(pattern: str) -> re.Pattern[str]:
    """An RE2 pattern. Raises CelError."""
    try:
        return re2.compile(pattern)
    except re2.BadPattern as error:
        raise CelError(str(error)) from None


@define("matches(string, string): bool", "string.matches(string): bool", cost=search)
def _matches(text: str, pattern: str) -> bool:
    return regex(pattern).search(text) is not None


# Conversions


@define("int(int): int", "int(uint): int", "int(double): int", "int(string): int", "int(timestamp): int")
@define("int(duration): int")
def _to_int(value: Any) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?[0-9]+", value):
            raise CelError(f'strconv.ParseInt: parsing "{value}": invalid syntax')
        if not INT_MIN <= int(value) <= INT_MAX:
            raise CelError(f'strconv.ParseInt: parsing "{value}": value out of range')
        return int(value)
    if isinstance(value, Timestamp):
        return value.ns // SECOND
    if isinstance(value, Duration):
        return value.ns
    if isinstance(value, float) and not INT_MIN < value < INT_MAX:
        raise CelError("integer overflow")
    return _int(int(value))


@define("uint(int): uint", "uint(uint): uint", "uint(double): uint", "uint(string): uint")
def _to_uint(value: Any) -> UInt:
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]+", value):
            raise CelError(f'strconv.ParseUint: parsing "{value}": invalid syntax')
        return _uint(int(value))
    if isinstance(value, float) and not 0 <= value <= UINT_MAX:
        raise CelError("unsigned integer overflow")
    return _uint(int(value))


@define("double(int): double", "double(uint): double", "double(double): double", "double(string): double")
def _to_double(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise CelError(f'strconv.ParseFloat: parsing "{value}": invalid syntax') from None


def to_string(value: Any) -> str:
    """`string(x)` of a scalar."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None
    return str(value)


for _kind in ("string", "int", "uint", "double", "bool", "timestamp", "duration"):
    add(f"string({_kind}): string", to_string)
add("string(bytes): string", to_string, walk)
add("bytes(bytes): bytes", bytes)
add("bytes(string): bytes", str.encode, walk)
add("dyn(A): dyn", lambda value: value)


@define("bool(bool): bool", "bool(string): bool")
def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise CelError(f'strconv.ParseBool: parsing "{value}": invalid syntax')


@define("timestamp(string): timestamp", "timestamp(timestamp): timestamp", "timestamp(int): timestamp")
def _to_timestamp(value: Any) -> Timestamp:
    if isinstance(value, Timestamp):
        return value
    if isinstance(value, int):
        return Timestamp(value * SECOND)
    try:
        return parse_timestamp(value)
    except ValueError:
        raise CelError(
            f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'
        ) from None


@define("duration(string): duration", "duration(duration): duration", "duration(int): duration")
def _to_duration(value: Any) -> Duration:
    if isinstance(value, Duration):
        return value
    if isinstance(value, int):
        return Duration(value)
    try:
        return parse_duration(value)
    except ValueError as error:
        raise CelError(str(error)) from None


_TYPE_NAMES = {
    "null": "null_type",
    "timestamp": "google.protobuf.Timestamp",
    "duration": "google.protobuf.Duration",
    "optional": "optional_type",
}


@define("type(A): type")
def _type(value: Any) -> TypeValue:
    kind = KINDS.get(type(value), "dyn")
    return TypeValue(_TYPE_NAMES.get(kind, kind))


TYPE_NAMES = {
    name: TypeValue(name)
    for name in (
        *("bool", "int", "uint", "double", "string", "bytes", "list", "map", "type"),
        *_TYPE_NAMES.values(),
    )
}

# Optional values

add("optional.of(A): optional<A>", Optional)
add("optional.none(): optional<A>", lambda: NONE)
add("optional<A>.hasValue(): bool", lambda o: o.present)
add("optional<A>.or(optional<A>): optional<A>", lambda a, b: a if a.present else b)
add("optional<A>.orValue(A): A", lambda a, b: a.value if a.present else b)


@define("optional.ofNonZeroValue(A): optional<A>")
def _of_non_zero(value: Any) -> Optional:
    empty = value is None or (not isinstance(value, Timestamp | Duration | TypeValue) and not value)
    return NONE if empty else Optional(value)


@define("optional<A>.value(): A")
def _value(optional: Optional) -> Any:
    if not optional.present:
        raise CelError("optional.none() dereference")
    return optional.value


@define("optional.unwrap(list<optional<A>>): list<A>", "list<optional<A>>.unwrapOpt(): list<A>")
def _unwrap(items: list[Optional]) -> list[Any]:
    return [o.value for o in items if o.present]


# What `==` and `in` become when types are known: no walk over types

SIMPLE = frozenset(("int", "string", "bool", "uint", "bytes", "timestamp", "duration"))


def quick_equals(a: types.Type, b: types.Type) -> bool:
    """Whether Python's == says the same for values of these types."""
    return a.kind == b.kind and a.kind in SIMPLE
