"""Time is injected, so that a day of a CronJob passes in a millisecond and a run can be repeated.

Nothing outside this file reads the machine's clock or sets a timer. `RealClock` is the machine's;
`VirtualClock` stands still until a test calls `advance()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

_LATE = 0.005  # seconds: no slice of the loop should take longer


class Timer(Protocol):
    """A pending call; `cancel()` may be called at any time, more than once."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The only source of time. Seconds are floats; `now()` is since the Unix epoch, UTC."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer: ...

    async def sleep(self, delay: float) -> None: ...

    def timeout(self, delay: float | None) -> contextlib.AbstractAsyncContextManager[Any]: ...


class Lag:
    """How late timers fired: what a slice of the loop that took too long costs everybody. Nothing is polled for it."""

    __slots__ = ("late", "seconds", "timers", "worst")

    def __init__(self) -> None:
        self.timers = 0
        self.late = 0  # by more than _LATE
        self.seconds = 0.0  # summed over all timers
        self.worst = 0.0  # since `take_worst`

    def fired(self, seconds: float) -> None:
        """A timer fired `seconds` after its time."""
        self.timers += 1
        if seconds > 0.0:
            self.seconds += seconds
            self.late += seconds > _LATE
            self.worst = max(self.worst, seconds)

    def take_worst(self) -> float:
        worst, self.worst = self.worst, 0.0
        return worst


class RealClock:
    """The machine's clock and the running event loop's timers; `lag` tells how late those fire."""

    def __init__(self) -> None:
        self.lag = Lag()

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)  # asked some thirty times a request

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        return asyncio.get_running_loop().call_later(
            delay, self._fire, time.monotonic() + delay, callback, args
        )

    def _fire(self, due: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.lag.fired(time.monotonic() - due)
        callback(*args)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)

    def timeout(self, delay: float | None) -> contextlib.AbstractAsyncContextManager[Any]:
        """Raises TimeoutError out of the block after `delay` seconds; None means never."""
        return asyncio.timeout(delay)


class _VirtualTimer:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], Any]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """Time that moves only by `advance()`. Needs asyncio's own loop (uvloop hides its ready queue)."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:  # 2026-01-01T00:00:00Z
        self._start = start
        self._elapsed = 0.0  # kept apart from `start`: next to 1.7e9 a float could not tell microseconds
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _VirtualTimer]] = []

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    def set_wall(self, now: float) -> None:
        """As when somebody sets the machine's clock: nothing is due sooner or later for it."""
        self._start = now - self._elapsed

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = _VirtualTimer(lambda: callback(*args))
        heapq.heappush(self._timers, (self._elapsed + max(delay, 0.0), next(self._order), timer))
        return timer

    async def sleep(self, delay: float) -> None:
        if delay <= 0:
            await asyncio.sleep(0)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: None if done.done() else done.set_result(None))
        try:
            await done
        finally:
            timer.cancel()

    @contextlib.asynccontextmanager
    async def timeout(self, delay: float | None) -> AsyncIterator[asyncio.Timeout]:
        """Like `asyncio.timeout`, but in virtual seconds: the block is cancelled when they have passed."""
        async with asyncio.timeout(None) as scope:
            timer = self.call_later(delay, lambda: scope.reschedule(0)) if delay is not None else None
            try:
                yield scope
            finally:
                if timer:
                    timer.cancel()

    async def settle(self) -> None:
        """Let every task that can run do so, at this instant, until all of them wait."""
        loop = asyncio.get_running_loop()
        ready = getattr(loop, "_ready", None)
        if ready is None:
            raise RuntimeError("virtual time needs asyncio's own event loop, not uvloop")
        quiet = 0
        while quiet < 2:
            await asyncio.sleep(0)
            quiet = 0 if ready else quiet + 1

    async def advance(self, seconds: float) -> None:
        """Move time forward, firing timers in order and letting the world settle after each instant."""
        await self.settle()
        end = self._elapsed + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            if timer.cancelled:
                continue
            self._elapsed = max(self._elapsed, due)
            timer.callback()
            await self.settle()
        self._elapsed = end
        await self.settle()


def rfc3339(seconds: float) -> str:
    """`metadata.creationTimestamp` form: whole seconds, UTC. API conventions, "Primitive types"."""
    return _whole_second(int(seconds))


@functools.lru_cache(maxsize=256)
def _whole_second(seconds: int) -> str:
    return zulu(datetime.datetime.fromtimestamp(seconds, datetime.UTC), "seconds")


def rfc3339_micro(seconds: float, nanos: int = 0) -> str:
    """MicroTime form: six digits of a second, UTC (Lease, events.k8s.io)."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return zulu(moment + datetime.timedelta(microseconds=nanos // 1000), "microseconds")


def zulu(moment: datetime.datetime, precision: str) -> str:
    """An RFC 3339 text of `moment`, which is in UTC, in "seconds" or "microseconds".

    Four digits of the year, always: `strftime` writes the year 1, which Go's zero time is in, as "1".
    """
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def rfc3339_parse(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time. Raises ValueError when it is none."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
