"""What of a pod its containers may be shown, in variables and files. Source: "Downward API"."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.validate.base import (
    Errors,
    amount,
    invalid_value,
    key_problems,
    not_supported,
    required,
    texts,
)
from sampan.base.objects import Object

FILE_FIELDS = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
FILE_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_POD_FIELDS = frozenset(
    (
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
        "spec.hostNetwork",
    )
)
_DIVISORS = {
    "cpu": ("1m", "1"),
    "memory": ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"),
}
_DIVISOR_TEXT = {
    "cpu": "only divisor's values 1m and 1 are supported with the cpu resource",
    "memory": "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported "
    "with the {} resource",
}


def field_ref(errors: Errors, ref: Object, path: str, allowed: Sequence[str]) -> None:
    """An ObjectFieldSelector; `allowed` are the fields that may be shown here, besides single labels and annotations."""
    version, field = ref.get("apiVersion", "v1"), ref.get("fieldPath", "")
    if not version:
        errors.append(required(f"{path}.apiVersion"))
        return
    if not field:
        errors.append(required(f"{path}.fieldPath"))
        return
    plain, _, subscript = field.partition("['")
    if subscript.endswith("']"):
        _subscript(errors, f"{path}.fieldPath", plain, subscript[:-2])
        return
    at = f"{path}.fieldPath"
    if version != "v1":
        errors.append(
            invalid_value(at, field, f"error converting fieldPath: unsupported pod version: {version}")
        )
    elif field not in _POD_FIELDS:
        errors.append(
            invalid_value(at, field, f"error converting fieldPath: field label not supported: {field}")
        )
    elif field not in allowed:
        errors.append(not_supported(at, field, sorted(allowed)))


def _subscript(errors: Errors, path: str, plain: str, key: str) -> None:
    if plain == "metadata.annotations":
        texts(errors, path, key.lower(), key_problems)
    elif plain == "metadata.labels":
        texts(errors, path, key, key_problems)
    else:
        errors.append(invalid_value(path, plain, "does not support subscript"))


def resource_ref(errors: Errors, ref: Object, path: str, *, volume: bool) -> None:
    """A ResourceFieldSelector. Files must name the container they speak of."""
    if volume and not ref.get("containerName"):
        errors.append(required(f"{path}.containerName"))
        return
    resource = ref.get("resource", "")
    if not resource:
        errors.append(required(f"{path}.resource"))
        return
    if resource not in FILE_RESOURCES and ".hugepages-" not in resource:
        errors.append(not_supported(f"{path}.resource", resource, FILE_RESOURCES))
    divisor = amount(ref.get("divisor") or "0")
    if divisor is None or not divisor.nano:
        return
    kind = "cpu" if resource.endswith(".cpu") else "memory"
    if not any(divisor == amount(d) for d in _DIVISORS[kind]):
        text = _DIVISOR_TEXT[kind].format(resource.partition(".")[2])
        errors.append(invalid_value(f"{path}.divisor", resource, text))
