"""The cluster as a controller sees it: a read-only picture kept current by watches, ahead of them by our own writes.

A write's answer is folded in at once (`apply_result`), so a controller never acts twice on what it has just done and
needs no record of expectations. Source of the watch protocol: KEP-3157 (sendInitialEvents), API concepts "watch".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from sampan.api.status import ApiError
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.table import Decoder, Entry, Index, MetadataEntry, Sign, Table

Listener = Callable[[str, Object | None, Object | None], None]
Objects = list[Object]
Pairs = list[tuple[str, Object]]

DEFAULT_INDEXES: Mapping[str, Mapping[str, Index]] = {
    "pods": {"spec.nodeName": lambda pod: pod.get("spec", {}).get("nodeName")},
}
_INITIAL_END = "k8s.io/initial-events-end"
_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_SLICE = 64  # events handled before other tasks get their turn
_BACKOFF_FIRST, _BACKOFF_LAST = 0.1, 30.0  # seconds between attempts to watch again

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of a resource a view follows; empty means all. `metadata_only` shows no spec, status or data."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""
    metadata_only: bool = False


class _Stream:
    """One watch and the table it fills."""

    def __init__(self, table: Table, scope: Scope) -> None:
        self.table = table
        self.scope = scope
        self.since = ""  # "": begin with everything there is
        self.synced = asyncio.Event()
        self.answered = asyncio.Event()  # synced, or one of "*" that cannot be read: it keeps nobody waiting
        self.task: asyncio.Task[None] | None = None

    def complete(self) -> None:
        self.synced.set()
        self.answered.set()


class CachedView:
    """`client.plan.View` over watched resources. `"*"` among the resources follows everything served, custom ones too.

    `indexes` maps a resource to named functions of an object that give a value, several, or None; `signs` maps it to the
    function whose last change `last_sign` tells; `scopes` narrows what is followed. `decoded` is how many bytes of objects are kept decoded. Listeners are called with (resource, old, new): old is
    None for a creation, new for a deletion; they must not wait.
    """

    def __init__(
        self,
        client: Client,
        resources: Iterable[str],
        *,
        clock: Clock,
        ids: Ids | None = None,
        indexes: Mapping[str, Mapping[str, Index]] = DEFAULT_INDEXES,
        signs: Mapping[str, Sign] | None = None,
        scopes: Mapping[str, Scope] | None = None,
        decoded: int = 4 << 20,
    ) -> None:
        self.fetched: Mapping[tuple[str, str, str], Any] = {}
        self._client = client
        self._clock = clock
        self._ids = ids or Ids()
        self._indexes = indexes
        self._signs = signs or {}
        self._scopes = scopes or {}
        self._decode = Decoder(decoded)
        self._streams: dict[str, _Stream] = {}
        self._listeners: list[Listener] = []
        self._unknown: dict[str, Table] = {}  # what is asked for but not followed is empty
        self._wanted = list(dict.fromkeys(resources))
        self._everything = "*" in self._wanted
        self._started = False

    # Following

    async def start(self) -> None:
        """Begin to watch; returns when everything that is there has been seen."""
        self._started = True
        for resource in self._wanted:
            if resource != "*":
                self.add(resource)
        if self._everything:
            self._follow_all()
        await self.synced()

    async def synced(self) -> None:
        """Returns when everything has been seen, but for kinds of "*" that cannot be read: see `unseen`."""
        for stream in list(self._streams.values()):
            await stream.answered.wait()

    async def stop(self) -> None:
        """Stops following; what is known stays to be read."""
        tasks = [stream.task for stream in self._streams.values() if stream.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._started = False

    def add(self, resource: str, scope: Scope | None = None) -> None:
        """Follow one more resource (a custom one that has just been defined, say)."""
        if resource in self._streams:
            return
        table = Table(resource, self._indexes.get(resource, {}), self._signs.get(resource))
        stream = _Stream(table, scope or self._scopes.get(resource, Scope()))
        self._streams[resource] = stream
        if self._started:
            stream.task = asyncio.get_running_loop().create_task(
                self._follow(stream), name=f"watch {resource}"
            )

    def drop(self, resource: str) -> None:
        """Follow a resource no longer; its objects are reported as deleted."""
        stream = self._streams.pop(resource, None)
        if stream is None:
            return
        if stream.task:
            stream.task.cancel()
        for entry in list(stream.table.within(None)):
            self._remove(stream, entry)
        stream.complete()

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def _follow_all(self) -> None:
        """With "*": a stream for each preferred row that can be watched, and none for rows that went."""
        names: dict[str, str] = {}
        for row in self._client.rows():
            if "watch" in row.verbs and "list" in row.verbs:
                names.setdefault(row.store_key, row.name)
        for name in names.values():
            self.add(name, None if name in self._wanted else Scope(metadata_only=True))
        for name in [n for n in self._streams if n not in self._wanted and n not in names.values()]:
            self.drop(name)

    async def _follow(self, stream: _Stream) -> None:
        delay = 0.0
        resource = stream.table.resource
        while True:
            before = stream.table.seen
            try:
                await self._read(stream)
            except ApiError as error:
                if error.code == 410:
                    stream.since = ""
                elif error.code != 404 or self._client.knows(resource):
                    log.warning("watch of %s: %s", resource, error.message)
                    if (
                        resource not in self._wanted
                    ):  # a custom kind whose webhook is gone must not stop all the others
                        stream.answered.set()
            except (OSError, EOFError, TimeoutError) as error:
                log.info("watch of %s ended: %r", resource, error)
            except Exception:
                log.exception("watch of %s", resource)
            if stream.table.seen > before:
                delay = 0.0
                continue
            delay = min(max(_BACKOFF_FIRST, delay * 2), _BACKOFF_LAST)
            await self._clock.sleep(self._ids.jitter(delay, 0.5))

    async def _read(self, stream: _Stream) -> None:
        """One watch request, to its end. Raises what ended it; ApiError 410 when history is too short."""
        initial = not stream.since
        listed: set[tuple[str, str]] | None = set() if initial else None
        scope = stream.scope
        batches = self._client.events(
            stream.table.resource,
            scope.namespace,
            since=stream.since,
            labels=scope.labels,
            fields=scope.fields,
            initial=initial,
        )
        handled = 0
        async with contextlib.aclosing(batches):
            async for batch in batches:
                for kind, revision, value, decoded in batch:
                    obj = orjson.loads(value) if decoded is None else decoded
                    if kind == "ERROR":
                        raise ApiError.from_status(obj)
                    if kind == "BOOKMARK":
                        if listed is not None and _INITIAL_END in (obj["metadata"].get("annotations") or {}):
                            self._prune(stream, listed, revision)
                            listed = None
                            stream.complete()
                    elif kind == "DELETED":
                        self._deleted(stream, obj, revision)
                    else:
                        if listed is not None:
                            listed.add((obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
                        self._changed(stream, obj, revision, value)
                    if listed is None:
                        stream.table.seen = max(stream.table.seen, revision)
                        stream.since = str(stream.table.seen)
                    handled += 1
                    if handled % _SLICE == 0:
                        await self._clock.sleep(0)

    # What the watch says

    def _changed(self, stream: _Stream, obj: Object, revision: int, value: bytes) -> None:
        table = stream.table
        meta = obj["metadata"]
        if table.tombstones.get(meta.get("uid", ""), 0) >= revision:
            return
        known = table.entries.get((meta.get("namespace", ""), meta["name"]))
        if known is not None and known.revision >= revision:
            if known.value is None and known.revision == revision:
                known.value = value  # our own write has come back: its bytes can replace the decoded form
                self._decode.keep(known)
            return
        self._put(stream, obj, value)

    def _deleted(self, stream: _Stream, obj: Object, revision: int) -> None:
        meta = obj["metadata"]
        stream.table.tombstones.pop(meta.get("uid", ""), None)
        known = stream.table.entries.get((meta.get("namespace", ""), meta["name"]))
        if known is not None and known.revision < revision:
            self._remove(stream, known)

    def _prune(self, stream: _Stream, listed: set[tuple[str, str]], revision: int) -> None:
        """After everything was listed anew: what was not, is gone, unless we wrote it later."""
        for key, entry in sorted(stream.table.entries.items()):
            if key not in listed and entry.revision <= revision:
                self._remove(stream, entry)

    # What our own writes say

    def apply_result(self, resource: str, obj: Object) -> None:
        """Fold in the object that a write returned, unless something newer is known."""
        stream = self._streams.get(resource)
        meta = obj.get("metadata") or {}
        if stream is None or not stream.synced.is_set() or not meta.get("resourceVersion"):
            return
        key = (meta.get("namespace", ""), meta["name"])
        known = stream.table.entries.get(key)
        revision = int(meta["resourceVersion"])
        scope = stream.scope
        if known is None and (scope.namespace or scope.labels or scope.fields):
            return
        if revision <= stream.table.seen or (known is not None and known.revision >= revision):
            return  # the watch has told of this revision already, or of the object's end
        if stream.table.tombstones.get(meta.get("uid", ""), 0) < revision:
            self._put(stream, obj, None)

    def apply_deletion(
        self, resource: str, name: str, namespace: str = "", uid: str = "", revision: int = 0
    ) -> None:
        """Fold in that an object is gone, by `uid` when that is known, as of `revision` or what is known of it."""
        stream = self._streams.get(resource)
        if stream is None:
            return
        known = stream.table.entries.get((namespace, name))
        if known is not None and (not uid or known.uid == uid):
            stream.table.bury(known.uid, max(known.revision, revision))
            self._remove(stream, known)

    def _put(self, stream: _Stream, obj: Object, value: bytes | None) -> None:
        kind = MetadataEntry if stream.scope.metadata_only else Entry
        entry = kind(obj, value, stream.table.index_functions)
        old = stream.table.put(entry)
        stream.table.note_sign(obj, entry.key, self.moment)
        self._decode.keep(entry)
        self._notify(stream.table.resource, old, entry)

    def _remove(self, stream: _Stream, entry: Entry) -> None:
        stream.table.remove(entry.key)
        self._notify(stream.table.resource, entry, None)

    def _notify(self, resource: str, old: Entry | None, new: Entry | None) -> None:
        if self._listeners:
            before = self._decode(old) if old else None
            after = self._decode(new) if new else None
            for listener in self._listeners:
                listener(resource, before, after)
        if old is not None:
            self._decode.drop(old)
        if self._everything and resource == _DEFINITIONS:
            # In the server's own process this event may be here before its writer has gone on to serve the kind.
            asyncio.get_running_loop().call_soon(self._follow_all)

    # `client.plan.View`

    @property
    def moment(self) -> float:
        return self._clock.monotonic()

    def last_sign(self, resource: str, name: str, namespace: str = "") -> float:
        return self._table(resource).signs.get((namespace, name), (None, -math.inf))[1]

    def get(self, resource: str, name: str, namespace: str = "") -> Object | None:
        entry = self._table(resource).entries.get((namespace, name))
        return self._decode(entry) if entry else None

    def list(self, resource: str, namespace: str | None = None) -> Objects:
        table = self._table(resource)
        return self._decoded(table.within(namespace)) if table.entries else []

    def selected(self, resource: str, namespace: str, selector: Any) -> Objects:
        return self._decoded(e for e in self._table(resource).within(namespace) if selector.matches(e.labels))

    def owned(self, resource: str, uid: str) -> Objects:
        return self._decoded(self._table(resource).owned(uid))

    def unseen(self) -> Sequence[str]:
        waiting = {r for r, s in self._streams.items() if s.answered.is_set() and not s.synced.is_set()}
        return (
            sorted({row.name for row in self._client.rows() if row.name in waiting and row.namespaced})
            if waiting
            else []
        )

    def indexed(self, resource: str, index: str, value: str) -> Objects:
        return self._decoded(self._table(resource).indexed(index, value))

    def count(self, resource: str, index: str = "", value: str = "") -> int:
        if index:
            return self._table(resource).count(index, value)
        stream = self._streams.get(resource)
        return len((stream.table if stream is not None else self._table(resource)).entries)

    def dependents(self, uid: str) -> Pairs:
        found = [
            (resource, entries)
            for resource, s in self._streams.items()
            if (entries := s.table.referring(uid))
        ]
        return [(resource, self._decode(entry)) for resource, entries in sorted(found) for entry in entries]

    def contents(self, namespace: str) -> Pairs:
        return [
            (resource, self._decode(entry))
            for resource, stream in sorted(self._streams.items())
            for entry in stream.table.within(namespace)
        ]

    def resources(self) -> Sequence[str]:
        """What is followed."""
        return sorted(self._streams)

    def _decoded(self, entries: Iterable[Entry]) -> Objects:
        return [self._decode(entry) for entry in entries]

    def _table(self, resource: str) -> Table:
        stream = self._streams.get(resource)
        if stream is not None:
            return stream.table
        if resource not in self._unknown:
            self._unknown[resource] = Table(resource, self._indexes.get(resource, {}))
            if not self._everything:
                log.warning("%s is read but not followed: it looks empty", resource)
        return self._unknown[resource]
