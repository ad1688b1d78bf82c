"""The multi-version cache every store shares: visible objects, their sorted keys, recent history, pinned pages.

Durability is the business of a `Log`. A change waits in `pending` (seen by `latest` only) until its log says it is on
disk, and is then published in revision order: readers and watchers never see what a crash could undo.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sampan.base.clock import Clock
from sampan.base.interning import shared
from sampan.store.history import Cursor, History, RoutedCursor
from sampan.store.protocol import Change, Compacted, Conflict, Draft, Item, Page, Route

HISTORY_COUNT = 10_000
HISTORY_AGE = 300.0  # seconds, as long as etcd keeps what it compacts
_PIN_AGE = 300.0  # seconds a continue token stays good, as long as etcd's compaction interval
_MARK_EVERY = 10.0  # seconds: how exactly that is kept
_FRESH = 128  # decoded forms kept for watchers, who come in the same turn of the loop
_PROBES = 8  # items whose size says that of all
_PINS = 8  # pinned pictures; older ones are rebuilt from history while that reaches back far enough


_Keys = list[str]


class Log(Protocol):
    """Where changes are made durable. Appended to on the event loop, in revision order."""

    def append(self, bucket: str, change: Change) -> int:
        """The revision that must be durable before this change may be seen; 0 when nothing has to be waited for.
        The log later calls the store's `durable(revision)` on the loop. Raises when it cannot take it."""
        ...

    async def close(self) -> None: ...


class _Bucket:
    __slots__ = ("history", "items", "keys", "name", "pending")

    def __init__(self, name: str, history: History) -> None:
        self.name = name
        self.items: dict[str, Item] = {}
        self.keys: list[
            str
        ] = []  # sorted; inserting into a plain list is a short memmove up to 100,000s of keys
        self.pending: dict[str, Change] = {}
        self.history = history

    def latest(self, key: str) -> Item | None:
        change = self.pending.get(key)
        return self.items.get(key) if change is None else change.item

    def apply(self, change: Change, now: float) -> None:
        """Make a change visible."""
        key = change.key
        if change.item is None:
            if self.items.pop(key, None) is not None:
                del self.keys[bisect_left(self.keys, key)]
        else:
            if key not in self.items:
                insort(self.keys, key)
            self.items[key] = change.item
        if self.pending.get(key) is change:
            del self.pending[key]
        self.history.append(change, now)


class _Waiting(NamedTuple):
    needs: int  # durable revision this change waits for
    bucket: _Bucket
    change: Change
    done: asyncio.Future[None]


class _Pin(NamedTuple):
    expires: float
    keys: list[str]
    items: Mapping[str, Item]


class VersionedStore:
    """`store.protocol.Store` over any Log. `history` changes and `age` seconds are kept for watchers of a bucket."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        *,
        history: int = HISTORY_COUNT,
        age: float = HISTORY_AGE,
        revision: int = 1,
    ) -> None:
        self._log = log
        self._clock = clock
        self._count = history
        self._age = age
        self._start = revision  # history of a bucket made later begins here
        self._revision = revision  # visible
        self._given = revision  # last one handed to a change
        self._buckets: dict[str, _Bucket] = {}
        self._queue: deque[_Waiting] = deque()
        self._pins: dict[tuple[str, str, int], _Pin] = {}
        self._marks: deque[tuple[float, int]] = deque()  # (time, the revision that became visible then)
        self._compacted = 0  # pictures below this revision are no longer given
        self._fresh: dict[int, Any] = {}

    # Reading

    @property
    def revision(self) -> int:
        return self._revision

    def get(self, bucket: str, key: str) -> Item | None:
        found = self._buckets.get(bucket)
        return found.items.get(key) if found else None

    def latest(self, bucket: str, key: str) -> Item | None:
        found = self._buckets.get(bucket)
        return found.latest(key) if found else None

    def list(
        self, bucket: str, prefix: str = "", *, after: str = "", limit: int = 0, revision: int | None = None
    ) -> Page:
        found = self._bucket(bucket)
        at = self._revision if revision is None else min(revision, self._revision)
        if revision is not None:
            self._forget(self._clock.monotonic())
            if at < self._compacted:
                raise Compacted(self._compacted)
        keys: _Keys = found.keys
        items: Mapping[str, Item] = found.items
        if at < found.history.newest:
            keys, items = self._old(found, prefix, at)
        first = max(bisect_left(keys, prefix), bisect_right(keys, after))
        end = bisect_left(keys, _beyond(prefix)) if prefix else len(keys)
        last = min(end, first + limit) if limit else end
        page = Page([items[key] for key in keys[first:last]], at, max(0, end - last))
        if page.remaining and (bucket, prefix, at) not in self._pins:
            self._pin(found, prefix, at, keys[bisect_left(keys, prefix) : end], dict(items))
        return page

    def watch(self, bucket: str, prefix: str = "", *, since: int, route: Route | None = None) -> Cursor:
        history = self._bucket(bucket).history
        if route is None:
            return Cursor(history, prefix, since, lambda: self._revision)
        return RoutedCursor(history, prefix, since, lambda: self._revision, route)

    def fresh(self, revision: int) -> Any:
        return self._fresh.pop(revision, None)

    def buckets(self) -> _Keys:
        return sorted(name for name, bucket in self._buckets.items() if bucket.items)

    def count(self, bucket: str) -> int:
        found = self._buckets.get(bucket)
        return len(found.items) if found else 0

    def estimate(self, bucket: str, prefix: str = "", limit: int = 0) -> int:
        found = self._buckets.get(bucket)
        if found is None:
            return 0
        keys = found.keys
        first = bisect_left(keys, prefix)
        last = bisect_left(keys, _beyond(prefix)) if prefix else len(keys)
        count = last - first
        some = keys[first : last : max(1, count // _PROBES)]
        size = sum(len(found.items[key].value) for key in some)
        return size * (min(count, limit) if limit else count) // max(1, len(some))

    def pending(self, bucket: str) -> Sequence[Change]:
        found = self._buckets.get(bucket)
        return list(found.pending.values()) if found and found.pending else ()

    def bucket_revision(self, bucket: str) -> int:
        found = self._buckets.get(bucket)
        return found.history.newest if found else self._floor(bucket)

    # Writing

    async def put(self, bucket: str, key: str, draft: Draft, expected: int | None) -> Item:
        found = self._bucket(bucket)
        previous = found.latest(key)
        if expected is not None and expected != (previous.revision if previous else 0):
            raise Conflict(previous)
        revision = self._given + 1
        value = b"%b%d%b" % (draft.value[: draft.slot], revision, draft.value[draft.slot :])
        created = previous.created if previous else revision
        item = Item(key, revision, value, shared(draft.labels), shared(draft.fields), created, draft.slot)
        if draft.decoded is not None:
            self._fresh[revision] = draft.decoded
            if len(self._fresh) > _FRESH:
                del self._fresh[next(iter(self._fresh))]
        await self._write(found, Change(revision, key, item, previous))
        return item

    async def delete(self, bucket: str, key: str, expected: int | None) -> Change:
        found = self._bucket(bucket)
        previous = found.latest(key)
        if previous is None:
            raise KeyError(key)
        if expected is not None and expected != previous.revision:
            raise Conflict(previous)
        change = deletion(previous, self._given + 1)
        await self._write(found, change)
        return change

    async def settled(self) -> None:
        if self._queue:
            await asyncio.wait({self._queue[-1].done})

    async def close(self) -> None:
        await self._log.close()

    async def _write(self, bucket: _Bucket, change: Change) -> None:
        needs = self._log.append(bucket.name, change)
        self._given = change.revision
        if not needs and not self._queue:
            self._publish(bucket, change)
            return
        bucket.pending[change.key] = change
        done = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(needs, bucket, change, done))
        await done  # a caller that goes away does not undo its write

    def durable(self, revision: int) -> None:
        """Called by the log, on the loop: everything appended up to `revision` is on disk."""
        queue = self._queue
        while queue and queue[0].needs <= revision:
            _, bucket, change, done = queue.popleft()
            self._publish(bucket, change)
            if not done.done():
                done.set_result(None)

    def failed(self, error: BaseException) -> None:
        """Called by the log, on the loop: nothing that waits will become durable."""
        while self._queue:
            done = self._queue.popleft().done
            if not done.done():
                done.set_exception(error)

    def _publish(self, bucket: _Bucket, change: Change) -> None:
        self._revision = change.revision
        now = self._clock.monotonic()
        bucket.apply(change, now)
        if not self._marks or now - self._marks[-1][0] > _MARK_EVERY:
            self._forget(now)
            self._marks.append((now, change.revision))
        if self._pins:
            self._unpin(now)

    def _bucket(self, name: str) -> _Bucket:
        found = self._buckets.get(name)
        if found is None:
            found = self._buckets[name] = _Bucket(name, History(self._count, self._age, self._floor(name)))
        return found

    def _floor(self, bucket: str) -> int:
        """Where the history of a bucket begins that has had no change yet."""
        return 0 if self._start <= 1 else self._start

    # Pictures of the past, for lists in pages

    def _old(self, bucket: _Bucket, prefix: str, revision: int) -> tuple[_Keys, Mapping[str, Item]]:
        pin = self._pins.get((bucket.name, prefix, revision))
        if pin is not None and pin.expires > self._clock.monotonic():
            return pin.keys, pin.items
        if revision < bucket.history.floor:
            raise Compacted(bucket.history.floor)
        items = dict(bucket.items)
        for change in reversed(bucket.history.changes):
            if change.revision <= revision:
                break
            if change.previous is None:
                items.pop(change.key, None)
            else:
                items[change.key] = change.previous
        keys = sorted(key for key in items if key.startswith(prefix))
        self._pin(bucket, prefix, revision, keys, items)
        return keys, items

    def _forget(self, now: float) -> None:
        """A picture is given for as long as a page token is good after a newer revision has taken its place."""
        while self._marks and now - self._marks[0][0] > _PIN_AGE:
            self._compacted = self._marks.popleft()[1]

    def _pin(
        self, bucket: _Bucket, prefix: str, revision: int, keys: _Keys, items: Mapping[str, Item]
    ) -> None:
        now = self._clock.monotonic()
        self._unpin(now)
        while len(self._pins) >= _PINS:
            del self._pins[next(iter(self._pins))]
        self._pins[bucket.name, prefix, revision] = _Pin(now + _PIN_AGE, keys, items)

    def _unpin(self, now: float) -> None:
        while self._pins:
            oldest = next(iter(self._pins))
            if self._pins[oldest].expires > now:
                return
            del self._pins[oldest]


def deletion(previous: Item, revision: int) -> Change:
    """The change that removes an object: its last state gets the deletion's revision."""
    head, rest = (
        previous.value[: previous.slot],
        previous.value[previous.slot + len(str(previous.revision)) :],
    )
    return Change(revision, previous.key, None, previous, b"%b%d%b" % (head, revision, rest))


def _beyond(prefix: str) -> str:
    """The first text after everything that starts with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
