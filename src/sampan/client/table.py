"""One resource's objects as a view keeps them: bytes, a few projections, and indexes over those; decoded on demand.

Everything is ordered by (namespace, name), so that what a controller sees does not depend on the order of arrival.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from sampan.api.shared_specs import shared_spec
from sampan.base.interning import shared
from sampan.base.objects import Object

Index = Callable[[Object], "str | Iterable[str] | None"]
Sign = Callable[[Object], object]
ObjectKey = tuple[str, str]  # (namespace, name)

_TOMBSTONES = 10_000
_SHARED = 4096


class Entry:
    """An object at one revision. `value` is its JSON, shared with whoever sent it; `obj` its decoded form, if kept."""

    __slots__ = ("indexed", "key", "labels", "obj", "owner", "references", "revision", "uid", "value")

    def __init__(self, obj: Object, value: bytes | None, indexes: Mapping[str, Index]) -> None:
        meta = obj["metadata"]
        self.key: ObjectKey = (sys.intern(meta.get("namespace", "")), meta["name"])
        self.uid: str = meta.get("uid", "")
        self.revision = int(meta["resourceVersion"])
        self.value = value  # None: the object came as a write's answer and `obj` is all there is
        self.obj: Object | None = self.shown(obj)
        self.labels: Mapping[str, str] = shared(meta.get("labels") or _NO_LABELS)
        references = meta.get("ownerReferences")
        self.references: tuple[str, ...] = ()
        self.owner = ""
        if references:
            self.references = tuple(dict.fromkeys(ref["uid"] for ref in references))
            self.owner = next((ref["uid"] for ref in references if ref.get("controller")), "")
        self.indexed = _shared(tuple([_values(index(obj)) for index in indexes.values()])) if indexes else ()

    def shown(self, obj: Object) -> Object:
        """What of the object the view shows: not who set which field, which is a third of what a pod takes."""
        meta = obj["metadata"]
        if "managedFields" not in meta:
            return obj
        return {**obj, "metadata": {k: v for k, v in meta.items() if k != "managedFields"}}


class MetadataEntry(Entry):
    """Shows metadata only."""

    __slots__ = ()

    def shown(self, obj: Object) -> Object:
        return {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": obj["metadata"]}


_indexed: dict[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]] = {}


def _shared(values: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Thousands of objects are found under the same values, such as the name of their node."""
    if len(_indexed) > _SHARED:
        _indexed.clear()
    return _indexed.setdefault(values, values)


_NO_LABELS: Mapping[str, str] = {}


def _values(found: str | Iterable[str] | None) -> tuple[str, ...]:
    if found is None:
        return ()
    return (found,) if isinstance(found, str) else tuple(dict.fromkeys(found))


class Decoder:
    """Decoded objects of all tables; those decoded first lose that form first, but never their bytes."""

    def __init__(self, size: int) -> None:
        """`size` is in bytes of JSON; the decoded form takes three to four times as much."""
        self._size = size
        self._left = size
        self._kept: OrderedDict[Entry, None] = OrderedDict()

    def __call__(self, entry: Entry) -> Object:
        obj = entry.obj
        if obj is None:
            assert entry.value is not None
            obj = entry.obj = entry.shown(orjson.loads(entry.value))
            if obj.get("kind") == "Pod" and "spec" in obj:
                obj["spec"] = shared_spec(obj["spec"])
            self.keep(entry)
        return obj

    def keep(self, entry: Entry) -> None:
        """An object has its decoded form: when there are too many of them, the oldest loses it."""
        if entry.value is None:
            return
        kept = self._kept
        if entry in kept:
            return
        kept[entry] = None
        self._left -= len(entry.value)
        while self._left < 0 and len(kept) > 1:
            oldest = kept.popitem(last=False)[0]
            oldest.obj = None
            self._left += len(oldest.value or b"")

    def drop(self, entry: Entry) -> None:
        """An entry is no longer in a table."""
        if entry in self._kept:
            del self._kept[entry]
            self._left += len(entry.value or b"")


class Table:
    """The objects of one resource, by key, owner, reference and declared index."""

    def __init__(self, resource: str, indexes: Mapping[str, Index], sign: Sign | None = None) -> None:
        self.resource = resource
        self.index_functions = indexes
        self.sign = sign
        self.signs: dict[ObjectKey, tuple[object, float]] = {}  # each object's sign, and when it came
        self.entries: dict[ObjectKey, Entry] = {}
        self.seen = 0  # revision up to which the watch has told everything
        self.tombstones: OrderedDict[str, int] = (
            OrderedDict()
        )  # uid -> revision up to which news of it are stale
        self._keys: list[ObjectKey] = []
        self._owned: dict[str, set[ObjectKey]] = {}
        self._referring: dict[str, set[ObjectKey]] = {}
        self._indexed: dict[tuple[str, str], set[ObjectKey]] = {}

    def put(self, entry: Entry) -> Entry | None:
        """Replaces what was under this key; returns that."""
        old = self.entries.get(entry.key)
        if old is None:
            insort(self._keys, entry.key)
        else:
            self._unlink(old)
        self.entries[entry.key] = entry
        for index, value in _links(self, entry):
            index.setdefault(value, set()).add(entry.key)
        return old

    def remove(self, key: ObjectKey) -> Entry | None:
        """Takes an object out, and out of all indexes."""
        old = self.entries.pop(key, None)
        if old is not None:
            del self._keys[bisect_left(self._keys, key)]
            self.signs.pop(key, None)
            self._unlink(old)
        return old

    def note_sign(self, obj: Object, key: ObjectKey, moment: float) -> None:
        """When this sign of life (a Lease's renewal, say) was seen first: clocks of machines differ, ours counts."""
        if self.sign is not None:
            sign = self.sign(obj)
            if key not in self.signs or self.signs[key][0] != sign:
                self.signs[key] = sign, moment

    def bury(self, uid: str, revision: int) -> None:
        """News of this uid up to `revision` are stale from now on."""
        if uid:
            self.tombstones[uid] = max(revision, self.tombstones.get(uid, 0))
            if len(self.tombstones) > _TOMBSTONES:
                self.tombstones.popitem(last=False)

    def within(self, namespace: str | None) -> Iterator[Entry]:
        """In order; "" or None is everywhere."""
        entries = self.entries
        if not namespace:
            return (entries[key] for key in self._keys)
        first = bisect_left(self._keys, (namespace, ""))
        last = bisect_left(self._keys, (namespace + "\0", ""))
        return (entries[key] for key in self._keys[first:last])

    def owned(self, uid: str) -> list[Entry]:
        return self._sorted(self._owned.get(uid))

    def referring(self, uid: str) -> list[Entry]:
        return self._sorted(self._referring.get(uid))

    def indexed(self, index: str, value: str) -> list[Entry]:
        return self._sorted(self._under(index, value))

    def count(self, index: str, value: str) -> int:
        return len(self._under(index, value) or ())

    def _under(self, index: str, value: str) -> set[ObjectKey] | None:
        if index not in self.index_functions:
            raise KeyError(f"{self.resource} has no index {index!r}")
        return self._indexed.get((index, value))

    def _sorted(self, keys: set[ObjectKey] | None) -> list[Entry]:
        return [self.entries[key] for key in sorted(keys)] if keys else []

    def _unlink(self, entry: Entry) -> None:
        for index, value in _links(self, entry):
            keys = index[value]
            keys.discard(entry.key)
            if not keys:
                del index[value]


def _links(table: Table, entry: Entry) -> list[tuple[dict[Any, set[ObjectKey]], Any]]:
    """Every (index, value) under which an entry is found."""
    found: list[tuple[dict[Any, set[ObjectKey]], Any]] = [(table._owned, entry.owner)]
    for uid in entry.references:
        found.append((table._referring, uid))
    for name, values in zip(table.index_functions, entry.indexed, strict=True):
        for value in values:
            found.append((table._indexed, (name, value)))
    return found
