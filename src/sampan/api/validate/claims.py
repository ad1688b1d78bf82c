"""What a claim for storage may ask for, by itself or as a template. Source: API reference, PersistentVolumeClaimSpec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.api.validate.base import (
    NONE,
    Errors,
    amount,
    dns_subdomain,
    forbidden_field,
    invalid_value,
    label_selector,
    one_of,
    required,
)
from sampan.base.objects import Object

_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def access_modes(errors: Errors, modes: Sequence[str], path: str) -> None:
    """At least one mode, each known; ReadWriteOncePod stands alone."""
    if not modes:
        errors.append(required(path, "at least 1 access mode is required"))
    for mode in modes:
        one_of(errors, path, mode, _ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        detail = "may not use ReadWriteOncePod with other access modes"
        errors.append(forbidden_field(path, detail))


def claim_spec(errors: Errors, spec: Object, path: str) -> None:
    """The spec of a PersistentVolumeClaim, also as a template of one."""

    access_modes(errors, spec.get("accessModes") or (), f"{path}.accessModes")
    label_selector(errors, f"{path}.selector", spec.get("selector"))
    request: Any = ((spec.get("resources") or NONE).get("requests") or NONE).get("storage")
    if request is None:
        errors.append(required(f"{path}.resources[storage]"))
    else:
        size = amount(request)
        if size is not None and size.nano <= 0:
            errors.append(invalid_value(f"{path}.resources[storage]", request, "must be greater than zero"))
    if spec.get("storageClassName"):
        dns_subdomain(errors, f"{path}.storageClassName", spec["storageClassName"])
    mode = spec.get("volumeMode")
    if mode is not None:
        one_of(errors, f"{path}.volumeMode", mode, ("Block", "Filesystem"))
    for field in ("dataSource", "dataSourceRef"):
        if spec.get(field) is not None:
            _data_source(errors, spec[field], f"{path}.{field}")
    if spec.get("volumeAttributesClassName"):
        dns_subdomain(errors, f"{path}.volumeAttributesClassName", spec["volumeAttributesClassName"])


def _data_source(errors: Errors, source: Object, path: str) -> None:
    for field in ("name", "kind"):
        if not source.get(field):
            errors.append(required(f"{path}.{field}"))
    group, kind = source.get("apiGroup") or "", source.get("kind")
    if not group and kind and kind != "PersistentVolumeClaim":
        errors.append(invalid_value(path, kind, ""))
    if group:
        dns_subdomain(errors, f"{path}.apiGroup", group)
