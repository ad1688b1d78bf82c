"""Schemas of custom resources for OpenAPI documents: the definition's own, plus what every object has.

Source: "Extend the Kubernetes API with CustomResourceDefinitions", publishing of validation schemas.
"""

from __future__ import annotations

from typing import Any

from sampan.api import schema
from sampan.api.registry import Resource
from sampan.base.objects import Object

_REF = "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


def name(row: Resource, kind: str = "") -> str:
    """The component's name: the group turned round, as com.example.stable.v1.CronTab."""
    return ".".join([*reversed(row.group.split(".")), row.version, kind or row.kind])


def schemas(row: Resource) -> Object:
    """The schemas of a custom row and of its list, by component name."""
    kind, listed = name(row), name(row, row.list_kind or f"{row.kind}List")
    return {kind: _kind(row), listed: _list(row, kind)}


def _kind(row: Resource) -> Object:
    versions = ((row.definition or {}).get("spec") or {}).get("versions") or []
    version: Object = next((v for v in versions if v.get("name") == row.version), {})
    declared = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    result = _embedded(declared) or {"x-kubernetes-preserve-unknown-fields": True}
    result["type"] = "object"
    result.pop("nullable", None)
    result["properties"] = {**(result.get("properties") or {}), **_identity("ObjectMeta")}
    result["x-kubernetes-group-version-kind"] = [_gvk(row, row.kind)]
    return result


def _identity(metadata: str) -> Object:
    """What every object has, or every list, described as for built-in kinds: `kubectl explain` shows it."""
    like = schema.definition_name("", "v1", "PodList" if metadata == "ListMeta" else "Pod")
    told = {key: value["description"] for key, value in schema.definitions()[like]["properties"].items()}
    return {
        "apiVersion": {"type": "string", "description": told["apiVersion"]},
        "kind": {"type": "string", "description": told["kind"]},
        "metadata": {
            "description": told["metadata"],
            "allOf": [{"$ref": f"{_REF}{_META}{metadata}"}],
        },
    }


def _embedded(text: Any) -> Any:
    """A copy of a schema in which embedded objects have their apiVersion, kind and metadata."""
    if isinstance(text, list):
        return [_embedded(part) for part in text]
    if not isinstance(text, dict):
        return text
    result = {key: _embedded(value) for key, value in text.items()}
    if text.get("x-kubernetes-embedded-resource") is True:
        result["properties"] = {**(result.get("properties") or {}), **_identity("ObjectMeta")}
    return result


def _list(row: Resource, kind: str) -> Object:
    return {
        "type": "object",
        "description": f"A list of {row.kind}.",
        "required": ["items"],
        "properties": {
            **_identity("ListMeta"),
            "items": {"type": "array", "items": {"allOf": [{"$ref": _REF + kind}]}},
        },
        "x-kubernetes-group-version-kind": [_gvk(row, row.list_kind or f"{row.kind}List")],
    }


def _gvk(row: Resource, kind: str) -> Object:
    return {"group": row.group, "version": row.version, "kind": kind}
