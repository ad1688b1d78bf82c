"""Pods that wait for a node: the important first, then the oldest; those no node would take rest until something changes.

Source: "Scheduling, Preemption and Eviction"; kube-scheduler's active, backoff and unschedulable queues as one.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from sampan.base.clock import Clock, Timer

_FLUSH = 300.0  # seconds after which a pod is tried again although nothing seemed to change
_FREE_TRIES, _FIRST, _LAST = 3, 1.0, 10.0  # attempts without back-off; then seconds


@dataclass(slots=True)
class Entry:
    """A pod that has no node yet. One that rests is tried again when something changes or its timer fires."""

    key: str  # namespace/name
    priority: int
    created: str
    attempts: int = 0
    last: float = 0.0  # when it was last tried, monotonic
    resting: bool = False
    timer: Timer | None = field(default=None, repr=False)


class Queue:
    """`ready` is called when a pod can be taken and before there was none."""

    def __init__(self, clock: Clock, ready: Callable[[], None]) -> None:
        self._clock = clock
        self._ready = ready
        self._heap: list[tuple[int, str, int, str]] = []
        self._entries: dict[str, Entry] = {}
        self._order = itertools.count()
        self._wake = False

    def __len__(self) -> int:
        return len(self._entries)

    def sizes(self) -> tuple[int, int]:
        """(ready, resting); one that is being bound is neither."""
        resting = sum(e.resting for e in self._entries.values())
        return len(self._heap), resting

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def add(self, key: str, priority: int, created: str) -> None:
        """A new pod, or one that changed: to be tried soon."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(key, priority, created)
            self._push(entry)
        elif entry.resting:
            entry.priority = priority
            self._activate(entry)

    def again(self, key: str) -> None:
        """What was decided about this pod holds no more."""
        entry = self._entries.get(key)
        if entry is not None and entry.resting:
            self._activate(entry)

    def discard(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.timer is not None:
            entry.timer.cancel()

    def rest(self, entry: Entry) -> None:
        """No node would take it: until `wake`, or five minutes."""
        self._later(entry, _FLUSH)

    def retry(self, entry: Entry) -> None:
        """Something failed that may succeed next time: after a pause that grows."""
        self._later(entry, min(_LAST, _FIRST * 2 ** min(entry.attempts - 1, 5)))

    def wake(self) -> None:
        """Something changed that may let resting pods in: tried again once those that are ready have been."""
        if not self._wake and any(e.resting for e in self._entries.values()):
            self._wake = True
            self._ready()

    def pop(self) -> Entry | None:
        """The next to try; it stays known until `discard`."""
        while True:
            while self._heap:
                key = heapq.heappop(self._heap)[3]
                entry = self._entries.get(key)
                if entry is not None and not entry.resting:
                    entry.attempts += 1
                    entry.last = self._clock.monotonic()
                    return entry
            if not self._wake:
                return None
            self._wake = False
            for entry in list(self._entries.values()):
                if entry.resting:
                    self._activate(entry)

    def _activate(self, entry: Entry) -> None:
        """At once, or, after several attempts, when its back-off is over."""
        pause = 0.0
        if entry.attempts >= _FREE_TRIES:
            pause = min(_LAST, _FIRST * 2 ** (entry.attempts - _FREE_TRIES)) + entry.last
            pause -= self._clock.monotonic()
        if pause > 0:
            self._later(entry, pause)
        else:
            self._push(entry)

    def _later(self, entry: Entry, delay: float) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        if self._entries.get(entry.key) is not entry:
            return
        entry.resting = True
        entry.timer = self._clock.call_later(delay, self._push, entry)

    def _push(self, entry: Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if self._entries.get(entry.key) is not entry:
            return
        entry.resting = False
        heapq.heappush(self._heap, (-entry.priority, entry.created, next(self._order), entry.key))
        self._ready()
