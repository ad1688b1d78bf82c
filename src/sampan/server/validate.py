"""Validation, as the server needs it: the kind's own rules, or those of a custom resource's schema."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sampan.api import names
from sampan.api.registry import Resource
from sampan.api.status import FieldError, invalid_value, required

if TYPE_CHECKING:
    from sampan.server.app import Server

Object = dict[str, Any]


@lru_cache(maxsize=1)
def _rules() -> Any:
    """`sampan.api.validate`, or None as long as there is none."""
    try:
        return importlib.import_module("sampan.api.validate")
    except ModuleNotFoundError as error:
        if error.name != "sampan.api.validate":
            raise
        return None


def create(server: Server, row: Resource, obj: Object) -> list[FieldError]:
    """What is wrong with a new object."""
    rules = _rules()
    if row.custom:
        from sampan.server import custom

        return _metadata(rules, row, obj, None) + custom.validate(row, obj, None)
    if rules is not None:
        return rules.validate_create(row, obj) + _expressions(row, obj, None)
    return _name_errors(obj, row)


def update(server: Server, row: Resource, new: Object, old: Object, subresource: str) -> list[FieldError]:
    """What is wrong with a changed object."""
    rules = _rules()
    if row.custom:
        from sampan.server import custom

        return _metadata(rules, row, new, old) + custom.validate(row, new, old, subresource)
    if rules is not None:
        return rules.validate_update(row, new, old, subresource) + _expressions(row, new, old)
    return []


def _expressions(row: Resource, obj: Object, old: Object | None) -> list[FieldError]:
    """What is wrong with the expressions in an object; the interpreter is loaded when there are any."""
    if row.plural == "customresourcedefinitions" and "x-kubernetes-validations" in str(obj.get("spec")):
        from sampan.api import cel

        return cel.definition_errors(obj, old)
    if row.group != "admissionregistration.k8s.io" or (old is not None and _same_spec(obj, old)):
        return []
    if row.plural == "validatingadmissionpolicies":
        from sampan.api.cel import admission

        return admission.policy_errors(obj)
    if any(hook.get("matchConditions") for hook in obj.get("webhooks") or ()):
        from sampan.api.cel import admission

        return admission.webhook_errors(obj)
    return []


def _same_spec(obj: Object, old: Object) -> bool:
    return all(obj.get(k) == old.get(k) for k in ("spec", "webhooks"))


def _metadata(rules: Any, row: Resource, obj: Object, old: Object | None) -> list[FieldError]:
    check = getattr(rules, "validate_metadata", None)
    if check is not None:
        return check(row, obj, old)
    return _name_errors(obj) if old is None else []


def _name_errors(obj: Object, row: Resource | None = None) -> list[FieldError]:
    name = obj["metadata"].get("name", "")
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    check = names.path_segment if row and row.group.startswith("rbac.") else names.dns1123_subdomain
    return [invalid_value("metadata.name", name, problem) for problem in check(name)]
