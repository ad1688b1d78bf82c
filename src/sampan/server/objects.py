"""From bytes in the store to objects in the version that was asked for, and back."""

from __future__ import annotations

from dataclasses import replace

import orjson

from sampan.api import custom, wire
from sampan.api.registry import Registry, Resource
from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.server import convert, selectable
from sampan.store.protocol import Draft, Item, Store

_NONE: dict[str, str] = {}


def key_of(row: Resource, namespace: str, name: str) -> str:
    """The store's key: "namespace/name", or "name" for cluster-scoped resources."""
    return f"{namespace}/{name}" if row.namespaced else name


def name_of(key: str) -> tuple[str, str]:
    """(namespace, name) of a store key."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def storage_row(registry: Registry, row: Resource) -> Resource:
    """The row in whose version the objects of this resource are stored."""
    if row.custom:
        for version in (row.definition or {}).get("spec", {}).get("versions", ()):
            if version.get("storage"):
                return registry.find(row.group, version["name"], row.plural) or replace(
                    row, version=version["name"]
                )
        return row
    return registry.get(row.store_key) or row


def to_draft(registry: Registry, row: Resource, obj: Object, *, final: bool = False) -> Draft:
    """An object of `row`'s version, made ready to be stored (in the storage version).

    `final`: nobody changes `obj` after this, so those who follow its bucket in this process may have it as it is.
    """
    stored = storage_row(registry, row)
    if stored is not row and stored.api_version != row.api_version:
        obj = convert.convert(obj, row, stored)
    value, slot = wire.encode(obj)
    check_size(value)
    labels = (obj.get("metadata") or {}).get("labels") or _NONE
    return Draft(value, slot, labels, selectable.values(stored, obj), obj if final else None)


SIZE_LIMIT = 1536 * 1024  # bytes of a stored object, as etcd has it by default


def check_size(value: bytes) -> None:
    """Raises 413 in the words of the original's store."""
    if len(value) > SIZE_LIMIT:
        raise ApiError(413, "RequestEntityTooLarge", "etcdserver: request is too large")


def load(item: Item, row: Resource) -> Object:
    """The object of an item in `row`'s version, a fresh copy."""
    return read(item.value, item.revision, row)


def read(value: bytes, revision: int, row: Resource) -> Object:
    """Stored bytes as an object of `row`'s version. `revision` is when they were stored."""
    obj = orjson.loads(value)
    if obj.get("apiVersion") != row.api_version:
        obj = convert.convert_text(obj, row)
    if row.custom and revision < custom.default_since(row):
        custom.apply_schema_defaults(obj, custom.schema_node(row))
    return obj


def raw(item: Item, row: Resource) -> bytes:
    """The bytes to send: those in the store, unless they are of another version or lack a later default."""
    value = item.value
    if ready(value, item.revision, row):
        return value
    return orjson.dumps(read(value, item.revision, row))


def member(item: Item, row: Resource) -> memoryview:
    """The bytes of an object within a list, but for the first, which is "{": those that are stored are not copied.

    Built-in kinds do not say there again what they are, as in the original.
    """
    if row.custom:
        return memoryview(raw(item, row))[1:]
    head = _heads.get((row.api_version, row.kind))
    if head is None:
        text = f'{{"apiVersion":"{row.api_version}","kind":"{row.kind}",'
        head = _heads[row.api_version, row.kind] = text.encode()
    if item.value.startswith(head):
        return memoryview(item.value)[len(head) :]
    return memoryview(orjson.dumps(untyped(load(item, row), row)))[1:]


def untyped(obj: Object, row: Resource) -> Object:
    """An object as `member` gives it."""
    return obj if row.custom else {k: v for k, v in obj.items() if k not in ("kind", "apiVersion")}


def ready(value: bytes, revision: int, row: Resource) -> bool:
    """Whether stored bytes can be sent as they are."""
    return spoken(value, row) and not (row.custom and revision < custom.default_since(row))


def spoken(value: bytes, row: Resource) -> bool:
    """Whether stored bytes are in the version of `row` (wire.encode puts apiVersion first)."""
    prefix = _prefixes.get(row.api_version)
    if prefix is None:
        prefix = _prefixes[row.api_version] = b'{"apiVersion":"%b"' % row.api_version.encode()
    return value.startswith(prefix)


_prefixes: dict[str, bytes] = {}
_heads: dict[tuple[str, str], bytes] = {}


async def shown(store: Store, row: Resource, key: str, item: Item) -> None:
    """Return when readers see `item`: an answer without a write of its own may rest on one that is on its way to disk."""
    if store.get(row.store_key, key) is not item:
        await store.settled()
