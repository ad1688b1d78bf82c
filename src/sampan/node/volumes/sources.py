"""ConfigMaps and Secrets that pods of this node show: one watch an object while somebody uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sampan.api.status import ApiError
from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.node.pods.manager import follow

Key = tuple[str, str, str]  # resource, namespace, name


class Sources:
    """`changed(user)` is called when an object that `user` (a pod uid) uses is written or removed."""

    def __init__(self, client: Client, clock: Clock, changed: Callable[[str], None]) -> None:
        self._client = client
        self._clock = clock
        self._changed = changed
        self._users: dict[Key, set[str]] = {}
        self._known: dict[Key, Object | None] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._complete: dict[Key, asyncio.Event] = {}

    async def get(self, key: Key, user: str) -> Object | None:
        """The object as it is now (None: absent), watched until `user` is forgotten."""
        self._users.setdefault(key, set()).add(user)
        if key not in self._tasks:
            self._complete[key] = asyncio.Event()
            self._tasks[key] = asyncio.get_running_loop().create_task(self._follow(key))
            resource, namespace, name = key
            found: Object | None = None
            try:
                found = await self._client.get(resource, name, namespace)
            except ApiError as error:
                if error.code != 404:
                    self._drop(key)
                    raise
            self._known.setdefault(key, found)  # what the watch has told meanwhile is newer
            self._complete[key].set()
        else:
            await self._complete[key].wait()
        return self._known.get(key)

    def forget(self, user: str) -> None:
        """A pod is gone: objects that no other one uses are followed no more."""
        for key in [k for k, users in self._users.items() if user in users]:
            self._users[key].discard(user)
            if not self._users[key]:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        self._users.pop(key, None)
        task = self._tasks.pop(key, None)
        if task:
            task.cancel()
        self._known.pop(key, None)
        complete = self._complete.pop(key, None)
        if complete:
            complete.set()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, key: Key) -> None:
        resource, namespace, name = key
        fields = f"metadata.name={name}"
        async for kind, obj, _ in follow(self._client, self._clock, resource, namespace, fields=fields):
            if obj is None:
                continue
            new = None if kind == "DELETED" else obj
            old = self._known.get(key)
            self._known[key] = new
            if _version(old) != _version(new):
                for user in sorted(self._users.get(key, ())):
                    self._changed(user)


def _version(obj: Object | None) -> str:
    return obj["metadata"].get("resourceVersion", "") if obj else ""
