"""What admission and authorization see of the cluster: decoded objects, each decoded once a revision.

What is returned is shared and must not be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson

from sampan.base.objects import Object
from sampan.store.protocol import Item, Store

T = TypeVar("T")
_LIMIT = 20_000  # decoded objects kept; all are dropped when there are more
_FEW = 1000  # and so many, beyond twice what is current, before those of the past are dropped


class Lookup:
    """Reads of one store. Buckets are GroupResource text, keys "namespace/name" or "name"."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._objects: dict[tuple[str, str], tuple[int, Object]] = {}
        self._lists: dict[tuple[str, str], tuple[int, list[Object]]] = {}
        self._sweep_at = _FEW

    def get(self, bucket: str, key: str) -> Object | None:
        """The visible object, or None."""
        item = self.store.get(bucket, key)
        return None if item is None else self._decode(bucket, item)

    def latest(self, bucket: str, key: str) -> Object | None:
        """The object including writes that are not yet durable; only for deciding a write."""
        item = self.store.latest(bucket, key)
        return None if item is None else self._decode(bucket, item)

    def list(self, bucket: str, prefix: str = "") -> list[Object]:
        """Objects whose key starts with `prefix` ("namespace/"), in key order."""
        version = self.version(bucket)
        known = self._lists.get((bucket, prefix))
        if known is not None and known[0] == version:
            return known[1]
        objects = [self._decode(bucket, item) for item in self.items(bucket, prefix)]
        if len(self._lists) > 1000:
            self._lists.clear()
        self._lists[bucket, prefix] = (version, objects)
        return objects

    def items(self, bucket: str, prefix: str = "") -> Sequence[Item]:
        """The stored items, undecoded: labels, fields and revision are beside the bytes."""
        return self.store.list(bucket, prefix).items

    def current(self, bucket: str, prefix: str = "") -> Sequence[Item]:
        """Like `items`, with the writes that are still on their way: for limits that must never be exceeded."""
        items = self.items(bucket, prefix)
        changes = [c for c in self.store.pending(bucket) if c.key.startswith(prefix)]
        if not changes:
            return items
        merged = {i.key: i for i in items}
        for change in changes:
            if change.item is None:
                merged.pop(change.key, None)
            else:
                merged[change.key] = change.item
        return list(merged.values())

    def decode(self, bucket: str, item: Item) -> Object:
        """The object of an item."""
        return self._decode(bucket, item)

    def version(self, bucket: str) -> int:
        """Changes whenever the bucket does."""
        return self.store.bucket_revision(bucket)

    def _decode(self, bucket: str, item: Item) -> Object:
        known = self._objects.get((bucket, item.key))
        if known is not None and known[0] == item.revision:
            return known[1]
        obj: Object = orjson.loads(item.value)
        if len(self._objects) >= self._sweep_at:
            self._sweep()
        self._objects[bucket, item.key] = (item.revision, obj)
        return obj

    def _sweep(self) -> None:
        """Forget what is gone or has changed."""
        get = self.store.get
        kept = {
            at: found
            for at, found in self._objects.items()
            if (item := get(*at)) is not None and item.revision == found[0]
        }
        self._objects = kept if len(kept) < _LIMIT else {}
        self._sweep_at = min(_LIMIT, 2 * len(self._objects) + _FEW)


class Derived:
    """A value computed from whole buckets, computed again only after one of them has changed."""

    def __init__(self, lookup: Lookup, buckets: Sequence[str], compute: Callable[[], T]) -> None:
        self._lookup = lookup
        self._buckets = tuple(buckets)
        self._compute = compute
        self._revision = -1
        self._versions: list[int] | None = None
        self._value: Any = None

    def get(self) -> Any:
        """The value, computed anew when one of its buckets has changed since."""
        revision = self._lookup.store.revision
        if revision != self._revision:  # something changed somewhere: was it ours?
            versions = list(map(self._lookup.store.bucket_revision, self._buckets))
            if versions != self._versions:
                self._value = self._compute()
                self._versions = versions
            self._revision = revision
        return self._value
