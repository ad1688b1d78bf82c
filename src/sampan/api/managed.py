"""managedFields: who set which field, kept up to date by every write. Source: the reference's "Field management".

Each entry belongs to a manager, an operation (Apply or Update), a version and a subresource. An update takes what it
changed from everyone else; nothing changes hands when a value stays the same.
"""

from __future__ import annotations

from typing import NamedTuple

from sampan.api import fieldset
from sampan.api.fieldset import Trie
from sampan.api.schema import Node
from sampan.base.objects import Object

MAX_UPDATERS = 10
ANCIENT = "ancient-changes"
BEFORE_FIRST_APPLY = "before-first-apply"

# Metadata that belongs to the server: nobody manages it.
_NOT_MANAGED = frozenset(
    "name namespace creationTimestamp selfLink uid clusterName generation managedFields resourceVersion"
    " deletionTimestamp deletionGracePeriodSeconds generateName".split()
)


class Manager(NamedTuple):
    """The identity of an entry."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


class Managers:
    """The entries of one object: field sets and when they last changed (RFC 3339)."""

    def __init__(self, sets: dict[Manager, Trie], times: dict[Manager, str]) -> None:
        self.sets, self.times = sets, times

    @classmethod
    def of(cls, obj: Object | None) -> Managers:
        """Entries of a stored object; those of an unknown form make the whole list count as empty."""
        sets: dict[Manager, Trie] = {}
        times: dict[Manager, str] = {}
        for entry in (obj or {}).get("metadata", {}).get("managedFields") or []:
            if entry.get("fieldsType") != "FieldsV1" or entry.get("operation") not in ("Apply", "Update"):
                return cls({}, {})
            key = Manager(
                entry.get("manager", ""),
                entry["operation"],
                entry.get("apiVersion", ""),
                entry.get("subresource", ""),
            )
            sets[key] = entry.get("fieldsV1") or {}  # of two entries of one manager the later one counts
            times[key] = entry.get("time", "")
        return cls(sets, times)

    def entries(self) -> list[Object]:
        """The list as it is stored: applies first, then by time and name."""

        def order(key: Manager) -> tuple[str, str, str, str, str]:
            return key.operation, self.times.get(key, ""), key.name, key.api_version, key.subresource

        result = []
        for key in sorted(self.sets, key=order):
            entry: Object = {"manager": key.name, "operation": key.operation, "apiVersion": key.api_version}
            if self.times.get(key):
                entry["time"] = self.times[key]
            entry["fieldsType"] = "FieldsV1"
            entry["fieldsV1"] = self.sets[key]
            if key.subresource:
                entry["subresource"] = key.subresource
            result.append(entry)
        return result

    def replace(self, key: Manager, fields: Trie | None, now: str) -> None:
        """Set or remove an entry; its time moves only if its fields do."""
        if fields is None:
            self.sets.pop(key, None)
        elif self.sets.get(key) != fields:
            self.sets[key], self.times[key] = fields, now

    def move(self, key: Manager) -> None:
        """An applier is the same one whatever version it speaks: its entry is of `key`'s version from now on."""
        for other in list(self.sets):
            if other != key and other._replace(api_version=key.api_version) == key:
                self.sets[key], self.times[key] = self.sets.pop(other), self.times.pop(other)

    def take(self, changes: fieldset.Changes, keep: Manager) -> None:
        """Remove from all entries but `keep` what was changed, added or removed."""
        removed, modified, added = changes
        lost = fieldset.union(removed, fieldset.union(modified, added))
        if lost is None:
            return
        for key, fields in list(self.sets.items()):
            if key == keep:
                continue
            rest = fieldset.difference(fields, lost)
            if rest is None:
                del self.sets[key]
            else:
                self.sets[key] = rest

    def cap(self, now: str) -> None:
        """At most ten updaters are remembered apart; the oldest become one."""
        updaters = sorted(
            (k for k in self.sets if k.operation == "Update" and not k.subresource),
            key=lambda k: self.times[k],
        )
        surplus = len(updaters) - MAX_UPDATERS
        if surplus <= 0:
            return
        ancient = [k for k in updaters if k.name == ANCIENT]
        others = [k for k in updaters if k.name != ANCIENT]
        old = ancient + others[: surplus + (not ancient)]
        for key in old:
            bucket = Manager(ANCIENT, "Update", key.api_version)
            fields, time = self.sets.pop(key), self.times.pop(key)
            self.sets[bucket] = fieldset.union(self.sets.get(bucket), fields) or fields
            self.times[bucket] = max(self.times.get(bucket, ""), time)


def update(
    old: Object | None,
    new: Object,
    node: Node | None,
    *,
    manager: str,
    subresource: str,
    now: str,
    api_version: str,
) -> None:
    """Set `new`'s managedFields after a create (`old` is None), update or patch by `manager`. Changes `new` only.

    An object whose entries were cleared stays without until somebody applies.
    """
    key = Manager(manager, "Update", api_version, subresource)
    if old is None:
        fields = fieldset.created(manageable(new), node)
        write(new, Managers({} if fields is None else {key: fields}, {key: now}))
        return
    managers = Managers.of(old) if subresource else _wanted(old, new)
    if managers is None or not managers.sets:
        new["metadata"].pop("managedFields", None)
        return
    changes = fieldset.compare(manageable(old), manageable(new), node)
    managers.take(changes, key)
    removed, modified, added = changes
    own = fieldset.difference(managers.sets.get(key), removed)
    managers.replace(key, fieldset.union(own, fieldset.union(modified, added)), now)
    managers.cap(now)
    write(new, managers)


def _wanted(old: Object, new: Object) -> Managers | None:
    """The entries to start from; None when the writer cleared them with [] or [{}]."""
    given = new["metadata"].get("managedFields")
    if given is None:
        return Managers.of(old)
    if given in ([], [{}]):
        return None
    edited = Managers.of(new)
    return edited if edited.sets else Managers.of(old)


def write(obj: Object, managers: Managers) -> None:
    """Puts the entries into the object; without entries there is no such field."""
    entries = managers.entries()
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def manageable(obj: Object) -> Object:
    """An object without what nobody manages."""
    rest = obj.copy()
    rest.pop("apiVersion", None)
    rest.pop("kind", None)
    if "metadata" in rest:
        rest["metadata"] = {k: v for k, v in rest["metadata"].items() if k not in _NOT_MANAGED}
        if not rest["metadata"]:
            del rest["metadata"]
    return rest
