"""Quantities as Kubernetes has them ("500m", "1.5Gi", "1e3"): exact, and printed in the one canonical form.

Amounts are held in whole nano-units, the finest step the API knows; anything finer is rounded away from zero when
parsed. Source: API reference, "Quantity"; API conventions, "Resource quantities".
"""

from __future__ import annotations

import re
from functools import lru_cache

NANO = 10**9
_LIMIT = (2**63 - 1) * NANO
_DIGITS = 1000  # more cannot matter
_FORM = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()}

_WRONG_FORM = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_WRONG_SUFFIX = "unable to parse quantity's suffix"

# How a quantity is printed: with k, M, G …; with Ki, Mi, Gi …; or as 12e3.
DECIMAL, BINARY, EXPONENT = "DecimalSI", "BinarySI", "DecimalExponent"


class Quantity:
    """An exact amount in nano-units and the form it is printed in. Ordered and equal by amount alone."""

    __slots__ = ("form", "nano")

    def __init__(self, nano: int, form: str = DECIMAL) -> None:
        self.nano = nano
        self.form = form

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nano == other.nano

    def __hash__(self) -> int:
        return hash(self.nano)

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __le__(self, other: Quantity) -> bool:
        return self.nano <= other.nano

    def __gt__(self, other: Quantity) -> bool:
        return self.nano > other.nano

    def __ge__(self, other: Quantity) -> bool:
        return self.nano >= other.nano

    def __bool__(self) -> bool:
        return self.nano != 0

    def __add__(self, other: Quantity) -> Quantity:
        """The sum, printed like the left one unless that is zero."""
        return Quantity(self.nano + other.nano, self.form if self.nano else other.form)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.form if self.nano else other.form)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nano, self.form)

    def __str__(self) -> str:
        return _print(self.nano, self.form)

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def value(self) -> int:
        """Whole units, rounded away from zero."""
        return _divide_away(self.nano, NANO)

    def milli(self) -> int:
        """Thousandths, rounded away from zero (what cpu is counted in)."""
        return _divide_away(self.nano, 10**6)

    def round_up(self, exponent: int) -> Quantity:
        """Rounded away from zero to a multiple of 10**exponent, e.g. -3 for cpu requests."""
        step = 10 ** (9 + exponent)
        return Quantity(_divide_away(self.nano, step) * step, self.form)


def parse(source: str | int | float) -> Quantity:
    """The quantity that `source` says. Raises ValueError with the original's text when it says none."""
    if isinstance(source, str):
        return _parse(source)
    if isinstance(source, bool):
        raise ValueError(_WRONG_FORM)
    if isinstance(source, int):
        return Quantity(source * NANO)
    return _parse(repr(source))


def canonical(source: str | int | float) -> str:
    """The one text the API server answers with: "1000" -> "1k", "1.5Gi" -> "1536Mi". Raises ValueError."""
    return _canonical(source) if isinstance(source, str) else str(parse(source))


def value(source: str | int | float) -> int:
    """Whole units, rounded away from zero (bytes of memory, counts). Raises ValueError."""
    return parse(source).value()


def milli(source: str | int | float) -> int:
    """Thousandths, rounded away from zero (cpu). Raises ValueError."""
    return parse(source).milli()


def compare(left: str | int | float, right: str | int | float) -> int:
    """-1, 0 or 1 as `left` is less than, equal to or greater than `right`. Raises ValueError."""
    a, b = parse(left).nano, parse(right).nano
    return (a > b) - (a < b)


def from_milli(amount: int, form: str = DECIMAL) -> str:
    """Canonical text of `amount` thousandths."""
    return _print(amount * 10**6, form)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    if not text:
        raise ValueError(_WRONG_FORM)
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(_WRONG_FORM)
    sign, whole, fraction, suffix = match.groups()
    exponent, power, form = _suffix(suffix)
    whole = whole.lstrip("0")
    fraction = (fraction or "")[:_DIGITS]
    if len(whole) > _DIGITS:
        return Quantity(-_LIMIT if sign == "-" else _LIMIT, form)
    numerator = int((whole + fraction) or "0") * 1024**power * NANO
    shift = exponent - len(fraction)
    if numerator == 0:
        return Quantity(0, form)
    if abs(shift) > 1000:
        nano = _LIMIT if shift > 0 else 1
    else:
        nano = numerator * 10**shift if shift >= 0 else _divide_away(numerator, 10**-shift)
    if (
        form == BINARY or len(whole) + len(fraction) > 18
    ):  # the original caps only what its fast path cannot hold
        nano = min(nano, _LIMIT)
    if form == BINARY and nano < NANO:
        form = DECIMAL
    return Quantity(-nano if sign == "-" else nano, form)


def _suffix(suffix: str) -> tuple[int, int, str]:
    """(power of ten, power of 1024, form) of a suffix."""
    if suffix in _DECIMAL:
        return _DECIMAL[suffix], 0, DECIMAL
    if suffix in _BINARY:
        return 0, _BINARY[suffix], BINARY
    if len(suffix) > 1 and suffix[0] in "eE":
        try:
            return int(suffix[1:]), 0, EXPONENT
        except ValueError:
            pass
    raise ValueError(_WRONG_SUFFIX)


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    return str(_parse(text))


def _print(nano: int, form: str) -> str:
    if nano == 0:
        return "0"
    if form == BINARY and abs(nano) >= 1024 * NANO and nano % NANO == 0:
        amount, power = nano // NANO, 0
        while amount % 1024 == 0 and power < 6:
            amount //= 1024
            power += 1
        return f"{amount}{_BINARY_SUFFIX.get(power, '')}"
    amount, exponent = nano, -9
    while amount % 1000 == 0 and (form == EXPONENT or exponent < 18):
        amount //= 1000
        exponent += 3
    if form == EXPONENT:
        return f"{amount}e{exponent}" if exponent else str(amount)
    return f"{amount}{_DECIMAL_SUFFIX[exponent]}"


def _divide_away(amount: int, by: int) -> int:
    """Division rounded away from zero."""
    return -(-amount // by) if amount >= 0 else amount // by
