"""Which address stands behind a Service, for calls that the server itself makes: to webhooks and aggregated servers."""

from __future__ import annotations

from sampan.base.ids import Ids
from sampan.server.lookup import Lookup

_SLICES = "endpointslices.discovery.k8s.io"
_OF_SERVICE = "kubernetes.io/service-name"


class NoBackend(Exception):
    """The Service, its port, or an endpoint that is ready is missing; the text says which."""


def endpoint(lookup: Lookup, ids: Ids, namespace: str, name: str, port: int) -> tuple[str, int]:
    """(address, port) of a ready endpoint of a Service's `port`, by chance. Raises NoBackend."""
    service = lookup.get("services", f"{namespace}/{name}")
    if service is None:
        raise NoBackend(f'service "{name}" not found')
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return spec.get("externalName", ""), port
    wanted = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
    if wanted is None:
        raise NoBackend(f'no service port {port} found for service "{name}"')
    found = sorted(_ready(lookup, namespace, name, wanted.get("name") or ""))
    if not found:
        raise NoBackend(f'no endpoints available for service "{name}"')
    return found[ids.choice(len(found))]


def _ready(lookup: Lookup, namespace: str, name: str, port_name: str) -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for item in lookup.items(_SLICES, f"{namespace}/"):
        if item.labels.get(_OF_SERVICE) != name:
            continue
        piece = lookup.decode(_SLICES, item)
        port = next((p for p in piece.get("ports") or () if (p.get("name") or "") == port_name), None)
        if port is None:
            continue
        for one in piece.get("endpoints") or ():
            if (one.get("conditions") or {}).get("ready") is not False:
                found.update((a, port["port"]) for a in one.get("addresses") or ())
    return found
