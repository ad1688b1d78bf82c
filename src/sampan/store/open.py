"""Which store a cluster uses is decided here, from whether it has a directory."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sampan.base.clock import Clock
from sampan.store.durable import DurableStore
from sampan.store.memory import MemoryStore
from sampan.store.protocol import Store


def open_store(
    path: Path | None, *, clock: Clock, on_fatal: Callable[[BaseException], None] | None = None
) -> Store:
    """The store in the directory `path` (made if missing), or one in memory when that is None.

    `on_fatal` is called on the loop when the disk refuses a write; without it the process ends at once, since what it
    believes and what is on disk may differ from then on. Raises SampanError for a damaged, newer or locked store.
    """
    if path is None:
        return MemoryStore(clock)
    store = DurableStore(Path(path), clock, on_fatal=on_fatal or _end)
    gc.freeze()  # what was just read stays: walking it at every collection would stall the loop
    return store


def _end(error: BaseException) -> None:
    try:
        print(f"sampan: the store cannot write to its disk: {error}; stopping", file=sys.stderr, flush=True)
    finally:  # its log may be on the same disk
        os._exit(74)  # EX_IOERR
