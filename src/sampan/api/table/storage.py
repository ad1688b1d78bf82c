"""Columns of volumes, claims and classes."""

from __future__ import annotations

from typing import Any

from sampan.api.table.cells import UNKNOWN, created, name
from sampan.base.objects import Object

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: list[str] | None) -> str:
    """Short names in the fixed order of the reference."""
    return ",".join(short for long, short in _MODES.items() if long in (modes or []))


def _class(obj: Object) -> str:
    beta = obj["metadata"].get("annotations", {}).get("volume.beta.kubernetes.io/storage-class")
    return beta if beta is not None else obj.get("spec", {}).get("storageClassName") or ""


def _volume(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    claim = spec.get("claimRef")
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [
        name(obj),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _class(obj),
        spec.get("volumeAttributesClassName") or "<unset>",
        status.get("reason", ""),
        created(obj, now),
        spec.get("volumeMode", "<unset>"),
    ]


def _claim(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        name(obj),
        phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        _class(obj),
        spec.get("volumeAttributesClassName") or "<unset>",
        created(obj, now),
        spec.get("volumeMode", "<unset>"),
    ]


def _storageclass(obj: Object, now: float) -> list[Any]:
    default = (
        obj["metadata"].get("annotations", {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    )
    return [
        name(obj) + (" (default)" if default else ""),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        bool(obj.get("allowVolumeExpansion")),
        created(obj, now),
    ]


def _attachment(obj: Object, now: float) -> list[Any]:
    spec = obj["spec"]
    volume = (spec.get("source") or {}).get("persistentVolumeName", "")
    attached = bool(obj.get("status", {}).get("attached"))
    return [
        name(obj),
        spec.get("attacher", ""),
        volume,
        spec.get("nodeName", ""),
        attached,
        created(obj, now),
    ]


def _csinode(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(obj.get("spec", {}).get("drivers") or []), created(obj, now)]


def _csidriver(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    tokens = ",".join(t.get("audience", "") for t in spec.get("tokenRequests") or []) or "<unset>"
    modes = ",".join(spec.get("volumeLifecycleModes") or []) or "<none>"
    return [
        name(obj),
        bool(spec.get("attachRequired", True)),
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        tokens,
        bool(spec.get("requiresRepublish")),
        modes,
        created(obj, now),
    ]


def _capacity(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("storageClassName", ""), obj.get("capacity") or UNKNOWN, created(obj, now)]


def _attributes(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("driverName", ""), created(obj, now)]


COLUMNS = {
    "volumeattributesclasses.storage.k8s.io": ("Name|DriverName|Age", _attributes),
    "persistentvolumes": (
        "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age"
        "|VolumeMode*",
        _volume,
    ),
    "persistentvolumeclaims": (
        "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|VolumeMode*",
        _claim,
    ),
    "storageclasses.storage.k8s.io": (
        "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age",
        _storageclass,
    ),
    "volumeattachments.storage.k8s.io": ("Name|Attacher:name|PV|Node|Attached:boolean|Age", _attachment),
    "csinodes.storage.k8s.io": ("Name|Drivers:integer|Age", _csinode),
    "csidrivers.storage.k8s.io": (
        "Name|AttachRequired:boolean|PodInfoOnMount:boolean|StorageCapacity:boolean|TokenRequests"
        "|RequiresRepublish:boolean|Modes|Age",
        _csidriver,
    ),
    "csistoragecapacities.storage.k8s.io": ("Name|StorageClassName|Capacity|Age", _capacity),
}
