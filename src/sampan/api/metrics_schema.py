"""Schemas of metrics.k8s.io/v1beta1, which the schema package lacks: in Kubernetes an add-on serves that group.

Source: the field definitions of k8s.io/metrics v1beta1.
"""

from __future__ import annotations

from typing import Any

_META = "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1."
_QUANTITY = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.api.resource.Quantity"}
_PACKAGE = "io.k8s.metrics.pkg.apis.metrics.v1beta1"
_USAGE = {
    "type": "object",
    "additionalProperties": _QUANTITY,
    "description": "What is used, by resource name.",
}


def _kind(kind: str, about: str, **fields: dict[str, Any]) -> dict[str, Any]:
    common = {
        "apiVersion": {"type": ["string", "null"], "description": "The version of this form of the object."},
        "kind": {"type": ["string", "null"], "description": "The kind of the object."},
    }
    gvk = {"group": "metrics.k8s.io", "version": "v1beta1", "kind": kind}
    return {
        "type": "object",
        "description": about,
        "properties": {**common, **fields},
        "x-kubernetes-group-version-kind": [gvk],
    }


def _measured(kind: str, about: str, **used: dict[str, Any]) -> dict[str, Any]:
    return _kind(
        kind,
        about,
        metadata={"$ref": _META + "ObjectMeta", "description": "Standard object's metadata."},
        timestamp={"$ref": _META + "Time", "description": "The end of the time the figures are about."},
        window={"type": "string", "description": "The length of that time, as a duration."},
        **used,
    )


def _list(kind: str, about: str) -> dict[str, Any]:
    items = {"type": "array", "items": {"$ref": f"#/$defs/{_PACKAGE}.{kind}"}, "description": f"The {kind}."}
    return _kind(f"{kind}List", about, metadata={"$ref": _META + "ListMeta"}, items=items)


_CONTAINERS = {
    "type": "array",
    "items": {"$ref": f"#/$defs/{_PACKAGE}.ContainerMetrics"},
    "description": "What each container of the pod uses.",
}

DEFINITIONS: dict[str, dict[str, Any]] = {
    f"{_PACKAGE}.ContainerMetrics": {
        "type": "object",
        "description": "What a container uses.",
        "properties": {"name": {"type": "string", "description": "The container's name."}, "usage": _USAGE},
        "required": ["name", "usage"],
    },
    f"{_PACKAGE}.NodeMetrics": _measured("NodeMetrics", "What a node uses.", usage=_USAGE),
    f"{_PACKAGE}.NodeMetricsList": _list("NodeMetrics", "What nodes use."),
    f"{_PACKAGE}.PodMetrics": _measured("PodMetrics", "What a pod uses.", containers=_CONTAINERS),
    f"{_PACKAGE}.PodMetricsList": _list("PodMetrics", "What pods use."),
}
