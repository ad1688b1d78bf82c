"""WATCH: each event is framed once and every watcher is sent the same bytes; a slow one is cut off, never queued for.

Source: API concepts, "Efficient detection of changes", "Watch bookmarks", "Streaming lists" (KEP-3157).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import orjson

from sampan.api.registry import Resource
from sampan.api.status import ApiError, gone
from sampan.base.objects import Object
from sampan.client.messages import Response, WatchEvent
from sampan.server import conversion, objects, respond
from sampan.server.call import Call
from sampan.server.negotiate import JSON
from sampan.server.options import ListOptions, list_options, too_large_version, version_number
from sampan.server.selectable import Match, compile_match, only_name, route
from sampan.store.protocol import Change, Compacted, Item, Watch

_CHUNK = 16 * 1024  # bytes handed to the connection at once, as many as TLS puts into a record
_BOOKMARK = 60.0  # seconds between bookmarks
_TIMEOUT = 1800.0  # a watch without timeoutSeconds ends after one to two times this


def watch(call: Call) -> Response:
    """The stream of events of a collection. Raises 400, 422, 504 before it begins; 410 comes as an ERROR event."""
    options = list_options(call.info.query, watching=True)
    match = compile_match(call.row, options)
    if call.form.shape == "table":
        respond.include_of(call)
    stream = _Stream(call, options, match)
    headers = {"content-type": JSON, "cache-control": "no-cache, private"}
    return Response(200, headers, stream, events=stream.events)


class _Stream:
    """One watcher: what was there (if asked for), then changes, with bookmarks between.

    It is the body of the answer: chunks of frames, each a line of JSON.
    """

    def __init__(self, call: Call, options: ListOptions, match: Match | None) -> None:
        self._call = call
        self._match = match
        self._bookmarks = options.bookmarks
        self._initial_end = False
        self._due = False  # the alarm rang
        self._columns_sent = False  # a Table watch sends its columns once
        self._expired: Compacted | None = None
        self._items: Sequence[Item] = ()
        self._converts = conversion.by_webhook(call.row)
        server, info, row = call.server, call.info, call.row
        clock = server.clock
        timeout = float(options.timeout) if options.timeout else server.ids.jitter(_TIMEOUT, 1.0)
        self._end = clock.monotonic() + timeout
        self._bookmark_at = clock.monotonic() + server.ids.jitter(_BOOKMARK, 0.25)
        prefix = f"{info.namespace}/" if row.namespaced and info.namespace else ""
        since = version_number(options.resource_version)
        if options.initial_events and since > server.store.revision:
            raise too_large_version(since, server.store.revision)
        if options.initial_events or (not since and options.initial_events is None):
            self._items, since = self._present(options, prefix)
            self._initial_end = bool(options.initial_events) and options.bookmarks
        self._since = since
        self._cursor: Watch | None = None
        try:
            begin = since or server.store.revision
            self._cursor = server.store.watch(
                row.store_key, prefix, since=begin, route=route(row, options, prefix)
            )
        except Compacted as error:
            self._expired = error
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self._begun: Callable[[], None] | None = None

    def when_begun(self, tell: Callable[[], None]) -> bool:
        """See `fairness.Beginning`."""
        if self._cursor is None or not (self._items or self._initial_end):
            return False
        self._begun = tell
        return True

    def _tell(self) -> None:
        tell, self._begun = self._begun, None
        if tell is not None:
            tell()

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._chunks = self._run()
        return self._chunks

    async def __anext__(self) -> bytes:
        return await anext(self._chunks or aiter(self))

    async def aclose(self) -> None:
        self._tell()
        if self._cursor is not None:
            self._cursor.close()
        if self._chunks is not None:
            await self._chunks.aclose()

    def push_to(self, write: Callable[[bytes], bool]) -> None:
        """See `client.messages.Pushed`: the way of nearly all events to nearly all watchers, with no task to wake."""
        if self._cursor is None or self._converts or self._call.form.shape == "table":
            return

        row, match = self._call.row, self._match
        joint = self._call.server.frames.joint((row.store_key, row.api_version, self._call.form))

        def push(batch: Sequence[Change]) -> bool:
            if match is not None:
                piece = self._framed(batch)
            else:
                if joint.batch is not batch:
                    joint.batch, joint.piece = batch, self._framed(batch)
                piece = joint.piece
            return piece is not None and (not piece or write(piece))

        self._cursor.feed = push

    def _framed(self, batch: Sequence[Change]) -> bytes | None:
        """A batch in one piece, None if it is too large for that."""
        parts: list[bytes] = []
        size = 0
        for change in batch:
            if size > _CHUNK:
                return None
            event = self._event(change)
            if event is not None:
                parts.append(self._frame(event))
                size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _present(self, options: ListOptions, prefix: str) -> tuple[Sequence[Item], int]:
        """What matches now, and the revision at which that is so."""
        store, bucket = self._call.server.store, self._call.row.store_key
        name = only_name(options)
        if name and (prefix or not self._call.row.namespaced):
            found = store.get(bucket, prefix + name)
            items: Sequence[Item] = [found] if found is not None else []
        else:
            items = store.list(bucket, prefix).items
        return items, store.revision

    async def _run(self) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self._changes()) as batches:
            async for batch in batches:
                if len(batch) == 1:  # the usual case: the very bytes that everybody gets
                    yield self._frame(batch[0])
                else:
                    for chunk in self._batched(batch):
                        yield chunk

    async def events(self) -> AsyncIterator[Sequence[WatchEvent]]:
        """The same for a reader in this process: values as they are stored, in the version that was asked for."""
        row = self._call.row
        self._bookmarks = False  # they are for those whose connection may break
        async with contextlib.aclosing(self._changes()) as batches:
            async for batch in batches:
                yield [
                    self._decoded(e)
                    if objects.ready(e.value, e.revision, row)
                    else e._replace(value=_value(row, e))
                    for e in batch
                ]

    def _decoded(self, event: WatchEvent) -> WatchEvent:
        """With the object as its writer left it, if that was just now."""
        obj = self._call.server.store.fresh(event.revision) if event.kind in ("ADDED", "MODIFIED") else None
        if obj is None:
            return event
        obj["metadata"]["resourceVersion"] = str(event.revision)
        return WatchEvent(event.kind, event.revision, event.value, obj)

    async def _changes(self) -> AsyncGenerator[Sequence[WatchEvent], None]:
        """What was there, then what happens: events of the stored version, never an empty batch."""
        if self._cursor is None:
            yield [self._gone(self._since, self._expired)]
            return
        server = self._call.server
        server.watchers[self._cursor] = self._call.row
        timer = None
        try:
            initial = self._initial()
            if initial:
                yield await self._converted(initial) if self._converts else initial
            self._items = initial = ()
            self._tell()
            timer = self._arm()
            async for batch in self._cursor:
                events = [event for change in batch if (event := self._event(change)) is not None]
                if events:
                    yield await self._converted(events) if self._converts else events
                if self._due:
                    self._due = False
                    now = server.clock.monotonic()
                    if self._bookmarks and now >= self._bookmark_at:
                        self._bookmark_at = now + server.ids.jitter(_BOOKMARK, 0.25)
                        yield [self._bookmark(self._cursor.revision)]
                    if now >= self._end:
                        return
                    timer = self._arm()
        except Compacted as error:
            yield [self._gone(self._since, error)]
        except ApiError as error:  # of a conversion
            yield [WatchEvent("ERROR", 0, orjson.dumps(error.status()))]
        finally:
            self._tell()
            server.watchers.pop(self._cursor, None)
            self._cursor.close()
            if timer is not None:
                timer.cancel()

    async def _converted(self, events: Sequence[WatchEvent]) -> Sequence[WatchEvent]:
        """The same events in the watcher's version, by the webhook of the definition."""
        own = [e.kind in _OWN for e in events]
        values = [e.value for e, skip in zip(events, own, strict=True) if not skip]
        made = iter(await self._call.server.conversions.values(self._call.row, values))
        return [e if skip else e._replace(value=next(made)) for e, skip in zip(events, own, strict=True)]

    def _arm(self) -> Any:
        clock = self._call.server.clock
        at = min(self._end, self._bookmark_at) if self._bookmarks else self._end
        return clock.call_later(max(0.0, at - clock.monotonic()), self._ring)

    def _ring(self) -> None:
        self._due = True
        if self._cursor is not None:
            self._cursor.poke()

    def _initial(self) -> Sequence[WatchEvent]:
        match = self._match
        events = [
            WatchEvent("ADDED", item.revision, item.value)
            for item in self._items
            if match is None or match(item)
        ]
        if self._initial_end:
            events.append(self._bookmark(self._since, initial_end=True))
        return events

    def _batched(self, events: Sequence[WatchEvent]) -> Iterator[bytes]:
        parts: list[bytes] = []
        size = 0
        for event in events:
            frame = self._frame(event)
            parts.append(frame)
            size += len(frame)
            if size >= _CHUNK:
                yield b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"".join(parts)

    def _event(self, change: Change) -> WatchEvent | None:
        """What a change means to this watcher: entering its selection is ADDED, leaving it DELETED."""
        match, item, previous = self._match, change.item, change.previous
        was = previous is not None and (match is None or match(previous))
        if item is None:
            return WatchEvent("DELETED", change.revision, change.final) if was else None
        if match is None or match(item):
            return WatchEvent("MODIFIED" if was else "ADDED", change.revision, item.value)
        if was and previous is not None:
            return WatchEvent("DELETED", change.revision, _at_revision(previous, change.revision))
        return None

    def _frame(self, event: WatchEvent) -> bytes:
        call = self._call
        if event.kind in _OWN:
            return _line(event.kind, event.value)
        if call.form.shape == "table":
            return self._table(event)
        key = (call.row.store_key, event.revision, event.kind, call.row.api_version, call.form)
        return call.server.frames.get(key, lambda: _encode(call, event))

    def _table(self, event: WatchEvent) -> bytes:
        value = objects.read(event.value, event.revision, self._call.row)
        table = respond.tabulate(self._call, self._call.row, [value], headers=not self._columns_sent)
        if self._columns_sent:
            table["columnDefinitions"] = None
        self._columns_sent = True
        table["metadata"] = {"resourceVersion": str(event.revision)}
        return orjson.dumps({"type": event.kind, "object": table}) + b"\n"

    def _bookmark(self, revision: int, *, initial_end: bool = False) -> WatchEvent:
        meta: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        row, form = self._call.row, self._call.form
        obj: Object = {"kind": row.kind, "apiVersion": row.api_version, "metadata": meta}
        if form.shape == "partial":
            obj = respond.partial(obj, form.version)
        elif form.shape == "table":
            obj = {"kind": "Table", "apiVersion": f"meta.k8s.io/{form.version}", "metadata": meta}
            obj |= {"columnDefinitions": None, "rows": []}
        return WatchEvent("BOOKMARK", revision, orjson.dumps(obj))

    def _gone(self, since: int, error: Compacted | None) -> WatchEvent:
        oldest = error.oldest if error else 0
        status = gone(f"too old resource version: {since} ({oldest})").status()
        return WatchEvent("ERROR", 0, orjson.dumps(status))


_OWN = ("BOOKMARK", "ERROR")  # events that are each watcher's own, in its form already


def _encode(call: Call, event: WatchEvent) -> bytes:
    if call.form.shape == "partial":
        obj = objects.read(event.value, event.revision, call.row)
        return _line(event.kind, orjson.dumps(respond.partial(obj, call.form.version)))
    if objects.ready(event.value, event.revision, call.row):
        return _line(event.kind, event.value)
    return _line(event.kind, _value(call.row, event))


def _value(row: Resource, event: WatchEvent) -> bytes:
    if event.kind in _OWN:
        return event.value
    return orjson.dumps(objects.read(event.value, event.revision, row))


def _line(kind: str, value: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), value)


def _at_revision(item: Item, revision: int) -> bytes:
    """An object's bytes as of `item`, saying they are of a later revision."""
    slot = item.slot
    rest = item.value[slot + len(str(item.revision)) :]
    return b"%b%d%b" % (item.value[:slot], revision, rest)
