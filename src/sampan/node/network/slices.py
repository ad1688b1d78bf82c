"""Which EndpointSlices belong to which Service, kept current from a view's notices: proxy and DNS both ask for it."""

from __future__ import annotations

from collections import defaultdict

from sampan.base.objects import Object
from sampan.client.view import CachedView
from sampan.node.network.services import slice_service

SLICES = "endpointslices.discovery.k8s.io"


class SliceIndex:
    """Feed every notice about slices to `notice`; `of` then gives a Service's slices, sorted by name."""

    def __init__(self, view: CachedView) -> None:
        self._view = view
        self._names: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for item in view.list(SLICES):
            self._names[slice_service(item)].add(_name(item))

    def services(self) -> set[str]:
        """The keys of all Services that have slices."""
        return {key for key, names in self._names.items() if names}

    def notice(self, old: Object | None, new: Object | None) -> set[str]:
        """Gives the keys ("namespace/name") of the Services that a change of a slice concerns: one, rarely two."""
        concerned = set()
        if old is not None:
            key = slice_service(old)
            concerned.add(key)
            self._names[key].discard(_name(old))
            if not self._names[key]:
                del self._names[key]
        if new is not None:
            key = slice_service(new)
            concerned.add(key)
            self._names[key].add(_name(new))
        return concerned

    def of(self, key: str) -> list[Object]:
        """The slices of a Service ("namespace/name")."""
        found = (
            self._view.get(SLICES, name, namespace) for namespace, name in sorted(self._names.get(key, ()))
        )
        return [item for item in found if item is not None]


def _name(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
