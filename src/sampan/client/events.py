"""Events, as `kubectl describe` shows them: repeats are counted on one object, floods are combined, senders never wait.

Source: core/v1 Event; the aggregation a client is expected to do (same text: count and lastTimestamp; many texts of one
reason: one combined Event; and a limit for each object).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TypeVar

from sampan.api.status import ApiError
from sampan.base.clock import Clock, rfc3339
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.plan import Event

_KEPT = 4096  # aggregation states remembered
_QUEUED = 1000  # events waiting to be sent; more are dropped
_SIMILAR, _SIMILAR_FOR = 10, 600.0  # distinct messages of one reason, in seconds, before they are combined
_BURST, _REFILL = 25, 300.0  # events an object may cause at once, and seconds until it may cause one more
_MESSAGE = 1024  # longest message the API takes
_ATTEMPTS, _PAUSE = 3, 1.0

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class _Sent:
    """An Event object that repeats are counted on."""

    name: str
    count: int
    first: float


@dataclass(slots=True)
class _Similar:
    """Messages that one object, component, type and reason have had since `since`."""

    since: float
    messages: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """Sends Events for one component (`deployment-controller`, `kubelet`); `host` is the node it runs on."""

    def __init__(self, client: Client, *, clock: Clock, ids: Ids, component: str, host: str = "") -> None:
        self._client = client
        self._clock = clock
        self._ids = ids
        self._component = component
        self._host = host
        self._queue: deque[tuple[Event, float]] = deque()
        self._sent: OrderedDict[tuple[str, ...], _Sent] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, ...], _Bucket] = OrderedDict()
        self._named = 0  # the microsecond of the last name
        self._task: asyncio.Task[None] | None = None

    def record(self, event: Event) -> None:
        """Send an Event about `event.regarding` (an object, or an ObjectReference) soon; never waits or raises."""
        if len(self._queue) >= _QUEUED:
            return
        self._queue.append((event, self._clock.now()))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._drain(), name=f"events {self._component}"
            )

    async def flush(self) -> None:
        """Wait until everything recorded has been sent or given up."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _drain(self) -> None:
        while self._queue:
            event, when = self._queue.popleft()
            for attempt in range(_ATTEMPTS):
                try:
                    await self._send(event, when)
                    break
                except ApiError as error:
                    log.debug("event %s refused: %s", event.reason, error.message)
                    break
                except (OSError, EOFError, TimeoutError):
                    if attempt < _ATTEMPTS - 1:
                        await self._clock.sleep(_PAUSE)
                except Exception:
                    log.exception("event %s", event.reason)
                    break

    async def _send(self, event: Event, when: float) -> None:
        reference = reference_to(event.regarding)
        about = tuple(
            reference.get(k, "") for k in ("apiVersion", "kind", "namespace", "name", "uid", "fieldPath")
        )
        if not self._allowed(about, when):
            return
        key, message = self._combine((*about, event.type, event.reason), event.message[:_MESSAGE], when)
        namespace = reference.get("namespace") or "default"
        sent = self._sent.get(key)
        if sent is not None:
            sent.count += 1
            patch = {"count": sent.count, "lastTimestamp": rfc3339(when), "message": message}
            try:
                await self._client.patch("events", sent.name, patch, namespace)
                self._sent.move_to_end(key)
                return
            except ApiError as error:
                if error.code != 404:
                    raise
        name = f"{reference['name']}.{self._mark(when)}"
        obj = self._object(reference, event, message, name, namespace, when)
        await self._client.create("events", obj, namespace)
        _remember(self._sent, key, _Sent(name, 1, when))

    def _mark(self, when: float) -> str:
        """Sixteen digits that sort as time does, so that lists show the Events of an object in their order.

        The last ten bits are chance: two components may have something to say in the same microsecond.
        """
        self._named = max(self._named + 1, int(when * 1e6))
        return f"{self._named << 10 | self._ids.choice(1024):016x}"

    def _object(
        self, reference: Object, event: Event, message: str, name: str, namespace: str, when: float
    ) -> Object:
        source = {"component": self._component} | ({"host": self._host} if self._host else {})
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": reference,
            "reason": event.reason,
            "message": message,
            "source": source,
            "firstTimestamp": rfc3339(when),
            "lastTimestamp": rfc3339(when),
            "count": 1,
            "type": event.type,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }

    def _allowed(self, about: tuple[str, ...], when: float) -> bool:
        """A token bucket for each object, so that one that fails in a loop cannot fill the store."""
        bucket = self._buckets.get(about)
        if bucket is None:
            bucket = _remember(self._buckets, about, _Bucket(_BURST, when))
        bucket.tokens = min(_BURST, bucket.tokens + max(0.0, when - bucket.at) / _REFILL)
        bucket.at = when
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _combine(self, group: tuple[str, ...], message: str, when: float) -> tuple[tuple[str, ...], str]:
        """What identifies the Event, and its message: of many different messages only the last one is kept."""
        similar = self._similar.get(group)
        if similar is None or when - similar.since > _SIMILAR_FOR:
            similar = _remember(self._similar, group, _Similar(when))
        if len(similar.messages) < _SIMILAR or message in similar.messages:
            similar.messages.add(message)
            return (*group, message), message
        return group, f"(combined from similar events): {message}"


def _remember(known: OrderedDict[tuple[str, ...], T], key: tuple[str, ...], value: T) -> T:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _KEPT:
        known.popitem(last=False)
    return value


def reference_to(obj: Object) -> Object:
    """core/v1 ObjectReference to an object; a reference is returned as it is."""
    meta = obj.get("metadata")
    if meta is None:
        return obj
    found = {
        "kind": obj.get("kind", ""),
        "namespace": meta.get("namespace", ""),
        "name": meta.get("name", ""),
        "uid": meta.get("uid", ""),
        "apiVersion": obj.get("apiVersion", ""),
        "resourceVersion": meta.get("resourceVersion", ""),
    }
    return {k: v for k, v in found.items() if v}
