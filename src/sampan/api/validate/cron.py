"""Schedules of CronJobs: five fields in Vixie cron's syntax, or a descriptor. Source: CronJob, "Schedule syntax"."""

from __future__ import annotations

import re

from cronsim import CronSim, CronSimError

_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTHS = {m: i for i, m in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_DAYS = {d: i for i, d in enumerate("sun mon tue wed thu fri sat".split())}
# (lowest, highest, names) of minute, hour, day of month, month, day of week
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (0, 6, _DAYS),
)
_EVERY = re.compile(r"@every [0-9hmsnuµ.]+").fullmatch


def problem(schedule: str) -> str:
    """What is wrong with a schedule, or an empty text. Six fields, `L` and `#` are none of Kubernetes'."""
    if schedule.startswith("@"):
        if schedule in _DESCRIPTORS or _EVERY(schedule):
            return ""
        return f"unrecognized descriptor: {schedule}"
    fields = schedule.split()
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for text, (lowest, highest, names) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            found = _part(part, lowest, highest, names)
            if found:
                return found
    return _possible(fields)


def _part(text: str, lowest: int, highest: int, names: dict[str, int]) -> str:
    """One element of a field: `*`, `n`, `a-b`, each perhaps `/step`."""
    range_, slash, step = text.partition("/")
    first, dash, last = range_.partition("-")
    if "/" in step:
        return f"too many slashes: {text}"
    if first in ("*", "?") and not dash:
        start, end = lowest, highest
    else:
        if "-" in last:
            return f"too many hyphens: {text}"
        begin = _number(first, names)
        finish = _number(last, names) if dash else begin
        if isinstance(begin, str):
            return begin
        if isinstance(finish, str):
            return finish
        start, end = begin, highest if slash and not dash else finish
    if slash:
        width = _number(step, {})
        if isinstance(width, str):
            return width
        if width == 0:
            return f"step of range should be a positive number: {text}"
    if start < lowest:
        return f"beginning of range ({start}) below minimum ({lowest}): {text}"
    if end > highest:
        return f"end of range ({end}) above maximum ({highest}): {text}"
    if start > end:
        return f"beginning of range ({start}) beyond end of range ({end}): {text}"
    return ""


def _number(text: str, names: dict[str, int]) -> int | str:
    """The number that `text` says, or what is wrong with it."""
    known = names.get(text.lower())
    if known is not None:
        return known
    if text.isascii() and text.isdigit():
        return int(text)
    return f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'


def _possible(fields: list[str]) -> str:
    """What the interpreter of schedules, which reads the same syntax, has against it (a 31st of February)."""
    import datetime

    try:
        CronSim(" ".join(f.replace("?", "*") for f in fields), datetime.datetime(2024, 1, 1))
    except CronSimError as error:
        return str(error)
    return ""
