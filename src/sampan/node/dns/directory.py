"""The zones' source: Services and EndpointSlices from a view, with the way back from an address to its names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from sampan.base.objects import Object
from sampan.client.view import CachedView
from sampan.node.dns.zones import Name
from sampan.node.network.services import service_key
from sampan.node.network.slices import SLICES, SliceIndex

SERVICES, NAMESPACES = "services", "namespaces"


class Directory:
    """`dns.zones.Services` over a view of services, endpointslices.discovery.k8s.io and, if followed, namespaces.

    `changed` is called with the topics (see `zones.Answer`) that a change concerns.
    """

    def __init__(self, view: CachedView, changed: Callable[[Iterable[str]], None]) -> None:
        self._view = view
        self._changed = changed
        self._slices = SliceIndex(view)
        self._counts: dict[str, int] = defaultdict(int)  # services by namespace
        self._owners: dict[str, set[Name]] = defaultdict(set)
        self._owned: dict[str, set[tuple[str, Name]]] = {}
        for service in view.list(SERVICES):
            self._counts[service["metadata"]["namespace"]] += 1
            self._own(service_key(service))
        view.subscribe(self._notice)

    def close(self) -> None:
        self._view.unsubscribe(self._notice)

    def service(self, namespace: str, name: str) -> Object | None:
        return self._view.get(SERVICES, name, namespace)

    def slices(self, namespace: str, name: str) -> list[Object]:
        return self._slices.of(f"{namespace}/{name}")

    def has_namespace(self, namespace: str) -> bool:
        """By its object, or where namespaces are not followed by having a Service."""
        return self._counts.get(namespace, 0) > 0 or self._view.get(NAMESPACES, namespace) is not None

    def owner_of(self, address: str) -> set[Name]:
        return self._owners.get(address, set())

    def _notice(self, resource: str, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        if resource == SERVICES:
            namespace = obj["metadata"]["namespace"]
            self._counts[namespace] += (new is not None) - (old is not None)
            topics = {service_key(obj), f"namespace/{namespace}"}
            self._own(service_key(obj))
        elif resource == SLICES:
            topics = self._slices.notice(old, new)
            for key in topics:
                self._own(key)
        elif resource == NAMESPACES:
            topics = {f"namespace/{obj['metadata']['name']}"}
        else:
            return
        self._changed(topics | {"reverse"})

    def _own(self, key: str) -> None:
        """Notes whose addresses a Service's are: its cluster address, or headless those of endpoints with a hostname."""
        namespace, name = key.split("/", 1)
        now = set(self._addresses(namespace, name))
        for address, owner in self._owned.pop(key, set()) - now:
            self._owners[address].discard(owner)
            if not self._owners[address]:
                del self._owners[address]
        for address, owner in now:
            self._owners[address].add(owner)
        if now:
            self._owned[key] = now

    def _addresses(self, namespace: str, name: str) -> Iterable[tuple[str, Name]]:
        service = self.service(namespace, name)
        spec = (service or {}).get("spec") or {}
        if service is None or spec.get("type") == "ExternalName":
            return
        if spec.get("clusterIP") not in (None, "", "None"):
            for address in spec.get("clusterIPs") or [spec["clusterIP"]]:
                yield address, (name, namespace)
            return
        for item in self.slices(namespace, name):
            for endpoint in item.get("endpoints") or ():
                if endpoint.get("hostname"):
                    for address in endpoint["addresses"]:
                        yield address, (endpoint["hostname"], name, namespace)
