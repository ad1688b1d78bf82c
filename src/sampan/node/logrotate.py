"""Container logs do not fill the disk: a large one is renamed, compressed, and in the end removed.

The period is kubelet's (containerLogMonitorInterval); size and number are settings (containerLogMaxSize, -MaxFiles).
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import time
from glob import escape, glob

from sampan.api import quantity
from sampan.base.clock import Clock
from sampan.node.config import AgentConfig
from sampan.node.pods.manager import PodManager
from sampan.node.runtime import Runtime

PERIOD = 10.0


class LogRotator:
    """Looks at the logs of running containers."""

    def __init__(self, manager: PodManager, runtime: Runtime, clock: Clock, config: AgentConfig) -> None:
        self._manager = manager
        self._runtime = runtime
        self._clock = clock
        self._max_size = quantity.value(config.log_max_size)
        self._rotated = config.log_max_files - 1  # beside the one that is written

    async def run(self) -> None:
        while self._max_size >= 0:
            await self._clock.sleep(PERIOD)
            await self.rotate()

    async def rotate(self) -> None:
        """One look at all of them."""
        running = [s for d in self._manager.drivers.values() for s in d.world.running()]
        large = [s for s in running if _size(s.config.log_path) > self._max_size]
        for status in large:
            path = status.config.log_path
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self._clock.now()))
            os.rename(path, f"{path}.{stamp}")
            await self._runtime.reopen_log(status.config.id)
            await asyncio.to_thread(_tidy, path, self._rotated)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _tidy(path: str, keep: int) -> None:
    """Keep the newest rotated files, `keep` of them, all but the last one compressed (a reader may still be in that one)."""
    rotated = sorted(p for p in glob(escape(path) + ".*"))
    for old in rotated[:-keep]:
        os.unlink(old)
    for name in rotated[-keep:-1]:
        if not name.endswith(".gz"):
            with open(name, "rb") as source, gzip.open(f"{name}.gz", "wb") as target:
                shutil.copyfileobj(source, target)
            os.unlink(name)
