"""Pods: a new one is Pending, knows its quality of service, and goes gracefully."""

from __future__ import annotations

from sampan.api.qos import qos_class
from sampan.base.objects import Object
from sampan.server.strategies.base import Prep, Strategy

_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
    "lastProbeTime": None,
    "lastTransitionTime": None,
}


def _create(obj: Object, prep: Prep) -> None:
    spec = obj.get("spec") or {}
    obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
    if spec.get("schedulingGates"):
        obj["status"]["conditions"] = [dict(_GATED)]


def _update(new: Object, old: Object, prep: Prep) -> None:
    status = new.get("status")
    if isinstance(status, dict) and "qosClass" not in status:
        new["status"] = status | {"qosClass": qos_class(new.get("spec") or {})}


def _update_status(new: Object, old: Object, prep: Prep) -> None:
    status = new.setdefault("status", {})
    if "qosClass" not in status:
        status["qosClass"] = (old.get("status") or {}).get("qosClass") or qos_class(new.get("spec") or {})


def grace_of(obj: Object, wanted: int | None) -> int:
    """Seconds a deletion of this pod waits: none for one that runs nowhere or has ended."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    grace = wanted if wanted is not None else spec.get("terminationGracePeriodSeconds", 0)
    return grace if grace >= 0 else 1


POD = Strategy(
    create=_create,
    update=_update,
    update_status=_update_status,
    generation=True,
    graceful=True,
    returns_deleted=True,
)
