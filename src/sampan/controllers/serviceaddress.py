"""IPAddress objects: which Service has which cluster IP, for whoever plans ranges (`kubectl get ipaddresses`).

The server gives addresses out and knows who has them; these objects tell it, and are put right when somebody changes them.
Source: KEP-1880, API reference IPAddress v1.
"""

from __future__ import annotations

import ipaddress

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Key, Plan, Step, View

from .base import Rule

RESOURCE = "ipaddresses.networking.k8s.io"
_MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
_FAMILY = "ipaddress.kubernetes.io/ip-family"
_MANAGER = "ipallocator"


def rules() -> list[Rule]:
    """Every address of a Service is an IPAddress object, and every such object has its Service (KEP-1880)."""
    return [
        Rule(
            "ipallocator-repair-controller",
            "services",
            reconcile,
            {RESOURCE: _concerned},
            removed,
            indexes={RESOURCE: {"service": _parent}, "services": {"clusterIP": addresses}},
        )
    ]


def addresses(service: Object) -> list[str]:
    """The cluster IPs of a Service in their canonical form."""
    return [str(ipaddress.ip_address(ip)) for ip in service["spec"].get("clusterIPs") or () if ip != "None"]


def _parent(address: Object) -> str | None:
    """namespace/name of the Service that one of ours names."""
    parent = address["spec"].get("parentRef") or {}
    ours = meta.labels(address).get(_MANAGED_BY) == _MANAGER and parent.get("resource") == "services"
    return f"{parent.get('namespace', '')}/{parent['name']}" if ours else None


def _concerned(address: Object, view: View) -> list[Key]:
    """The Service it names, and the one that has the address now."""
    keys = [
        Key(meta.namespace(s), meta.name(s))
        for s in view.indexed("services", "clusterIP", meta.name(address))
    ]
    parent = _parent(address)
    return [*keys, Key(*meta.split_key(parent))] if parent else keys


def reconcile(service: Object, view: View, now: float) -> Plan:
    """Makes the objects that lack and removes those of addresses it has no longer."""
    wanted = addresses(service)
    known = view.indexed(RESOURCE, "service", meta.key(service))
    missing = [ip for ip in wanted if ip not in {meta.name(a) for a in known}]
    steps: list[Step] = [Create(RESOURCE, _address(ip, service), exists_ok=True) for ip in missing]
    return Plan().then(*steps, *(_delete(a) for a in known if meta.name(a) not in wanted))


def removed(key: Key, view: View, now: float) -> Plan:
    known = view.indexed(RESOURCE, "service", f"{key.namespace}/{key.name}")
    return Plan().then(*map(_delete, known))


def _address(ip: str, service: Object) -> Object:
    labels = {_MANAGED_BY: _MANAGER, _FAMILY: f"IPv{ipaddress.ip_address(ip).version}"}
    parent = {
        "group": "",
        "resource": "services",
        "namespace": meta.namespace(service),
        "name": meta.name(service),
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": ip, "labels": labels},
        "spec": {"parentRef": parent},
    }


def _delete(address: Object) -> Delete:
    return Delete(RESOURCE, meta.name(address), uid=meta.uid(address))
