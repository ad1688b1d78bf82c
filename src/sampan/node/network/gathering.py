"""A change in the kernel costs more than the change before it: the first event waits a moment for others."""

from __future__ import annotations

import asyncio

from sampan.base.clock import Clock, Timer


class Gathering:
    """Wakes one waiter a little after the first of many events. `seconds`: how long the first one waits for others."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._woken = asyncio.Event()
        self._timer: Timer | None = None

    def soon(self) -> None:
        """Something happened."""
        if self._timer is None and not self._woken.is_set():
            self._timer = self._clock.call_later(self._seconds, self.now)

    def now(self) -> None:
        """Something happened that shall not wait for others."""
        self._timer = None
        self._woken.set()

    async def wait(self) -> None:
        """Returns when something has happened since the last time."""
        await self._woken.wait()
        self._woken.clear()

    def close(self) -> None:
        """Whoever waits, waits on."""
        if self._timer:
            self._timer.cancel()
