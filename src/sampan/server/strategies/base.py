"""The shape of a strategy, and the rules most kinds share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sampan.api import fieldset
from sampan.api.copying import copied
from sampan.api.custom import default_status
from sampan.api.fieldset import Trie
from sampan.api.registry import Resource
from sampan.base.objects import Object
from sampan.client.messages import User


@dataclass(frozen=True, slots=True)
class Prep:
    """What a strategy may know of the request. `now` in seconds since the epoch."""

    row: Resource
    user: User
    now: float
    subresource: str = ""


Create = Callable[[Object, Prep], None]
Update = Callable[[Object, Object, Prep], None]


@dataclass(frozen=True, slots=True)
class Strategy:
    """`status` is what a new object's status is ({} by default, None: keep what was sent)."""

    create: Create | None = None
    update: Update | None = None  # (new, old): after status was taken from the old object
    update_status: Update | None = (
        None  # (new, old): after everything but status was taken from the old object
    )
    status: Object | None = None
    keeps_status: bool = False  # a create may bring its status (Node)
    generation: bool = False  # metadata.generation counts changes outside metadata and status
    create_on_update: bool = False  # a PUT of a missing object creates it
    needs_version: bool = False  # a PUT must carry a resourceVersion
    graceful: bool = False  # a deletion waits for a grace period (Pod)
    returns_deleted: bool = False  # DELETE answers the object, not a Status
    orphans: bool = False  # dependants are orphaned unless asked otherwise
    frozen: tuple[str, ...] = ()  # top-level fields an ordinary update takes from the old object


GENERIC = Strategy()
CUSTOM = Strategy(generation=True, needs_version=True)


def has_status(row: Resource) -> bool:
    """Whether status is a world of its own, written through `/status`."""
    return "status" in row.subresources


def prepare_create(strategy: Strategy, obj: Object, prep: Prep) -> None:
    """In place: a new object as it will be stored, before validation."""
    meta = obj["metadata"]
    if has_status(prep.row) and not strategy.keeps_status:
        obj.pop("status", None)
        if strategy.status is not None:
            obj["status"] = copied(strategy.status)
        elif prep.row.custom:
            default_status(prep.row, obj)
        else:
            obj["status"] = {}
    if strategy.generation:
        meta["generation"] = 1
    if strategy.create is not None:
        strategy.create(obj, prep)


def prepare_update(strategy: Strategy, new: Object, old: Object, prep: Prep) -> None:
    """In place: `new` as it will be stored; what this way of writing may not touch comes from `old`."""
    _keep_system_fields(new, old)
    if has_status(prep.row):
        _take(new, old, "status")
    for field in strategy.frozen:
        _take(new, old, field)
    if strategy.update is not None:
        strategy.update(new, old, prep)
    beside = {"status"} if has_status(prep.row) else set()
    if strategy.generation and spec_changed(new, old, beside):
        new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


# Metadata that a write of status cannot change; what is not listed may be (finalizers, annotations, …).
_ALL_METADATA = ("labels", "annotations", "finalizers", "ownerReferences")
_STATUS_METADATA = {
    "pods": ("ownerReferences",),
    "deployments.apps": ("labels",),
    "customresourcedefinitions.apiextensions.k8s.io": _ALL_METADATA,
    "apiservices.apiregistration.k8s.io": _ALL_METADATA,
    "flowschemas.flowcontrol.apiserver.k8s.io": _ALL_METADATA,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": _ALL_METADATA,
    "validatingadmissionpolicies.admissionregistration.k8s.io": _ALL_METADATA,
    "volumeattachments.storage.k8s.io": _ALL_METADATA,
    "resourceclaims.resource.k8s.io": _ALL_METADATA,
    "servicecidrs.networking.k8s.io": _ALL_METADATA,
    "podcertificaterequests.certificates.k8s.io": _ALL_METADATA,
}


def _fixed_metadata(row: Resource) -> tuple[str, ...]:
    """The fields of metadata that a write of status leaves as they are."""
    return _ALL_METADATA if row.custom else _STATUS_METADATA.get(row.store_key, ())


def changeable(row: Resource, subresource: str, fields: Trie | None) -> Trie | None:
    """The part of a set of fields that a write of an object, or of its status, can change."""
    if subresource != "status":
        return fieldset.without(fields, "f:status") if has_status(row) else fields
    for field in _fixed_metadata(row):
        fields = fieldset.without(fields, "f:metadata", f"f:{field}")
    return {key: below for key, below in (fields or {}).items() if key in ("f:metadata", "f:status")} or None


def prepare_status(strategy: Strategy, new: Object, old: Object, prep: Prep) -> None:
    """In place: only status (and what metadata a status may carry) differs from `old`."""
    _keep_system_fields(new, old)
    sent = new.get("status")
    meta = new["metadata"]
    for field in _fixed_metadata(prep.row):
        _take(meta, old["metadata"], field)
    rest = {k: v for k, v in old.items() if k not in ("metadata", "status")}
    new.clear()
    new.update(rest)
    new["metadata"] = meta
    if sent is not None:
        new["status"] = sent
    if strategy.update_status is not None:
        strategy.update_status(new, old, prep)


def prepare_part(strategy: Strategy, new: Object, old: Object, prep: Prep) -> None:
    """In place: what a write through `prep.subresource` may change, the rest from `old`."""
    part = _PARTS.get(prep.subresource)
    if part is None:
        prepare_update(strategy, new, old, prep)
    else:
        part(strategy, new, old, prep)


def _finalize(strategy: Strategy, new: Object, old: Object, prep: Prep) -> None:
    """A namespace's own finalizers."""
    wanted = (new.get("spec") or {}).get("finalizers")
    version = new["metadata"].get("resourceVersion", "")
    new.clear()
    new.update(copied(old))
    new["metadata"]["resourceVersion"] = version
    new["spec"] = {"finalizers": wanted} if wanted else {}


def _ephemeral(strategy: Strategy, new: Object, old: Object, prep: Prep) -> None:
    """Only the list of ephemeral containers (KEP-277)."""
    wanted = (new.get("spec") or {}).get("ephemeralContainers")
    meta = new["metadata"]
    new.clear()
    new.update(copied(old))
    new["metadata"]["resourceVersion"] = meta.get("resourceVersion", "")
    if wanted:
        new["spec"]["ephemeralContainers"] = wanted
    _count_change(new, old)


def _resize(strategy: Strategy, new: Object, old: Object, prep: Prep) -> None:
    """Only the resources of containers and of the pod as a whole (KEP-1287, KEP-5419).

    Containers that are not the same ones are left to validation.
    """
    spec, version = new.get("spec") or {}, new["metadata"].get("resourceVersion", "")
    new.clear()
    new.update(copied(old))
    new["metadata"]["resourceVersion"] = version
    for field in ("containers", "initContainers"):
        asked, kept = spec.get(field) or [], new["spec"].get(field) or []
        if [c.get("name") for c in asked] != [c["name"] for c in kept]:
            new["spec"][field] = asked
            continue
        for container, wanted in zip(kept, asked, strict=True):
            container.update({part: wanted[part] for part in ("resources", "resizePolicy") if part in wanted})
    if spec.get("resources"):
        new["spec"]["resources"] = spec["resources"]
    _count_change(new, old)


def _count_change(new: Object, old: Object) -> None:
    if spec_changed(new, old):
        new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def _binding(strategy: Strategy, new: Object, old: Object, prep: Prep) -> None:
    """The server itself has made this object."""


_PARTS: dict[str, Callable[[Strategy, Object, Object, Prep], None]] = {
    "status": prepare_status,
    "approval": prepare_status,
    "finalize": _finalize,
    "ephemeralcontainers": _ephemeral,
    "resize": _resize,
    "binding": _binding,
}


def spec_changed(new: Object, old: Object, beside: Collection[str] = ("status",)) -> bool:
    """Whether anything but metadata (and what is `beside` it) differs."""
    keys = (new.keys() | old.keys()).difference(beside, ("metadata", "kind", "apiVersion"))
    return any(new.get(key) != old.get(key) for key in keys)


def _take(new: Object, old: Object, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


_SYSTEM = ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink")


def _keep_system_fields(new: Object, old: Object) -> None:
    """Fields only the server writes. A foreign deletionTimestamp stays, for validation to refuse."""
    meta, before = new["metadata"], old["metadata"]
    meta["uid"] = before.get("uid", "")
    for field in _SYSTEM:
        if field == "deletionTimestamp" and meta.get(field) and meta[field] != before.get(field):
            continue
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
