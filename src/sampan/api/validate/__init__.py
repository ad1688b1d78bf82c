"""What may be stored: every kind's rules, with the causes, paths and sentences of the original.

Objects come here complete (normalized, defaulted, admitted, allocated). One table says which functions judge a kind;
a kind that has none is judged by its metadata alone. Source: API reference of each kind.
"""

from __future__ import annotations

from sampan.api.registry import Resource
from sampan.api.status import FieldError
from sampan.api.validate import meta
from sampan.api.validate.rules import GENERIC, rules_of
from sampan.base.objects import Object

__all__ = ["validate_create", "validate_metadata", "validate_update"]


# Whose objects may have finalizers of any name, as custom ones; elsewhere they say whose they are: example.com/name.
_ANY_FINALIZER = (
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
)


def _strict(row: Resource) -> bool:
    return not row.custom and row.group not in _ANY_FINALIZER


def validate_create(row: Resource, obj: Object) -> list[FieldError]:
    """What is wrong with a new object; empty when nothing is."""
    errors: list[FieldError] = []
    rules = rules_of(row)
    meta.create(errors, obj["metadata"], row.namespaced, rules.name, strict=_strict(row))
    if rules.create is not None:
        rules.create(errors, obj)
    return errors


def validate_update(row: Resource, new: Object, old: Object, subresource: str = "") -> list[FieldError]:
    """What is wrong with `new` as the successor of `old`, written through `subresource`."""
    errors: list[FieldError] = []
    rules = rules_of(row)
    again = rules.again and not subresource
    meta.update(errors, new["metadata"], old["metadata"], again=again, strict=_strict(row))
    change = rules.change(subresource)
    if change is not None:
        change(errors, new, old)
    return errors


def validate_metadata(row: Resource, obj: Object, old: Object | None) -> list[FieldError]:
    """The metadata alone, of a new object (`old` is None) or a changed one."""
    errors: list[FieldError] = []
    if old is None:
        meta.create(errors, obj["metadata"], row.namespaced, GENERIC.name, strict=_strict(row))
    else:
        meta.update(errors, obj["metadata"], old["metadata"], strict=_strict(row))
    return errors
