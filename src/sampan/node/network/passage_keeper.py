"""Keeps the cluster's way through the host's firewall while others rewrite that: by events, nobody looks again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from sampan.node.network import namespace, passage
from sampan.node.network.damage import DamageWatcher

log = logging.getLogger(__name__)


class PassageKeeper:
    """Arguments as of `passage.settle`; `port` gives the number of the netlink socket that makes most changes of the
    host's tables, which are not worth being heard."""

    def __init__(
        self,
        link: str,
        mark: str,
        versions: Collection[int],
        port: Callable[[], int],
        host: namespace.Netns | None = None,
    ) -> None:
        self._what = link, mark, versions, host
        self._port, self._host = port, host
        self._changed = asyncio.Event()
        self._watcher: DamageWatcher | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Settles once, then whenever somebody has changed the table. Raises OSError."""
        self._watcher = DamageWatcher(passage.TABLE, self._port(), self._host, self._changed.set)
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="passage")
        self._changed.set()

    async def stop(self) -> None:
        """Stops following; the rules stay."""
        if self._watcher:
            self._watcher.close()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await asyncio.to_thread(passage.settle, *self._what)
            except OSError as error:
                log.warning("the host's firewall may drop what nodes forward: %s", error)
