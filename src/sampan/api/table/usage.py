"""Columns of metrics.k8s.io, as metrics-server has them: what a node or a pod uses, and over which time."""

from __future__ import annotations

from typing import Any

from sampan.api import quantity
from sampan.api.table.cells import name
from sampan.base.objects import Object


def _cells(obj: Object, now: float) -> list[Any]:
    used = (
        [c.get("usage") or {} for c in obj["containers"]] if "containers" in obj else [obj.get("usage") or {}]
    )
    zero = quantity.parse("0")
    total = {key: sum((quantity.parse(u.get(key, "0")) for u in used), zero) for key in ("cpu", "memory")}
    return [name(obj), str(total["cpu"]), str(total["memory"]), obj.get("window", "")]


COLUMNS = {
    "nodes.metrics.k8s.io": ("Name|cpu|memory|Window", _cells),
    "pods.metrics.k8s.io": ("Name|cpu|memory|Window", _cells),
}
