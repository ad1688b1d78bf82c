"""Python's collector of cycles, tuned for a server: plain JSON makes no cycles, but walking it again and again costs a
third of a busy server's time, and a stall of the event loop each time.
"""

from __future__ import annotations

import gc

# New containers before the young are looked at; young rounds before a middle one; middle ones before a full one.
_THRESHOLDS = (20_000, 50, 20)


def tune() -> None:
    """Call once, when everything is imported and started: what is there now is never walked again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
