"""Columns of dynamic resource allocation: classes of devices, what nodes offer, what pods claim."""

from __future__ import annotations

from typing import Any

from sampan.api.table.cells import created, name
from sampan.base.objects import Object


def _plain(obj: Object, now: float) -> list[Any]:
    return [name(obj), created(obj, now)]


def _claim(obj: Object, now: float) -> list[Any]:
    status = obj.get("status", {})
    gone = ["deleted"] if obj["metadata"].get("deletionTimestamp") else []
    if status.get("allocation"):
        states = [*gone, "allocated", *(["reserved"] if status.get("reservedFor") else [])]
    else:
        states = gone or ["pending"]
    return [name(obj), ",".join(states), created(obj, now)]


def _slice(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    pool = (spec.get("pool") or {}).get("name", "")
    return [name(obj), spec.get("nodeName", ""), spec.get("driver", ""), pool, created(obj, now)]


COLUMNS = {
    "deviceclasses.resource.k8s.io": ("Name|Age", _plain),
    "resourceclaims.resource.k8s.io": ("Name|State|Age", _claim),
    "resourceclaimtemplates.resource.k8s.io": ("Name|Age", _plain),
    "resourceslices.resource.k8s.io": ("Name|Node|Driver|Pool|Age", _slice),
}
