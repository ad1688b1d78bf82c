"""The store of the memory fidelity: nothing is written anywhere, so nothing ever waits and runs repeat exactly."""

from __future__ import annotations

from collections.abc import Callable

from sampan.base.clock import Clock
from sampan.store.cache import HISTORY_AGE, HISTORY_COUNT, VersionedStore
from sampan.store.protocol import Change

Record = Callable[[str, Change], None]


class _NoLog:
    def __init__(self, record: Record | None) -> None:
        self._record = record

    def append(self, bucket: str, change: Change) -> int:
        if self._record is not None:
            self._record(bucket, change)
        return 0

    async def close(self) -> None:
        pass


class MemoryStore(VersionedStore):
    """Gone with the process. `history` changes a bucket are kept for watchers, for at most `age` seconds.

    `record` is told of every change as it is made, with its bucket.
    """

    def __init__(
        self,
        clock: Clock,
        history: int = HISTORY_COUNT,
        age: float = HISTORY_AGE,
        record: Record | None = None,
    ) -> None:
        super().__init__(_NoLog(record), clock, history=history, age=age)
