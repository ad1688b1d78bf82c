"""What the server says besides its answer: nothing that is wrong, but that will surprise. Clients print it.

Source: Kubernetes documentation, "Warning mechanism" (KEP-1693).
"""

from __future__ import annotations

from sampan.api import meta
from sampan.api.registry import Resource
from sampan.api.validate.meta import qualified
from sampan.base.objects import Object


def warnings_of(row: Resource, obj: Object, old: Object | None) -> list[str]:
    """The warnings of a write that is allowed; `old` is None for a create."""
    if row.custom:
        return _finalizers(obj, old)
    return []


def _finalizers(obj: Object, old: Object | None) -> list[str]:
    known = meta.finalizers(old or {})
    return [
        f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name including a path (/) '
        "to avoid accidental conflicts with other finalizer writers"
        for name in meta.finalizers(obj)
        if name not in known and not qualified(name)
    ]
