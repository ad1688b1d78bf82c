"""The cluster's ClusterTrustBundles: one watch of all of them while some pod of this node shows one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.node.pods.manager import follow

_BUNDLES = "clustertrustbundles.certificates.k8s.io"


class Bundles:
    """`changed(user)` is called for every user (a pod uid) when any bundle is written or removed."""

    def __init__(self, client: Client, clock: Clock, changed: Callable[[str], None]) -> None:
        self._client = client
        self._clock = clock
        self._changed = changed
        self._users: set[str] = set()
        self._known: dict[str, Object] = {}  # by uid
        self._task: asyncio.Task[None] | None = None
        self._complete = asyncio.Event()

    async def all(self, user: str) -> list[Object]:
        """All bundles there are now; they are watched until `user` is forgotten."""
        self._users.add(user)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow())
        await self._complete.wait()
        return list(self._known.values())

    def forget(self, user: str) -> None:
        """A pod no longer wants trust bundles; without any that does nothing is followed."""
        self._users.discard(user)
        if not self._users and self._task is not None:
            self._task.cancel()
            self._task = None
            self._known.clear()
            self._complete.set()  # for who has waited, and was forgotten meanwhile
            self._complete = asyncio.Event()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        async for kind, obj, present in follow(self._client, self._clock, _BUNDLES):
            known = self._complete.is_set()
            if present is not None:  # a list is complete
                self._known = {uid: one for uid, one in self._known.items() if uid in present}
            elif obj is not None and kind == "DELETED":
                self._known.pop(obj["metadata"]["uid"], None)
            elif obj is not None:
                self._known[obj["metadata"]["uid"]] = obj
            if present is not None:
                self._complete.set()
            if known:
                for user in sorted(self._users):
                    self._changed(user)
