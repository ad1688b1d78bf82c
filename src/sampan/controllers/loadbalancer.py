"""Service type LoadBalancer: an address from a local pool, at once and for as long as the service has that type.

Kubernetes leaves this to a cloud; here the pool is a range of addresses that the nodes' proxies answer for.
Source: API reference Service v1 (loadBalancerClass, loadBalancerIP, status.loadBalancer, ipMode).
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Event, Key, Plan, View

from .base import Rule, status_patch

_RESOURCE = "services"
_STANDING = "pool"


def rules(pool: str, mode: str = "VIP") -> list[Rule]:
    """`pool` is a CIDR or `first-last`, several joined by commas; empty switches the controller off."""
    if not pool:
        return []

    def reconcile_one(service: Object, view: View, now: float) -> Plan:
        return reconcile(service, view, now, pool, mode)

    index = {_RESOURCE: {_STANDING: _standing}}
    return [
        Rule("service-controller", _RESOURCE, reconcile_one, {_RESOURCE: _waiting}, indexes=index, alone=True)
    ]


def _standing(service: Object) -> str | None:
    """Few of many services have to do with the pool: those are found by this."""
    return "has" if addresses(service) else "waits" if wanted(service) else None


def _waiting(changed: Object, view: View) -> list[Key]:
    """A service that gave its address back may free it for one that found the pool empty."""
    kept = view.get(_RESOURCE, meta.name(changed), meta.namespace(changed))
    if kept is not None and kept["spec"].get("type") == "LoadBalancer" and not meta.deleted(kept):
        return []
    return [Key(meta.namespace(s), meta.name(s)) for s in view.indexed(_RESOURCE, _STANDING, "waits")]


def wanted(service: Object) -> bool:
    """Whether this controller gives it an address: another `loadBalancerClass` is somebody else's."""
    spec = service["spec"]
    mine = spec.get("loadBalancerClass") in (None, "", "sampan.io/pool")
    return spec.get("type") == "LoadBalancer" and mine and not meta.deleted(service)


def addresses(service: Object) -> list[str]:
    """What it has been given."""
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    return [i["ip"] for i in ingress if i.get("ip")]


def reconcile(service: Object, view: View, now: float, pool: str, mode: str) -> Plan:
    """Gives an address of each family, or the one that is asked for; keeps one that fits, takes back what nobody wants.

    `pool` as in `rules`; `mode` becomes `ipMode`: whether nodes take packets for the address themselves (KEP-1860).
    """
    plan, have = Plan(), addresses(service)
    if not wanted(service):
        foreign = service["spec"].get("type") == "LoadBalancer"
        if not have or foreign:
            return plan
        return plan.then(*status_patch(_RESOURCE, service, {**service["status"], "loadBalancer": {}}))
    families = _families(service, pool)
    asked = service["spec"].get("loadBalancerIP")
    if have and (asked in have if asked else [_version(a) for a in have] == families):
        return plan
    others = view.indexed(_RESOURCE, _STANDING, "has")
    taken = {a for s in others if meta.uid(s) != meta.uid(service) for a in addresses(s)}
    free: list[str] = []
    if asked:
        free = [asked] if asked not in taken and contains(pool, asked) else []
    else:
        kept = {_version(a): a for a in have}
        found = (kept.get(v) or next((a for a in members(pool, v) if a not in taken), "") for v in families)
        free = [a for a in found if a]
    if not free or (not asked and len(free) < len(families)):
        why = (
            f"address {asked} is taken or outside the pool {pool}"
            if asked
            else f"no free address in the pool {pool}"
        )
        plan.events.append(
            Event(service, "Warning", "SyncLoadBalancerFailed", f"Error syncing load balancer: {why}")
        )
        plan.why = why
        return plan
    plan.why = f"gives {', '.join(free)}"
    plan.events.append(Event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer"))
    status = {
        **service.get("status", {}),
        "loadBalancer": {"ingress": [{"ip": a, "ipMode": mode} for a in free]},
    }
    return plan.then(*status_patch(_RESOURCE, service, status, exact=True))


@functools.lru_cache(maxsize=8)
def _ranges(pool: str) -> list[tuple[int, int, int]]:
    """(version, first, last) of each part; of networks without the first address (in IPv6 that of any router there) and
    the broadcast address of IPv4."""
    result: list[tuple[int, int, int]] = []
    for part in filter(None, (p.strip() for p in pool.split(","))):
        if "-" in part:
            first, last = (ipaddress.ip_address(a.strip()) for a in part.split("-", 1))
            result.append((first.version, int(first), int(last)))
        else:
            net = ipaddress.ip_network(part, strict=False)
            edge = 1 if net.num_addresses > 2 else 0
            top = int(net[-1]) - (edge if net.version == 4 else 0)
            result.append((net.version, int(net[0]) + edge, top))
    return result


def _families(service: Object, pool: str) -> list[int]:
    """The IP versions to give addresses of: the Service's, as far as the pool has them."""
    there = {version for version, _, _ in _ranges(pool)}
    wished = [int(family[-1]) for family in service["spec"].get("ipFamilies") or ("IPv4",)]
    return [version for version in wished if version in there]


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def members(pool: str, version: int) -> Iterator[str]:
    """All addresses of the pool of an IP version (4 or 6), in order."""
    for v, first, last in _ranges(pool):
        if v != version:
            continue
        make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        yield from (str(make(number)) for number in range(first, last + 1))


def contains(pool: str, address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return any(v == ip.version and first <= int(ip) <= last for v, first, last in _ranges(pool))
