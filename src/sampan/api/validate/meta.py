"""Rules of the metadata every object has. Source: API reference, ObjectMeta; "Object Names and IDs"; "Finalizers"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sampan.api import names
from sampan.api.validate.base import (
    IMMUTABLE,
    NOT_NEGATIVE,
    Errors,
    forbidden_field,
    invalid_value,
    key_problems,
    label_problems,
    labels,
    required,
    subdomain_problems,
    too_long,
)
from sampan.base.objects import Object

NameCheck = Callable[[str], list[str]]

_ANNOTATIONS_LIMIT = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def create(
    errors: Errors,
    meta: Object,
    namespaced: bool,
    name_check: NameCheck = subdomain_problems,
    *,
    strict: bool = True,
) -> None:
    """Metadata of a new object. `name_check` lists what is wrong with a name of this kind.

    `strict`: finalizers are standard ones or name a domain.
    """
    generated = meta.get("generateName")
    if generated:
        for problem in names.generated(name_check)(generated):
            errors.append(invalid_value("metadata.generateName", generated, problem))
    name = meta.get("name", "")
    if not name:
        errors.append(required("metadata.name", "name or generateName is required"))
    else:
        for problem in name_check(name):
            errors.append(invalid_value("metadata.name", name, problem))
    namespace = meta.get("namespace", "")
    if namespaced:
        if not namespace:
            errors.append(required("metadata.namespace"))
        else:
            for problem in label_problems(namespace):
                errors.append(invalid_value("metadata.namespace", namespace, problem))
    elif namespace:
        errors.append(forbidden_field("metadata.namespace", "not allowed on this type"))
    if meta.get("generation", 0) < 0:
        errors.append(invalid_value("metadata.generation", meta["generation"], NOT_NEGATIVE))
    _contents(errors, meta)
    if "finalizers" in meta:
        _finalizers(errors, meta["finalizers"] or (), strict)


def _contents(errors: Errors, meta: Object) -> None:
    """What is judged on create and on update alike."""
    labels(errors, "metadata.labels", meta.get("labels"))
    if "annotations" in meta:
        annotation_map(errors, "metadata.annotations", meta["annotations"] or {})
    if "ownerReferences" in meta:
        _owners(errors, meta["ownerReferences"] or ())


def annotation_map(errors: Errors, path: str, given: dict[str, str]) -> None:
    """Keys are qualified names whatever their case; all together take at most 256 KiB."""
    size = 0
    for key, value in given.items():
        for problem in key_problems(key.lower()):
            errors.append(invalid_value(path, key, problem))
        size += len(key.encode()) + len((value or "").encode())
    if size > _ANNOTATIONS_LIMIT:
        errors.append(too_long(path, _ANNOTATIONS_LIMIT))


def _owners(errors: Errors, references: Sequence[Object]) -> None:
    path, managing = "metadata.ownerReferences", ""
    for reference in references:
        version = reference.get("apiVersion", "")
        if not version.rpartition("/")[2]:
            errors.append(invalid_value(f"{path}.apiVersion", version, "version must not be empty"))
        for field in ("kind", "name", "uid"):
            value = reference.get(field, "")
            if not value:
                errors.append(invalid_value(f"{path}.{field}", value, f"{field} must not be empty"))
        if version == "v1" and reference.get("kind") == "Event":
            detail = "/v1, Kind=Event is disallowed from being an owner"
            errors.append(invalid_value(path, reference, detail))
        if reference.get("controller"):
            name = reference.get("name", "")
            if managing:
                detail = (
                    "Only one reference can have Controller set to true. "
                    f'Found "true" in references for {managing} and {name}'
                )
                errors.append(invalid_value(path, list(references), detail))
            managing = managing or name


def _finalizers(errors: Errors, given: Sequence[str], strict: bool) -> None:
    path = "metadata.finalizers"
    for finalizer in given:
        for problem in key_problems(finalizer):
            errors.append(invalid_value(path, finalizer, problem))
    if "orphan" in given and "foregroundDeletion" in given:
        detail = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(invalid_value(path, list(given), detail))
    for index, finalizer in enumerate(given if strict else ()):
        if not qualified(finalizer):
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            errors.append(invalid_value(f"{path}[{index}]", finalizer, detail))


def qualified(finalizer: str) -> bool:
    """Whether a finalizer says whose it is."""
    return "/" in finalizer or finalizer in _STANDARD_FINALIZERS


_FIXED = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def update(errors: Errors, new: Object, old: Object, *, again: bool = False, strict: bool = True) -> None:
    """Metadata of a changed object against what it was.

    The original judges what metadata holds for every kind, then what of it changed, then both for the kind itself
    (`again`: the kind is judged as if it were new), and reports every time.
    """
    changed: Errors = []
    held: Errors = []
    _change(changed, new, old)
    _contents(held, new)
    finalizers: Errors = []
    if new.get("finalizers"):
        _finalizers(finalizers, new["finalizers"], strict)
    if changed or held or finalizers:
        whole = [*held, *finalizers]
        errors += [*whole, *changed, *held, *changed, *held, *(whole if again else ())]


def _change(errors: Errors, new: Object, old: Object) -> None:
    if old.get("deletionTimestamp"):
        _no_new_finalizers(errors, new.get("finalizers") or (), old.get("finalizers") or ())
    if not new.get("resourceVersion"):
        detail = "must be specified for an update"
        errors.append(invalid_value("metadata.resourceVersion", new.get("resourceVersion", ""), detail))
    if new.get("generation", 0) < old.get("generation", 0):
        errors.append(
            invalid_value("metadata.generation", new.get("generation", 0), "must not be decremented")
        )
    for field in _FIXED:
        value: Any = new.get(field)
        if value != old.get(field) and (value or old.get(field)):
            errors.append(invalid_value(f"metadata.{field}", value, IMMUTABLE))


def _no_new_finalizers(errors: Errors, new: Sequence[str], old: Sequence[str]) -> None:
    added = [f for f in new if f not in old]
    if added:
        listed = "[]string{" + ", ".join(f'"{f}"' for f in sorted(added)) + "}"
        detail = (
            f"no new finalizers can be added if the object is being deleted, found new finalizers {listed}"
        )
        errors.append(forbidden_field("metadata.finalizers", detail))


def template_meta(errors: Errors, meta: Object | None, path: str) -> None:
    """Labels and annotations of a pod template; their paths lack `metadata`, as the original's do."""
    if meta:
        labels(errors, f"{path}.labels", meta.get("labels"))
        annotation_map(errors, f"{path}.annotations", meta.get("annotations") or {})
