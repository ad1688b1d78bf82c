"""A view that a test fills by hand: what proxy and DNS need of `client.view.CachedView`."""

from __future__ import annotations

from typing import Any

_RESOURCES = {
    "Service": "services",
    "EndpointSlice": "endpointslices.discovery.k8s.io",
    "Node": "nodes",
    "Namespace": "namespaces",
    "Pod": "pods",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
}


class Picture:
    def __init__(self, *objects: dict[str, Any]) -> None:
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._listeners: list[Any] = []
        for obj in objects:
            self.put(obj)

    def _key(self, obj: dict[str, Any]) -> tuple[str, str, str]:
        return _RESOURCES[obj["kind"]], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

    def put(self, obj: dict[str, Any]) -> None:
        key = self._key(obj)
        old = self._objects.get(key)
        self._objects[key] = obj
        for listener in list(self._listeners):
            listener(key[0], old, obj)

    def delete(self, obj: dict[str, Any]) -> None:
        key = self._key(obj)
        old = self._objects.pop(key)
        for listener in list(self._listeners):
            listener(key[0], old, None)

    def subscribe(self, listener: Any) -> None:
        self._listeners.append(listener)

    def unsubscribe(self, listener: Any) -> None:
        self._listeners.remove(listener)

    def add(self, resource: str) -> None:
        """Everything is followed already."""

    async def synced(self) -> None: ...

    def get(self, resource: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        return self._objects.get((resource, namespace, name))

    def list(self, resource: str, namespace: str | None = None) -> list[dict[str, Any]]:
        found = sorted(self._objects.items())
        return [o for (r, n, _), o in found if r == resource and namespace in (None, n)]
