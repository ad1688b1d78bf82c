"""Work that goes on beside its owner. An event loop holds its tasks only weakly: somebody has to, until they are done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class Tasks:
    """The tasks of one owner that are under way; `len` tells how many. What one raises is logged by the loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Begin something, in the loop's next turn."""
        return self.adopt(asyncio.get_running_loop().create_task(work))

    def adopt(self, task: asyncio.Task[_T]) -> asyncio.Task[_T]:
        """Hold a task that somebody else has begun."""
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def cancel(self) -> None:
        """End all of them; returns when they have ended."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
