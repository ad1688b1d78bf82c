"""Values while an expression runs. What JSON has are Python's own; the rest are small classes here.

int is int64 and UInt uint64, both checked; equality never takes true for 1. Source: CEL specification, "Values".
"""

from __future__ import annotations

import datetime
import decimal
from functools import lru_cache
from typing import Any

from sampan.api import duration
from sampan.base.clock import zulu

INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
SECOND = 10**9  # nanoseconds


class CelError(Exception):
    """An expression that cannot be evaluated: absorbed by && and || when the other side decides."""

    cost = 0  # spent until then


class CostExceeded(Exception):
    """The limit of one evaluation was passed: never absorbed."""

    cost = 0


class UInt(int):
    """CEL's type `uint`: its operations are those of whole numbers without sign."""

    __slots__ = ()


class Timestamp:
    """Nanoseconds since the epoch."""

    __slots__ = ("ns",)

    def __init__(self, ns: int) -> None:
        if not -62135596800 * SECOND <= ns < 253402300800 * SECOND:
            raise CelError("timestamp overflow")
        self.ns = ns

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and self.ns == other.ns

    def __hash__(self) -> int:
        return hash(self.ns)

    def __lt__(self, other: Timestamp) -> bool:
        return self.ns < other.ns

    def __le__(self, other: Timestamp) -> bool:
        return self.ns <= other.ns

    def __str__(self) -> str:
        seconds, rest = divmod(self.ns, SECOND)
        whole = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(seconds=seconds)
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        return zulu(whole, "seconds")[:-1] + fraction + "Z"


class Duration:
    """Nanoseconds, as far as int64 goes."""

    __slots__ = ("ns",)

    def __init__(self, ns: int) -> None:
        if not INT_MIN <= ns <= INT_MAX:
            raise CelError("duration overflow")
        self.ns = ns

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.ns == other.ns

    def __hash__(self) -> int:
        return hash(self.ns)

    def __lt__(self, other: Duration) -> bool:
        return self.ns < other.ns

    def __le__(self, other: Duration) -> bool:
        return self.ns <= other.ns

    def __str__(self) -> str:
        sign = "-" if self.ns < 0 else ""
        seconds, rest = divmod(abs(self.ns), SECOND)
        return f"{sign}{seconds}{f'.{rest:09d}'.rstrip('0') if rest else ''}s"


class Optional:
    """`optional.of(value)`; NONE is the one without."""

    __slots__ = ("present", "value")

    def __init__(self, value: Any = None, present: bool = True) -> None:
        self.value, self.present = value, present


NONE = Optional(present=False)


class TypeValue:
    """What `type(x)` gives."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypeValue) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Made(dict[str, Any]):
    """A value of a named type that an expression made: `Object.spec{...}`, `JSONPatch{...}`."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str) -> None:
        super().__init__()
        self.type_name = type_name


class SetList(list[Any]):
    """A list whose schema says x-kubernetes-list-type: set. Order does not count; + is a union."""

    __slots__ = ()


class MapList(list[Any]):
    """A list whose schema says x-kubernetes-list-type: map. `keys` name an item; + merges by them."""

    __slots__ = ("keys",)

    def __init__(self, items: Any, keys: tuple[str, ...]) -> None:
        super().__init__(items)
        self.keys = keys


_NUMBERS = frozenset((int, float, UInt))
_LISTS = frozenset((list, SetList, MapList))


def equals(a: Any, b: Any) -> bool:
    """CEL's ==: numbers by value across types, everything else only within its type."""
    kind, other = type(a), type(b)
    if kind is dict and other is dict:
        return len(a) == len(b) and all(k in b and equals(v, b[k]) for k, v in a.items())
    if kind in _LISTS and other in _LISTS:
        return _same_lists(a, b)
    if kind is other:
        if kind is Optional:
            return a.present == b.present and (not a.present or equals(a.value, b.value))
        return a == b
    return kind in _NUMBERS and other in _NUMBERS and a == b


def _same_lists(a: list[Any], b: list[Any]) -> bool:
    if len(a) != len(b):
        return False
    if type(a) is SetList:
        return all(contains(b, x) for x in a)
    if type(a) is MapList:
        by_key = {key_of(x, a.keys): x for x in b}
        return all((k := key_of(x, a.keys)) in by_key and equals(x, by_key[k]) for x in a)
    return all(map(equals, a, b))


def key_of(item: Any, keys: tuple[str, ...]) -> tuple[Any, ...]:
    """What names an item of a list map."""
    return tuple(item.get(k) for k in keys) if isinstance(item, dict) else ()


def contains(items: list[Any], wanted: Any) -> bool:
    return any(equals(x, wanted) for x in items)


@lru_cache(maxsize=4096)
def parse_timestamp(text: str) -> Timestamp:
    """RFC 3339, nanoseconds kept. Raises ValueError."""
    if len(text) < 20 or text[10] not in "Tt":
        raise ValueError(f"invalid timestamp {text!r}")
    head, tail = text[:19], text[19:]
    rest = 0
    if tail.startswith("."):
        digits = len(tail[1:]) - len(tail[1:].lstrip("0123456789"))
        if not digits:
            raise ValueError(text)
        rest = int(tail[1 : 1 + digits][:9].ljust(9, "0"))
        tail = tail[1 + digits :]
    zone = "+00:00" if tail in ("Z", "z") else tail
    if len(zone) != 6 or zone[0] not in "+-" or zone[3] != ":":
        raise ValueError(text)
    moment = datetime.datetime.fromisoformat(head + zone)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    delta = moment - epoch
    return Timestamp((delta.days * 86400 + delta.seconds) * SECOND + rest)


@lru_cache(maxsize=4096)
def parse_duration(text: str) -> Duration:
    """Go's form: 1h30m, -1.5s, 300ms. Raises ValueError."""
    return Duration(duration.nanoseconds(text))


def go_float(value: float) -> str:
    """A double as Go's shortest %g prints it: 1, 0.5, 1e+06."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    number = decimal.Decimal(repr(value)).normalize()
    if not number:
        return "-0" if number.is_signed() else "0"
    exponent = number.adjusted()
    if -4 <= exponent < 6:
        return f"{number:f}"
    digits = "".join(map(str, number.as_tuple().digits))
    mantissa = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{'-' if number.is_signed() else ''}{mantissa}e{exponent:+03d}"
