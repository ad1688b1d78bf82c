"""Small maps of text that thousands of objects have in common (labels, selectable fields): kept once, shared by all."""

from __future__ import annotations

from collections.abc import Mapping

_LIMIT = 4096  # maps remembered; then remembering begins anew, and what is shared stays shared

_known: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}


def shared(values: Mapping[str, str]) -> Mapping[str, str]:
    """A map equal to `values` in content and order, which nobody may change."""
    key = tuple(values.items())
    found = _known.get(key)
    if found is None:
        if len(_known) >= _LIMIT:
            _known.clear()
        found = _known[key] = values
    return found
