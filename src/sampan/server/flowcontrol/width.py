"""How many seats a request takes: one, but a list as many as what it sends is heavy.

The original reckons with the average size of all objects of the resource; here it is those that the list is about.
Source: KEP-1040; KEP-3157 for watches that begin with a list.
"""

from __future__ import annotations

from sampan.api.registry import Registry
from sampan.server.route import RequestInfo, is_true
from sampan.store.protocol import Store

_SEAT = 100_000  # bytes that one seat stands for


def seats(store: Store, registry: Registry, info: RequestInfo, most: int) -> int:
    """From 1 to `most`. Lists come from memory piece by piece, so a selector makes them no heavier."""
    if most <= 1 or info.name or info.subresource:
        return 1
    if info.verb == "watch" and not is_true(info.query.get("sendInitialEvents")):
        return 1
    row = registry.find(info.group, info.version, info.resource)
    if row is None:
        return 1
    prefix = f"{info.namespace}/" if row.namespaced and info.namespace else ""
    limit = info.first("limit")
    # The watch cache knows no pages.
    paged = limit.isdecimal() and len(limit) < 10 and info.first("resourceVersion") != "0"
    size = store.estimate(row.store_key, prefix, int(limit) if paged else 0)
    return max(1, min(most, -(-size // _SEAT)))
