"""Events of a node: written in the background, in order, repeats counted instead of multiplied.

Aggregation as clients expect it: the same object, reason and message raise `count` and `lastTimestamp`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any

from sampan.api.status import ApiError
from sampan.base.clock import Clock, rfc3339
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.node.pods.podspec import field_path

Object = dict[str, Any]
log = logging.getLogger(__name__)
_REMEMBERED = 4096
_BACKLOG = 1000  # events beyond this are dropped while the server is away


class EventRecorder:
    """The kubelet's event recorder. `record` never waits and never fails."""

    def __init__(self, client: Client, clock: Clock, ids: Ids, node: str, enabled: bool = True) -> None:
        self._client = client
        self._clock = clock
        self._ids = ids
        self._node = node
        self._enabled = enabled
        self._queue: list[tuple[tuple[str, ...], Object]] = []
        self._known: OrderedDict[tuple[str, ...], tuple[str, int]] = OrderedDict()  # key -> (name, count)
        self._task: asyncio.Task[None] | None = None

    def record(self, regarding: Object, type: str, reason: str, message: str, container: str = "") -> None:
        """`regarding` is the pod or node; `container` adds the field path."""
        if not self._enabled or len(self._queue) >= _BACKLOG:
            return
        meta = regarding["metadata"]
        reference: Object = {
            "kind": regarding.get("kind", "Pod"),
            "name": meta["name"],
            "uid": meta.get("uid", ""),
        }
        if meta.get("namespace"):
            reference |= {"namespace": meta["namespace"], "apiVersion": "v1"}
        if meta.get("resourceVersion"):
            reference["resourceVersion"] = meta["resourceVersion"]
        if container:
            reference["fieldPath"] = field_path(regarding, container)
        key = (reference["uid"], reference.get("fieldPath", ""), type, reason, message)
        now = rfc3339(self._clock.now())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{meta['name']}.{self._ids.suffix(16)}",
                "namespace": meta.get("namespace") or "default",
            },
            "involvedObject": reference,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": "kubelet", "host": self._node},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": type,
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
        }
        self._queue.append((key, event))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _send(self) -> None:
        try:
            while self._queue:
                key, event = self._queue.pop(0)
                try:
                    await self._write(key, event)
                except ApiError as error:  # a namespace that is going away takes no events
                    log.debug("event %s: %s", event["reason"], error.message)
                except OSError as error:
                    log.debug("event %s: %s", event["reason"], error)
                    self._queue.insert(0, (key, event))
                    await self._clock.sleep(1.0)
        finally:
            self._task = None

    async def _write(self, key: tuple[str, ...], event: Object) -> None:
        namespace = event["metadata"]["namespace"]
        known = self._known.get(key)
        if known:
            name, count = known[0], known[1] + 1
            change = {"count": count, "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._client.patch("events", name, change, namespace)
                self._known[key] = (name, count)
                return
            except ApiError as error:
                if error.code != 404:
                    raise
        await self._client.create("events", event, namespace)
        self._known[key] = (event["metadata"]["name"], 1)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
