"""Tells when the kernel's table of connections is full: new connections are dropped then, and nothing else says so.

The kernel counts what it dropped and has no event for it, hence a timer, as slow as the node's other looks at itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from sampan.base.clock import Clock

STATISTICS = Path("/proc/net/stat/nf_conntrack")  # of the reader's own network namespace
_LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")
_EVERY = 10.0


def dropped(text: str) -> int:
    """How many connections found no place so far: column `drop` of /proc/net/stat/nf_conntrack, one line a processor."""
    header, *lines = text.splitlines()
    names = header.split()
    if "drop" not in names:
        return 0
    return sum(int(line.split()[names.index("drop")], 16) for line in lines)


class FullTableWatch:
    """Calls `tell(text)` when connections were dropped since the last look; once a streak."""

    def __init__(self, clock: Clock, tell: Callable[[str], None], statistics: Path = STATISTICS) -> None:
        self._clock, self._tell, self._statistics = clock, tell, statistics
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="full connection table")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        before, telling = self._count(), False
        while True:
            await self._clock.sleep(_EVERY)
            now = self._count()
            if now > before and not telling:
                self._tell(
                    f"nf_conntrack: table full, {now - before} new connections dropped; raise {_LIMIT} on the machine"
                )
            before, telling = now, now > before

    def _count(self) -> int:
        try:
            return dropped(self._statistics.read_text())
        except OSError:  # a kernel without these statistics
            return 0
