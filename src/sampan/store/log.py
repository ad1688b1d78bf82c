"""The embedded durable log: writes that arrive while one sync runs share the next; nobody hears of one before it is on
disk. A thread of its own does the writing, so the event loop never waits for a disk.

Heartbeats of nodes (Leases in kube-node-lease) stay out, so that an idle cluster writes nothing: only ranges of
revisions are reserved for them, and a revision is never given twice, not even after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from sampan.store.frames import frame, record_of, reservation
from sampan.store.protocol import Change
from sampan.store.segments import Segments

VOLATILE_BUCKET = "leases.coordination.k8s.io"
VOLATILE_PREFIX = "kube-node-lease/"
RANGE = 10_000  # revisions reserved at once for what is not written
_FRAME_BYTES = 1 << 20  # a commit takes no more writers once it is this long

log = logging.getLogger(__name__)


class StoreFailed(Exception):
    """The disk refused a write; whether earlier unacknowledged ones will be found is unknown."""


class _Entry(NamedTuple):
    revision: int
    record: bytes
    ceiling: int = 0


class Listener(NamedTuple):
    """The store's side, called on the loop."""

    durable: Callable[[int], None]
    failed: Callable[[BaseException], None]
    committed: Callable[[int, int], None]  # sequence of the last frame, bytes written


class EmbeddedLog:
    """`store.cache.Log` over segments. `on_fatal` is told of the first error and should end the process."""

    def __init__(
        self, segments: Segments, *, sequence: int, ceiling: int, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self.ceiling = ceiling  # durable: revisions up to it are never given again
        self._segments = segments
        self._sequence = sequence
        self._asked = ceiling
        self._asked_at = 0
        self._on_fatal = on_fatal
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[_Entry] = []  # for the next commit
        self._size = 0  # bytes of those
        self._busy = False  # the thread has a commit, or one is about to be handed to it
        self._queue: queue.SimpleQueue[list[_Entry] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="store-log", daemon=True)
        self._thread.start()

    def attach(self, listener: Listener) -> None:
        self._listener = listener

    def append(self, bucket: str, change: Change) -> int:
        if self._failure is not None:
            raise StoreFailed("the store has failed") from self._failure
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        revision = change.revision
        if volatile(bucket, change.key):
            if revision <= self.ceiling:
                return 0
            if revision > self._asked:
                self._asked, self._asked_at = revision + RANGE, revision
                self._add(_Entry(revision, reservation(self._asked), self._asked))
            return self._asked_at
        self._add(_Entry(revision, record_of(bucket, change)))
        return revision

    def _add(self, entry: _Entry) -> None:
        """What is written in one turn of the loop, or while the thread is busy, is one commit."""
        self._waiting.append(entry)
        self._size += len(entry.record)
        if not self._busy:
            self._busy = True
            assert self._loop is not None
            self._loop.call_soon(self._hand_over)
        elif self._size >= _FRAME_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._waiting:
            self._queue.put(self._waiting)
            self._waiting, self._size = [], 0
        else:
            self._busy = False

    async def close(self) -> None:
        """Everything appended is on disk when this returns."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._segments.close()

    # The thread

    def _run(self) -> None:
        try:
            while (batch := self._queue.get()) is not None:
                self._commit(batch)
        except BaseException as error:
            self._call(self._fail, error)

    def _commit(self, batch: list[_Entry]) -> None:
        sequence = self._sequence + 1
        data = frame(sequence, [entry.record for entry in batch])
        self._segments.append(data, sequence)
        self._sequence = sequence
        self._call(self._committed, batch[-1].revision, max(e.ceiling for e in batch), sequence, len(data))

    def _call(self, callback: Callable[..., None], *args: object) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the loop has just been closed: nobody waits any more

    # On the loop again

    def _committed(self, revision: int, ceiling: int, sequence: int, size: int) -> None:
        self.ceiling = max(self.ceiling, ceiling)
        if self._listener is not None:
            self._listener.durable(revision)
            self._listener.committed(sequence, size)
        self._hand_over()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        log.critical("the store cannot write: %r", error)
        if self._listener is not None:
            failed = StoreFailed("the store has failed")
            failed.__cause__ = error
            self._listener.failed(failed)
        self._on_fatal(error)


def volatile(bucket: str, key: str) -> bool:
    """What is not written down."""
    return bucket == VOLATILE_BUCKET and key.startswith(VOLATILE_PREFIX)
