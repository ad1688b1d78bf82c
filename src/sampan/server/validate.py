"""Validation, as the server needs it: the kind's own rules, or those of a custom resource's schema."""

from __future__ import annotations

from sampan.api import custom
from sampan.api import validate as rules
from sampan.api.registry import Resource
from sampan.api.status import FieldError
from sampan.base.objects import Object


def create(row: Resource, obj: Object) -> list[FieldError]:
    """What is wrong with a new object."""
    if row.custom:
        return rules.validate_metadata(row, obj, None) + custom.validate(row, obj, None)
    return rules.validate_create(row, obj) + _expressions(row, obj, None)


def update(row: Resource, new: Object, old: Object, subresource: str) -> list[FieldError]:
    """What is wrong with a changed object."""
    if row.custom:
        return rules.validate_metadata(row, new, old) + custom.validate(row, new, old, subresource)
    return rules.validate_update(row, new, old, subresource) + _expressions(row, new, old)


def _expressions(row: Resource, obj: Object, old: Object | None) -> list[FieldError]:
    """What is wrong with the expressions in an object; the interpreter is loaded when there are any."""
    if row.plural == "customresourcedefinitions" and "x-kubernetes-validations" in str(obj.get("spec")):
        from sampan.api import cel

        return cel.definition_errors(obj, old)
    if row.group != "admissionregistration.k8s.io" or (old is not None and _same_spec(obj, old)):
        return []
    if row.plural in ("validatingadmissionpolicies", "mutatingadmissionpolicies"):
        from sampan.api.cel import admission

        return admission.policy_errors(obj)
    if any(hook.get("matchConditions") for hook in obj.get("webhooks") or ()):
        from sampan.api.cel import admission

        return admission.webhook_errors(obj)
    return []


def _same_spec(obj: Object, old: Object) -> bool:
    return all(obj.get(k) == old.get(k) for k in ("spec", "webhooks"))
