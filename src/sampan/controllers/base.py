"""What every controller shares: the `Rule` that the runner takes, time as text, and patches that say only what changed.

Nothing here decides anything. A controller file is read without this one: a `Rule` is a name, a resource, a pure
function, and which other changes wake it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sampan.api import meta, selectors
from sampan.base.clock import rfc3339 as stamp
from sampan.base.clock import rfc3339_parse
from sampan.base.objects import Object
from sampan.client.plan import Key, Mapper, Patch, Plan, View, by_metadata

__all__ = [
    "Mapper",
    "Rule",
    "collision",
    "counts",
    "merge_diff",
    "owner_of",
    "owner_or_selecting",
    "same_name",
    "seconds",
    "selector_of",
    "stamp",
    "status_patch",
]


@dataclass(frozen=True)
class Rule:
    """One controller, as `client.plan.Controller` asks for it, where the fields are explained."""

    name: str
    resource: str
    reconcile: Callable[[Object, View, float], Plan]
    watches: Mapping[str, Mapper] = field(default_factory=dict)
    removed: Callable[[Key, View, float], Plan] | None = None
    reads: tuple[str, ...] = ()
    indexes: Mapping[str, Mapping[str, Callable[[Object], Any]]] = field(default_factory=dict)
    signs: Mapping[str, Callable[[Object], object]] = field(default_factory=dict)
    alone: bool = False
    concerns: Callable[[Object], bool] | None = None


def owner_of(kind: str) -> Mapper:
    """Wakes the controlling owner of an object, when it is of this kind."""

    @by_metadata
    def keys(obj: Object, view: View) -> Iterable[Key]:
        ref = meta.owner(obj)
        return [Key(meta.namespace(obj), ref["name"])] if ref and ref.get("kind") == kind else []

    return keys


def owner_or_selecting(kind: str, resource: str) -> Mapper:
    """Wakes the controlling owner, or for an orphan every object of `resource` whose selector matches it."""

    @by_metadata
    def keys(obj: Object, view: View) -> Iterable[Key]:
        if ref := meta.owner(obj):
            return [Key(meta.namespace(obj), ref["name"])] if ref.get("kind") == kind else []
        labels = meta.labels(obj)
        if not labels:
            return []
        found = view.list(resource, meta.namespace(obj))
        return [Key(meta.namespace(o), meta.name(o)) for o in found if selector_of(o).matches(labels)]

    return keys


@by_metadata
def same_name(obj: Object, view: View) -> Iterable[Key]:
    """Wakes the object of the same namespace and name."""
    return [Key(meta.namespace(obj), meta.name(obj))]


def selector_of(obj: Object) -> selectors.LabelSelector:
    """`spec.selector` as a LabelSelector: a plain map (ReplicationController, Service) or a meta/v1 LabelSelector."""
    raw = obj.get("spec", {}).get("selector")
    if raw and not ("matchLabels" in raw or "matchExpressions" in raw):
        raw = {"matchLabels": raw}
    return _parse(orjson.dumps(raw)) if raw else selectors.from_object(None)


@functools.lru_cache(maxsize=20_000)
def _parse(raw: bytes) -> selectors.LabelSelector:
    return selectors.from_object(orjson.loads(raw))


@functools.lru_cache(maxsize=4096)
def seconds(text: str | None) -> float:
    """Seconds since the epoch of a meta/v1 Time or MicroTime; 0 for a missing one."""
    return rfc3339_parse(text) if text else 0.0


def merge_diff(old: Any, new: Any) -> Any:
    """The JSON merge patch (RFC 7396) that turns the map `old` into `new`; {} when they are equal."""
    patch: Object = {}
    for key in old.keys() | new.keys():
        if key not in new:
            patch[key] = None
        elif key not in old:
            patch[key] = new[key]
        elif old[key] != new[key]:
            both = isinstance(old[key], dict) and isinstance(new[key], dict)
            patch[key] = merge_diff(old[key], new[key]) if both else new[key]
    return dict(sorted(patch.items()))


def status_patch(resource: str, obj: Object, status: Object, *, exact: bool = False) -> list[Patch]:
    """One patch of the status subresource, or none when nothing changed. Absent keys of `status` are removed.

    `exact`: only if nobody else has written the object meanwhile (others set this status, too).
    """
    diff = merge_diff(obj.get("status") or {}, {k: v for k, v in status.items() if v is not None})
    if not diff:
        return []
    return [
        Patch(
            resource,
            meta.name(obj),
            {
                "status": diff,
                **({"metadata": {"resourceVersion": meta.resource_version(obj)}} if exact else {}),
            },
            meta.namespace(obj),
            subresource="status",
            missing_ok=True,
        )
    ]


def collision(resource: str, owner: Object) -> Patch:
    """The name for the present template belongs to another one: counting that changes the template's hash."""
    status = {"collisionCount": owner.get("status", {}).get("collisionCount", 0) + 1}
    return Patch(resource, meta.name(owner), {"status": status}, meta.namespace(owner), subresource="status")


def counts(**numbers: int) -> Object:
    """Status counters as Go's omitempty leaves them: zeros are absent."""
    return {name: number for name, number in numbers.items() if number}
