"""Durations as Go reads and prints them: 1h30m, 500ms. Settings, parameters and messages are full of them.

Source: Go's time.ParseDuration; meta/v1 Duration.
"""

from __future__ import annotations

import re

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_LONGEST = 200  # characters
_FORM = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)")
_PART = re.compile(r"([0-9]*)\.?([0-9]*)(\D+)")


def nanoseconds(text: str) -> int:
    """Raises ValueError in Go's words, also for what 64 bits do not hold."""
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned == "0":
        return 0
    parts = _FORM.findall(unsigned) if len(text) <= _LONGEST else []
    total = 0
    for part in parts:
        whole, fraction, unit = _PART.fullmatch(part).groups()  # type: ignore[union-attr]
        total += int(whole or 0) * _UNITS[unit] + int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction)
    if not parts or "".join(parts) != unsigned or total >= 1 << 63:
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text[0] == "-" else total


def seconds(text: str) -> float:
    """Raises ValueError."""
    return nanoseconds(text) / 1e9


def of_seconds(amount: float) -> str:
    """Whole seconds up to some minutes, as Go prints them: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(amount), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
