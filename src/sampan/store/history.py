"""What changed lately in one bucket, kept once and read by every watcher through a cursor.

The kept stretch is bounded by count, bytes and age; whoever asks for more gets Compacted (410 on the wire), so a slow
reader costs no memory.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence

from sampan.store.protocol import KEY, Change, Compacted, Route

HISTORY_BYTES = 32 << 20
_BATCH = 256  # changes a cursor hands out at once
_TURN = range(32, 129)  # readers fed in one turn of the loop, at least and at most

Feed = Callable[[Sequence[Change]], bool]


def _revision(change: Change) -> int:
    return change.revision


def _size(change: Change) -> int:
    return len(change.final if change.item is None else change.item.value)


class History:
    """Changes of one bucket in revision order. `floor`: changes up to this revision are no longer held."""

    __slots__ = (
        *("_age", "_bytes", "_fed", "_feeding", "_marks", "_parts", "_routes", "_start"),
        *("changes", "count", "floor", "newest", "waiters"),
    )

    def __init__(self, count: int, age: float, floor: int) -> None:
        self.changes: list[Change] = []
        self.floor = floor
        self.newest = floor  # revision of the last change, also when it was dropped since
        self.waiters: dict[Cursor, None] = {}  # at rest: they have read everything
        # The same with a `feed`; who is behind comes first.
        self._fed: OrderedDict[Cursor, None] = OrderedDict()
        self._feeding = False
        # What was read since the last change, by position and prefix.
        self._parts: dict[tuple[int, str], tuple[Sequence[Change], int, int]] = {}
        self.count = count
        self._bytes = 0  # of the objects in `changes`
        self._age = age
        self._routes: dict[str, dict[str, dict[RoutedCursor, None]]] = {}  # field -> value -> who is told
        self._start = 0  # position of changes[0], counted from the first change there ever was
        self._marks: deque[tuple[float, int]] = (
            deque()
        )  # (time, position): everything before is at least that old

    @property
    def end(self) -> int:
        return self._start + len(self.changes)

    def append(self, change: Change, now: float) -> None:
        """A change is published: whoever waits is woken, and routed cursors get it if it concerns them. `now`: for its age."""
        self.changes.append(change)
        self._bytes += _size(change)
        self.newest = change.revision
        self._trim(now)
        self._parts.clear()
        if self.waiters:
            woken, self.waiters = self.waiters, {}
            for cursor in woken:
                cursor.wake()
        if self._fed and not self._feeding:
            self._feeding = True
            next(iter(self._fed)).loop.call_soon(self._feed)
        for field, by_value in self._routes.items():
            for value in values_of(change, field):
                for cursor in by_value.get(value, ()):
                    cursor.offer(change)

    def rest(self, cursor: Cursor) -> None:
        """Wake the cursor, or feed it, when something changes."""
        if cursor.feed is None:
            self.waiters[cursor] = None
        else:
            self._fed[cursor] = None

    def leave(self, cursor: Cursor) -> None:
        self.waiters.pop(cursor, None)
        self._fed.pop(cursor, None)

    def _feed(self) -> None:
        """Some readers a turn, so that requests are read between; who waits longer is given more at once.

        The further they are behind, the more are fed between two requests: else writers could outrun them.
        """
        fed, end = self._fed, self.end
        first = next(iter(fed), None)
        behind = 0 if first is None else end - first.position
        for _ in range(min(max(8 * behind, _TURN[0]), _TURN[-1])):
            cursor = next(iter(fed), None)
            if cursor is None or cursor.position == end:
                break
            if not cursor.fed():
                del fed[cursor]
                cursor.wake()
            elif cursor.position == end:
                fed.move_to_end(cursor)
        first = next(iter(fed), None)
        self._feeding = first is not None and first.position != end
        if first is not None and self._feeding:
            first.loop.call_soon(self._feed)

    def subscribe(self, route: Route, cursor: RoutedCursor) -> None:
        """Offer the cursor what concerns its value from now on."""
        self._routes.setdefault(route[0], {}).setdefault(route[1], {})[cursor] = None

    def unsubscribe(self, route: Route, cursor: RoutedCursor) -> None:
        """A routed cursor is closed: nothing is offered to it any more."""
        by_value = self._routes.get(route[0], {})
        cursors = by_value.get(route[1], {})
        cursors.pop(cursor, None)
        if not cursors:
            by_value.pop(route[1], None)
        if not by_value:
            self._routes.pop(route[0], None)

    def _trim(self, now: float) -> None:
        marks = self._marks
        if not marks or now - marks[-1][0] > self._age / 8:
            marks.append((now, self.end))
        drop = 0
        # In big steps: deleting from the front moves the rest.
        if len(self.changes) > self.count + self.count // 4:
            drop = len(self.changes) - self.count
        if self._bytes > HISTORY_BYTES + HISTORY_BYTES // 4:
            drop = max(drop, self._surplus())
        while now - marks[0][0] > self._age:
            drop = max(drop, marks.popleft()[1] - self._start)
        if drop:
            self.floor = self.changes[drop - 1].revision
            self._bytes -= sum(map(_size, self.changes[:drop]))
            del self.changes[:drop]
            self._start += drop

    def _surplus(self) -> int:
        """How many changes are beyond HISTORY_BYTES; the last one never is."""
        size, count = self._bytes, 0
        while size > HISTORY_BYTES and count < len(self.changes) - 1:
            size -= _size(self.changes[count])
            count += 1
        return count

    def position(self, since: int) -> int:
        """Where the changes above `since` begin. Raises Compacted when some of them are gone."""
        if since < self.floor:
            raise Compacted(self.floor)
        if since >= self.newest:
            return self.end
        return self._start + bisect_right(self.changes, since, key=_revision)

    def read(self, position: int, limit: int) -> Sequence[Change]:
        """Up to `limit` changes from `position`. Raises Compacted when they were dropped meanwhile."""
        if position < self._start:
            raise Compacted(self.floor)
        first = position - self._start
        return self.changes[first : first + limit]

    def part(self, position: int, prefix: str) -> tuple[Sequence[Change], int, int]:
        """The next changes from `position` whose keys begin so, the position after them, and the last revision before
        that. Those who are equally far get the very same value. Raises Compacted."""
        found = self._parts.get((position, prefix))
        if found is None:
            end, seen, wanted = position, 0, self.read(position, _BATCH)
            while wanted:
                end, seen = end + len(wanted), wanted[-1].revision
                if prefix:
                    wanted = [change for change in wanted if change.key.startswith(prefix)]
                if wanted:
                    break
                wanted = self.read(end, _BATCH)
            found = self._parts[position, prefix] = wanted, end, seen
        return found


class Cursor:
    """`store.protocol.Watch` over a History; `revision` says up to where everything was handed out."""

    feed: Feed | None = None  # takes a batch at once, or says no: saves a resting reader to be woken
    loop: asyncio.AbstractEventLoop

    def __init__(self, history: History, prefix: str, since: int, current: Callable[[], int]) -> None:
        self._history = history
        self._prefix = prefix
        self.position = history.position(since)
        self._current = current  # the store's revision
        self._seen = since
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._poked = False

    @property
    def revision(self) -> int:
        """A watcher that has sent all it was given may say it is at this revision (bookmarks)."""
        if self.position == self._history.end:
            return max(self._seen, self._current())
        return self._seen

    def __aiter__(self) -> AsyncIterator[Sequence[Change]]:
        return self

    async def __anext__(self) -> Sequence[Change]:
        while not self._closed:
            batch = self.take()
            if batch or self._poked:
                self._poked = False
                return batch
            self.loop = asyncio.get_running_loop()
            self._waiter = self.loop.create_future()
            self._rest()
            try:
                await self._waiter
            finally:
                self._history.leave(self)
                self._waiter = None
        raise StopAsyncIteration

    def _rest(self) -> None:
        """Be woken by the next change."""
        self._history.rest(self)

    def take(self) -> Sequence[Change]:
        """The next batch without waiting; empty when there is none yet."""
        batch, self.position, seen = self._history.part(self.position, self._prefix)
        self._seen = seen or self._seen
        return batch

    def fed(self) -> bool:
        """Whether a reader at rest has taken what is new. If not, it must be woken to read by itself."""
        feed, waiter = self.feed, self._waiter
        if feed is None or waiter is None or waiter.done():
            return False
        try:
            batch, position, seen = self._history.part(self.position, self._prefix)
            if batch and not feed(batch):
                return False
        except Exception:
            return False  # it happens again to the reader, who says so
        self.position = position
        self._seen = seen or self._seen
        return True

    def poke(self) -> None:
        """Let the reader go on now, with an empty batch if nothing has changed: a timer of its own is due."""
        self._poked = True
        self.wake()

    def close(self) -> None:
        self._closed = True
        self.feed = None  # it knows the reader, who knows this
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class RoutedCursor(Cursor):
    """Only changes of objects that have, or had, one value in one field; all others do not even wake it.

    So a thousand nodes that each watch their own pods cost a change of a pod no more than one does.
    """

    def __init__(
        self, history: History, prefix: str, since: int, current: Callable[[], int], route: Route
    ) -> None:
        super().__init__(history, prefix, since, current)
        self._route = route
        self._inbox: deque[Change] | None = (
            None  # until the first read: whoever never reads leaves nothing behind
        )
        self._lost = False

    @property
    def revision(self) -> int:
        return max(self._seen, self._current()) if self._inbox is not None and not self._inbox else self._seen

    def offer(self, change: Change) -> None:
        """For the history: one more."""
        assert self._inbox is not None
        if len(self._inbox) >= self._history.count:
            self._lost = True
            self._inbox.clear()
        self._inbox.append(change)
        self.wake()

    def take(self) -> Sequence[Change]:
        """The next changes of its route, at most a batch. Raises Compacted when it stayed too far behind."""
        if self._inbox is None:
            missed = self._history.read(self.position, self._history.count * 2)
            self._inbox = deque(c for c in missed if self._route[1] in values_of(c, self._route[0]))
            self._history.subscribe(self._route, self)
        if self._lost:
            raise Compacted(self._history.floor)
        batch: list[Change] = []
        while self._inbox and len(batch) < _BATCH:
            change = self._inbox.popleft()
            self._seen = change.revision
            if change.key.startswith(self._prefix):
                batch.append(change)
        return batch

    def _rest(self) -> None:
        pass  # `offer` wakes it

    def close(self) -> None:
        self._history.unsubscribe(self._route, self)
        super().close()


def values_of(change: Change, field: str) -> tuple[str, ...]:
    """What a change says of a field: the new value, and the old one where that differs."""
    if field == KEY:
        return (change.key,)
    new, old = change.item, change.previous
    now = new.fields.get(field, "") if new is not None else None
    before = old.fields.get(field, "") if old is not None else None
    if now is None or before is None or now == before:
        return (now if now is not None else before or "",)
    return now, before
