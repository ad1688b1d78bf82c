"""How the two long-lived processes collect garbage: seldom, and never what was there at the start.

Python's cyclic collector walks every container it knows; with ten thousand objects in caches a full walk takes tenths
of a second, in which nobody is answered. Our values are trees, freed by reference counts; cycles are few and small.

What is freed goes back to malloc, and from there to the kernel only at the end of the heap; so a crowd of connections
that has gone would be paid for until the process ends. `Heap` gives it back.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

from sampan.base.clock import Clock, Timer

_YOUNG, _MIDDLE, _OLD = 50_000, 20, 100  # a full walk comes after 100 million net allocations
_CROWD = 64  # ended connections, of some 100 KB each
_PATIENCE = 2.0  # seconds


def settle() -> None:
    """Call once when a process has started: what exists now is for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


class Heap:
    """malloc's memory. Where malloc is not glibc's, nothing happens."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._libc = ctypes.CDLL(None)
        self._known = hasattr(self._libc, "malloc_trim")
        self._ended = 0
        self._timer: Timer | None = None

    def connection_ended(self) -> None:
        """When many have, and some time for them to be forgotten, the kernel gets their memory."""
        self._ended += 1
        if self._ended >= _CROWD and self._timer is None and self._known:
            self._timer = self._clock.call_later(_PATIENCE, self._trim)

    def _trim(self) -> None:
        self._ended, self._timer = 0, None
        # Takes 2 to 8 ms after a thousand watchers. Whoever allocates meanwhile may wait, nobody else.
        asyncio.get_running_loop().run_in_executor(None, self._libc.malloc_trim, 0)
