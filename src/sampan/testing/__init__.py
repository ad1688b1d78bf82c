"""For your tests: a whole Kubernetes in your process, with time in your hand (`Cluster`) or behind HTTPS (`Served`)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.testing.cluster import Cluster, Write
    from sampan.testing.console import Finished
    from sampan.testing.served import Served

__all__ = ["Cluster", "Finished", "Served", "Write"]

_HOME = {"Cluster": "cluster", "Write": "cluster", "Finished": "console", "Served": "served"}


def __getattr__(name: str) -> Any:
    """Load what is asked for (PEP 562): pytest loads this package for `plugin.py` in every project that has sampan."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sampan.testing.{_HOME[name]}"), name)
