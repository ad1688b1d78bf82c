"""What the cells of many kinds have in common: ages, selectors, images, lists with an end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from sampan.base.clock import rfc3339_parse
from sampan.base.objects import Object

Cells = Callable[[Object, float], list[Any]]

_parse = functools.lru_cache(4096)(rfc3339_parse)  # what was made together has the same time

NONE = "<none>"
UNKNOWN = "<unknown>"


def age(timestamp: str | None, now: float) -> str:
    """The time since `timestamp` in at most two units, as kubectl shows it; `<unknown>` without one."""
    if not timestamp:
        return UNKNOWN
    try:
        return duration(now - _parse(timestamp))
    except ValueError:
        return "<invalid>"


def duration(seconds: float) -> str:
    """Seconds as 119s, 3m5s, 17m, 3h2m, 30h, 3d4h, 400d, 2y10d."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    total = max(total, 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def created(obj: Object, now: float) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def name(obj: Object) -> str:
    return obj["metadata"].get("name", "")


def labels(pairs: dict[str, str] | None) -> str:
    """A map of labels as text, sorted by key."""
    return ",".join(f"{k}={v}" for k, v in sorted(pairs.items())) if pairs else NONE


def selector(label_selector: Object | None) -> str:
    """A LabelSelector in set syntax, requirements sorted by key."""
    if not label_selector:
        return NONE
    parts = [(k, f"{k}={v}") for k, v in (label_selector.get("matchLabels") or {}).items()]
    for expression in label_selector.get("matchExpressions") or []:
        key, values = expression["key"], ",".join(sorted(expression.get("values") or []))
        forms = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append((key, forms.get(expression["operator"], key)))
    return ",".join(text for _, text in sorted(parts, key=lambda part: part[0])) or NONE


def containers(spec: Object) -> tuple[str, str]:
    """Names and images of a pod spec's containers, each joined by commas."""
    items = spec.get("containers") or []
    return ",".join(c.get("name", "") for c in items), ",".join(c.get("image", "") for c in items)


def some(items: Iterable[str], most: int) -> str:
    """At most `most` items and how many more there are: `a,b,c + 2 more...`."""
    listed = list(items)
    text = ",".join(listed[:most])
    return f"{text} + {len(listed) - most} more..." if len(listed) > most else text
