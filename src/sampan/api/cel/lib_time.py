"""Parts of timestamps and durations, in UTC or a named zone. Source: CEL specification, "Timestamps and durations"."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from functools import lru_cache

from sampan.api.cel.functions import add
from sampan.api.cel.values import SECOND, CelError, Duration, Timestamp

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@lru_cache(maxsize=256)
def _zone(name: str) -> datetime.tzinfo:
    offset = re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name)
    if offset:
        delta = datetime.timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return datetime.timezone(-delta if offset[1] == "-" else delta)
    try:
        return zoneinfo.ZoneInfo(name or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise CelError(f"unknown time zone {name}") from None


def _local(moment: Timestamp, zone: str) -> datetime.datetime:
    at = _EPOCH + datetime.timedelta(seconds=moment.ns // SECOND)
    return at if zone == "UTC" else at.astimezone(_zone(zone))


_PARTS = {
    "getFullYear": lambda t: t.year,
    "getMonth": lambda t: t.month - 1,
    "getDate": lambda t: t.day,
    "getDayOfMonth": lambda t: t.day - 1,
    "getDayOfWeek": lambda t: t.isoweekday() % 7,
    "getDayOfYear": lambda t: t.timetuple().tm_yday - 1,
    "getHours": lambda t: t.hour,
    "getMinutes": lambda t: t.minute,
    "getSeconds": lambda t: t.second,
}


def _truncated(amount: int, by: int) -> int:
    return amount // by if amount >= 0 else -(-amount // by)


_SPANS = {
    "getHours": 3600 * SECOND,
    "getMinutes": 60 * SECOND,
    "getSeconds": SECOND,
    "getMilliseconds": 10**6,
}

for _name, _part in _PARTS.items():
    add(f"timestamp.{_name}(): int", lambda t, part=_part: part(_local(t, "UTC")))
    add(f"timestamp.{_name}(string): int", lambda t, zone, part=_part: part(_local(t, zone)))
add("timestamp.getMilliseconds(): int", lambda t: t.ns % SECOND // 10**6)
add("timestamp.getMilliseconds(string): int", lambda t, _: t.ns % SECOND // 10**6)


def _span(duration: Duration, by: int) -> int:
    return _truncated(duration.ns, by)


for _name, _by in _SPANS.items():
    add(f"duration.{_name}(): int", lambda d, by=_by: _span(d, by))
