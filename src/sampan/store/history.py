"""What changed lately in one bucket, kept once and read by every watcher through a cursor.

The kept stretch is bounded by count and by age; whoever asks for more gets Compacted (410 on the wire), so a slow
reader costs no memory.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from sampan.store.protocol import Change, Compacted

_BATCH = 256  # changes a cursor hands out at once


def _revision(change: Change) -> int:
    return change.revision


class History:
    """Changes of one bucket in revision order. `floor`: changes up to this revision are no longer held."""

    __slots__ = ("_age", "_count", "_marks", "_start", "changes", "floor", "newest", "waiters")

    def __init__(self, count: int, age: float, floor: int) -> None:
        self.changes: list[Change] = []
        self.floor = floor
        self.newest = floor  # revision of the last change, also when it was dropped since
        self.waiters: dict[asyncio.Future[None], None] = {}  # cursors that have read everything
        self._count = count
        self._age = age
        self._start = 0  # position of changes[0], counted from the first change there ever was
        self._marks: deque[tuple[float, int]] = (
            deque()
        )  # (time, position): everything before is at least that old

    @property
    def end(self) -> int:
        return self._start + len(self.changes)

    def append(self, change: Change, now: float) -> None:
        self.changes.append(change)
        self.newest = change.revision
        self._trim(now)
        if self.waiters:
            woken, self.waiters = self.waiters, {}
            for waiter in woken:
                if not waiter.done():
                    waiter.set_result(None)

    def _trim(self, now: float) -> None:
        marks = self._marks
        if not marks or now - marks[-1][0] > self._age / 8:
            marks.append((now, self.end))
        drop = 0
        if (
            len(self.changes) > self._count + self._count // 4
        ):  # in big steps: deleting from the front moves the rest
            drop = len(self.changes) - self._count
        while now - marks[0][0] > self._age:
            drop = max(drop, marks.popleft()[1] - self._start)
        if drop:
            self.floor = self.changes[drop - 1].revision
            del self.changes[:drop]
            self._start += drop

    def position(self, since: int) -> int:
        """Where the changes above `since` begin. Raises Compacted when some of them are gone."""
        if since < self.floor:
            raise Compacted(self.floor)
        if since >= self.newest:
            return self.end
        return self._start + bisect_right(self.changes, since, key=_revision)

    def read(self, position: int, limit: int = _BATCH) -> Sequence[Change]:
        """Up to `limit` changes from `position`. Raises Compacted when they were dropped meanwhile."""
        if position < self._start:
            raise Compacted(self.floor)
        first = position - self._start
        return self.changes[first : first + limit]


class Cursor:
    """`store.protocol.Watch` over a History; `revision` says up to where everything was handed out."""

    def __init__(self, history: History, prefix: str, since: int, current: Callable[[], int]) -> None:
        self._history = history
        self._prefix = prefix
        self._position = history.position(since)
        self._current = current  # the store's revision
        self._seen = since
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._poked = False

    @property
    def revision(self) -> int:
        """A watcher that has sent all it was given may say it is at this revision (bookmarks)."""
        if self._position == self._history.end:
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
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            self._history.waiters[waiter] = None
            try:
                await waiter
            finally:
                self._history.waiters.pop(waiter, None)
                self._waiter = None
        raise StopAsyncIteration

    def take(self) -> Sequence[Change]:
        """The next batch without waiting; empty when there is none yet."""
        while True:
            batch = self._history.read(self._position)
            if not batch:
                return ()
            self._position += len(batch)
            self._seen = batch[-1].revision
            if self._prefix:
                batch = [change for change in batch if change.key.startswith(self._prefix)]
            if batch:
                return batch

    def poke(self) -> None:
        """Let the reader go on now, with an empty batch if nothing has changed: a timer of its own is due."""
        self._poked = True
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
