"""Resources that containers ask for, and their names. Source: "Resource Management for Pods and Containers"."""

from __future__ import annotations

from collections.abc import Container, Sequence

from sampan.api import quantity
from sampan.api.validate.base import (
    NONE,
    Errors,
    amount,
    duplicate,
    forbidden_field,
    invalid_value,
    key_problems,
    not_found_field,
    not_supported,
    required,
)
from sampan.base.objects import Object

_CONTAINER = ("cpu", "memory", "ephemeral-storage")
_COUNTED = ("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps")
_STANDARD = frozenset(
    (
        *_CONTAINER,
        *_COUNTED,
        "persistentvolumeclaims",
        "storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "services.nodeports",
        "services.loadbalancers",
    )
)


def is_standard(name: str) -> bool:
    """A resource that Kubernetes itself knows, of whatever."""
    return name in _STANDARD or name.startswith(("hugepages-", "requests.hugepages-"))


def is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """A resource that someone else counts, such as example.com/gpu."""
    return not is_native(name) and not name.startswith("requests.") and not key_problems("requests." + name)


def resources(errors: Errors, given: Object, path: str, claims: Container[str] | None = None) -> None:
    """Requests and limits against each other. Source: "Resource Management for Pods and Containers"."""
    limits, requests = given.get("limits") or NONE, given.get("requests") or NONE
    counted = huge = False
    for name, text in limits.items():
        at = f"{path}.limits[{name}]"
        _resource_name(errors, name, at)
        _resource_amount(errors, name, text, at)
        counted = counted or name in ("cpu", "memory")
        huge = huge or name.startswith("hugepages-")
    for name, text in requests.items():
        at = f"{path}.requests[{name}]"
        _resource_name(errors, name, at)
        value = _resource_amount(errors, name, text, at)
        counted = counted or name in ("cpu", "memory")
        huge = huge or name.startswith("hugepages-")
        if value is not None:
            _against_limit(errors, name, text, value, limits.get(name), path)
    if huge and not counted:
        errors.append(forbidden_field(path, "HugePages require cpu or memory"))
    for index, claim in enumerate(given.get("claims") or ()):
        _claim(errors, claim, f"{path}.claims[{index}]", claims or set())


def _against_limit(
    errors: Errors, name: str, text: str, value: quantity.Quantity, limit: str | None, path: str
) -> None:
    shared = not is_extended(name) and not name.startswith("hugepages-")
    if limit is not None:
        most = amount(limit)
        if most is None:
            return
        if not shared and value != most:
            detail = f"must be equal to {name} limit of {limit}"
            errors.append(invalid_value(f"{path}.requests", text, detail))
        elif shared and value > most:
            detail = f"must be less than or equal to {name} limit of {limit}"
            errors.append(invalid_value(f"{path}.requests", text, detail))
    elif not shared:
        errors.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))


def resource_name(errors: Errors, path: str, name: str) -> None:
    """Any resource: a standard one or one with a domain."""
    problems = key_problems(name)
    for problem in problems:
        errors.append(invalid_value(path, name, problem))
    if not problems and "/" not in name and not is_standard(name):
        errors.append(invalid_value(path, name, "must be a standard resource type or fully qualified"))


def _resource_name(errors: Errors, name: str, path: str) -> None:
    """A resource of a container: cpu, memory, …, or with a domain that is not ours."""
    if name in _CONTAINER:
        return
    resource_name(errors, path, name)
    if "/" not in name:
        if not name.startswith("hugepages-"):
            errors.append(invalid_value(path, name, "must be a standard resource for containers"))
    elif not is_native(name) and not is_extended(name):
        errors.append(invalid_value(path, name, "doesn't follow extended resource name standard"))


def _resource_amount(errors: Errors, name: str, text: str, path: str) -> quantity.Quantity | None:
    value = amount(text)
    if value is None:
        return None
    if value.nano < 0:
        errors.append(invalid_value(path, text, "must be greater than or equal to 0"))
    if value.nano % quantity.NANO and is_extended(name):
        errors.append(invalid_value(path, text, "must be an integer"))
    return value


def _claim(errors: Errors, claim: Object, path: str, known: Container[str]) -> None:
    name = claim.get("name", "")
    if not name:
        errors.append(required(f"{path}.name"))
    elif name not in known:
        errors.append(not_found_field(f"{path}.name", name))


def resize_policy(errors: Errors, given: Sequence[Object], path: str) -> None:
    """One for cpu and one for memory (KEP-1287)."""
    seen: set[str] = set()
    for index, policy in enumerate(given):
        at, resource = f"{path}[{index}]", policy.get("resourceName", "")
        if resource in seen:
            errors.append(duplicate(at, resource))
        seen.add(resource)
        if resource not in ("cpu", "memory"):
            errors.append(not_supported(f"{at}.resourceName", resource, ("cpu", "memory")))
        restart = policy.get("restartPolicy", "")
        if restart not in ("NotRequired", "RestartContainer"):
            errors.append(not_supported(f"{at}.restartPolicy", restart, ("NotRequired", "RestartContainer")))
