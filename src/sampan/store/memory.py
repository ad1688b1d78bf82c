"""The store of the memory fidelity: nothing is written anywhere, so nothing ever waits and runs repeat exactly."""

from __future__ import annotations

from sampan.base.clock import Clock
from sampan.store.cache import HISTORY_AGE, HISTORY_COUNT, VersionedStore
from sampan.store.protocol import Change


class _NoLog:
    def append(self, bucket: str, change: Change) -> int:
        return 0

    async def close(self) -> None:
        pass


class MemoryStore(VersionedStore):
    """Gone with the process. `history` changes a bucket are kept for watchers, for at most `age` seconds."""

    def __init__(self, clock: Clock, history: int = HISTORY_COUNT, age: float = HISTORY_AGE) -> None:
        super().__init__(_NoLog(), clock, history=history, age=age)
