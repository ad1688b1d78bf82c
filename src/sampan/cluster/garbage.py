"""How the two long-lived processes collect garbage: seldom, and never what was there at the start.

Python's cyclic collector walks every container it knows; with ten thousand objects in caches a full walk takes tenths
of a second, in which nobody is answered. Our values are trees, freed by reference counts; cycles are few and small.
"""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 50_000, 20, 100  # a full walk comes after 100 million net allocations


def settle() -> None:
    """Call once when a process has started: what exists now is for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
