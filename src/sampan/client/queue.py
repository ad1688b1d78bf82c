"""The keys a controller still has to look at: first in first out, each once, none looked at twice at the same time.

Failures wait exponentially longer (5 ms doubling to 1000 s); news of a key bring it forward at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sampan.base.clock import Clock, Timer
from sampan.base.ids import Ids
from sampan.client.plan import Key

FIRST_DELAY, LAST_DELAY = 0.005, 1000.0
_TURN = 0.001  # seconds in which keys are handed out before other tasks get their turn


class Queue:
    """`ready(key, cause)` is called for a key that may be worked on; `done(key)` must follow when it was.

    Never from within `add`: what comes together in one turn of the event loop wakes a key once.
    """

    def __init__(
        self, ready: Callable[[Key, str], None], *, clock: Clock, ids: Ids, concurrency: int = 8
    ) -> None:
        self._ready = ready
        self._clock = clock
        self._ids = ids
        self._concurrency = concurrency
        self._waiting: dict[Key, tuple[str, float]] = {}  # in order of arrival: what woke it, and when
        self._working: dict[Key, float] = {}  # since when
        self._again: dict[Key, str] = {}  # woken while being worked on
        self._timers: dict[Key, Timer] = {}
        self._failures: dict[Key, int] = {}
        self._open = False
        self._called = False  # a turn is due
        self.waited = 0.0  # seconds that keys had to wait
        self.taken = 0
        self.added = 0
        self.retried = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def working(self) -> int:
        return len(self._working)

    def unfinished(self) -> list[float]:
        """For how many seconds each key has been worked on."""
        now = self._clock.monotonic()
        return [now - began for began in self._working.values()]

    @property
    def idle(self) -> bool:
        """Nothing to do now; timers may still be running."""
        return not self._waiting and not self._working

    def open(self) -> None:
        """Begin to hand out keys; those added before are waiting."""
        self._open = True
        self._call()

    def close(self) -> None:
        """Nothing is handed out any more; timers of keys that come back later end."""
        self._open = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def add(self, key: Key, cause: str) -> None:
        """A key has something to do. One that waits already waits once; one in work comes again when it is done."""
        if key in self._working:
            self._again.setdefault(key, cause)
        elif key not in self._waiting:
            self._wait(key, cause)
            self._call()

    def _wait(self, key: Key, cause: str) -> None:
        self._waiting[key] = (cause, self._clock.monotonic())
        self.added += 1

    def add_later(self, key: Key, delay: float, cause: str) -> None:
        """The latest word counts: an earlier timer of this key is forgotten."""
        self.forget_timer(key)

        def due() -> None:
            self._timers.pop(key, None)
            self.add(key, cause)

        self._timers[key] = self._clock.call_later(delay, due)

    def forget_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def failed(self, key: Key, cause: str, *, conflict: bool = False) -> float:
        """Try again after a delay, which is returned; the first conflict costs none."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        self.retried += 1
        if conflict and count == 0:
            self.forget_timer(key)
            self._again.setdefault(key, cause)
            return 0.0
        delay = self._ids.jitter(min(LAST_DELAY, FIRST_DELAY * 2 ** min(count, 30)))
        self.add_later(key, delay, cause)
        return delay

    def succeeded(self, key: Key) -> None:
        self._failures.pop(key, None)

    def done(self, key: Key) -> None:
        """The work on a key has ended: it may be handed out again."""
        self._working.pop(key, None)
        cause = self._again.pop(key, None)
        if cause is not None:
            self._wait(key, cause)
        self._call()

    def _call(self) -> None:
        if self._open and self._waiting and not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        now = self._clock.monotonic()
        end = now + _TURN
        while self._open and self._waiting and len(self._working) < self._concurrency:
            key = next(iter(self._waiting))
            cause, since = self._waiting.pop(key)
            self.waited += now - since
            self.taken += 1
            self._working[key] = now
            self._ready(key, cause)
            now = self._clock.monotonic()
            if now > end:
                break
        self._called = False
        if len(self._working) < self._concurrency:
            self._call()
