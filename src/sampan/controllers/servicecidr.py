"""Ranges of Service addresses: ready once they are taken note of, and kept until no Service lives in them.

Source: KEP-1880, "Multiple Service CIDRs"; API reference ServiceCIDR v1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Key, Patch, Plan, View

from .base import Rule, status_patch

_RESOURCE = "servicecidrs.networking.k8s.io"
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_READY = {"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready"}
_ENDING = {
    "type": "Ready",
    "status": "False",
    "reason": "Terminating",
    "message": "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def rules() -> list[Rule]:
    wakes = {"services": _ending, _RESOURCE: _ending}
    return [Rule("service-cidrs-controller", _RESOURCE, reconcile, wakes)]


def _ending(changed: Object, view: View) -> Iterable[Key]:
    """Those that wait for the end of something."""
    return [Key("", meta.name(c)) for c in view.list(_RESOURCE) if meta.deleted(c)]


def reconcile(cidr: Object, view: View, now: float) -> Plan:
    """A range goes only when no Service has an address of it that no other range covers. Source: KEP-1880."""
    held = FINALIZER in meta.finalizers(cidr)
    if not meta.deleted(cidr):
        plan = Plan() if held else Plan().then(_finalizers(cidr, [*meta.finalizers(cidr), FINALIZER]))
        return plan.then(*_told(cidr, _READY, now))
    if not held:
        return Plan()
    tenant = _tenant(cidr, view)
    if tenant is not None:
        return Plan(why=f"{meta.key(tenant)} has an address of it").then(*_told(cidr, _ENDING, now))
    return Plan().then(_finalizers(cidr, [f for f in meta.finalizers(cidr) if f != FINALIZER]))


def _tenant(cidr: Object, view: View) -> Object | None:
    """A Service whose address is in this range and in no other that stays."""
    others = [c for c in view.list(_RESOURCE) if meta.uid(c) != meta.uid(cidr) and not meta.deleted(c)]
    own, left = networks(cidr), [n for c in others for n in networks(c)]
    for service in view.list("services"):
        for text in service["spec"].get("clusterIPs") or ():
            if text == "None":
                continue
            address = ipaddress.ip_address(text)
            if any(address in n for n in own) and not any(address in n for n in left):
                return service
    return None


def networks(cidr: Object) -> list[Network]:
    return [ipaddress.ip_network(text) for text in cidr["spec"]["cidrs"]]


def _finalizers(cidr: Object, names: list[str]) -> Patch:
    change = {"resourceVersion": meta.resource_version(cidr), "finalizers": names or None}
    return Patch(_RESOURCE, meta.name(cidr), {"metadata": change}, missing_ok=True)


def _told(cidr: Object, condition: Object, now: float) -> list[Patch]:
    status = cidr.get("status") or {}
    wanted = {**status, "conditions": meta.set_condition(meta.conditions(cidr), condition, now)}
    return status_patch(_RESOURCE, cidr, wanted)
