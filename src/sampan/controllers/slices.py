"""Packing endpoints into EndpointSlices: at most 100 in one, and a change touches as few slices as it can.

Shared by the slices of Services with a selector and by those that mirror hand-made Endpoints.
Source: API reference EndpointSlice v1; "EndpointSlices" (distribution of endpoints).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import orjson

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Step, Update

RESOURCE = "endpointslices.discovery.k8s.io"
SERVICE = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
HEADLESS = "service.kubernetes.io/headless"
_PER_SLICE = 100


class Group(NamedTuple):
    """Endpoints of one address family behind the same port numbers."""

    address_type: str  # IPv4 | IPv6
    ports: list[Object]
    endpoints: list[Object]


def text(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def pack(
    owner: Object, service: str, labels: dict[str, str], groups: list[Group], existing: list[Object]
) -> list[Step]:
    """What turns `existing` slices into ones that hold exactly `groups`: updates first, then creations, then deletions."""
    free: dict[bytes, list[Object]] = defaultdict(list)
    for old in existing:
        free[text([old.get("addressType"), old.get("ports") or []])].append(old)
    updates: list[Step] = []
    creates: list[Step] = []
    deletes: list[Step] = []
    for group in groups:
        mine = free.pop(text([group.address_type, group.ports]), [])
        filled = _distribute(group.endpoints, mine)
        keep_empty = not group.endpoints
        for s, endpoints in filled:
            if s is None:
                creates.append(
                    Create(RESOURCE, _new(owner, service, labels, group, endpoints), meta.namespace(owner))
                )
            elif not endpoints and not (keep_empty and s is filled[0][0]):
                deletes.append(_delete(s))
            elif endpoints != (s.get("endpoints") or []) or labels != meta.labels(s):
                updates.append(
                    Update(
                        RESOURCE, s | {"metadata": s["metadata"] | {"labels": labels}, "endpoints": endpoints}
                    )
                )
    deletes += [_delete(old) for rest in free.values() for old in rest]
    return [*updates, *creates, *deletes]


def _distribute(wanted: list[Object], mine: list[Object]) -> list[tuple[Object | None, list[Object]]]:
    """(slice or None for a new one, its endpoints). Each endpoint stays where it is; new ones fill slices with room,
    those that change anyway first. A slice left without endpoints is to go, but for one as a placeholder."""
    left = {tuple(e["addresses"]): e for e in wanted}
    kept: list[tuple[Object | None, list[Object]]] = []
    for s in mine:
        stay = [e for old in s.get("endpoints") or () if (e := left.pop(tuple(old["addresses"]), None))]
        kept.append((s, stay))
    rest = list(left.values())
    for _, stay in sorted(kept, key=lambda k: (k[1] == (k[0] or {}).get("endpoints"), -len(k[1]))):
        room = _PER_SLICE - len(stay)
        stay += rest[:room]
        rest = rest[room:]
    kept += [(None, rest[i : i + _PER_SLICE]) for i in range(0, len(rest), _PER_SLICE)]
    return kept or [(None, [])]


def _new(
    owner: Object, service: str, labels: dict[str, str], group: Group, endpoints: list[Object]
) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{service}-",
            "namespace": meta.namespace(owner),
            "labels": labels,
            "ownerReferences": [meta.owner_ref(owner, controller=True)],
        },
        "addressType": group.address_type,
        "endpoints": endpoints,
        "ports": group.ports,
    }


def _delete(s: Object) -> Delete:
    return Delete(RESOURCE, meta.name(s), meta.namespace(s), uid=meta.uid(s))
