"""What each kind does with an object before it is stored: the rules a table can say, and small functions for the rest.

A strategy is looked up by GroupResource; what it does not say, `GENERIC` does. Source: API conventions ("Spec and
Status", "metadata.generation") and the API reference of each kind.

rules              base (the shape of a strategy), table (what a table can say), pods, definitions
Services           allocators (addresses and ports)
"""

from __future__ import annotations

from sampan.api.registry import Resource
from sampan.server.strategies.base import CUSTOM, GENERIC, Prep, Strategy
from sampan.server.strategies.table import STRATEGIES

__all__ = ["Prep", "Strategy", "strategy_of"]


def strategy_of(row: Resource) -> Strategy:
    """The rules of a row's kind."""
    if row.custom:
        return CUSTOM
    return STRATEGIES.get(row.store_key, GENERIC)
