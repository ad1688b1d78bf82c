"""Endpoints: the older picture of the same addresses, and slices that mirror Endpoints somebody wrote by hand.

Source: API reference Endpoints v1 (subsets; 1,000 addresses at most); "EndpointSlice mirroring".
"""

from __future__ import annotations

import ipaddress
from typing import Any

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Key, Plan, Update, View

from . import endpointslice, pods
from .base import Rule, same_name
from .slices import HEADLESS, MANAGED_BY, RESOURCE, SERVICE, Group, pack, text

_MANAGED = "endpoints.kubernetes.io/managed-by"
_OVER = "endpoints.kubernetes.io/over-capacity"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_MIRROR = "endpointslicemirroring-controller.k8s.io"
_CAPACITY = 1000


def rules() -> list[Rule]:
    """Endpoints are made for Services with a selector; those that others made, for Services without, are shown as slices."""
    watches = {"pods": endpointslice.services_of, "endpoints": _of_service}
    mirrors = {"services": same_name, RESOURCE: _mirrored}
    return [
        Rule("endpoint-controller", "services", reconcile, watches, removed),
        Rule("endpointslicemirroring-controller", "endpoints", mirror, mirrors),
    ]


def _of_service(endpoints: Object, view: View) -> list[Key]:
    """Endpoints that somebody wrote for no service are theirs: only a service that goes takes them along."""
    keys = same_name(endpoints, view)
    return [key for key in keys if view.get("services", key.name, key.namespace) is not None]


def removed(key: Key, view: View, now: float) -> Plan:
    """Endpoints have no owner reference: they go with the service of their name."""
    found = view.get("endpoints", key.name, key.namespace)
    return (
        Plan()
        if found is None
        else Plan().then(Delete("endpoints", key.name, key.namespace, uid=meta.uid(found)))
    )


def reconcile(service: Object, view: View, now: float) -> Plan:
    """The older form of the same endpoints, cut off at 1,000. Source: "Service", section "Endpoints" (over-capacity)."""
    plan = Plan()
    if not endpointslice.has_endpoints(service) or meta.deleted(service):
        return plan
    subsets, truncated = _subsets(service, view)
    labels = {k: v for k, v in meta.labels(service).items() if k != HEADLESS}
    labels |= {_MANAGED: "endpoint-controller"} | ({HEADLESS: ""} if endpointslice.headless(service) else {})
    old = view.get("endpoints", meta.name(service), meta.namespace(service))
    annotations = {k: v for k, v in (meta.annotations(old) if old else {}).items() if k != _OVER}
    if truncated:
        annotations[_OVER] = "truncated"
    metadata: Object = {"name": meta.name(service), "namespace": meta.namespace(service), "labels": labels}
    wanted: Object = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
    if old is None:
        if annotations:
            metadata["annotations"] = annotations
        return plan.then(Create("endpoints", wanted, meta.namespace(service)))
    same = text(old.get("subsets") or []) == text(subsets)
    if same and meta.labels(old) == labels and (meta.annotations(old) or {}) == annotations:
        return plan
    metadata = old["metadata"] | metadata | {"annotations": annotations}
    return plan.then(Update("endpoints", old | {"metadata": metadata, "subsets": subsets}))


def _subsets(service: Object, view: View) -> tuple[list[Object], bool]:
    """Addresses with the same ports share a subset; ready ones first when there are too many."""
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    family = (service["spec"].get("ipFamilies") or ["IPv4"])[0]
    chosen = []
    for pod in endpointslice.backends(service, view):
        if (not meta.deleted(pod) or publish) and (ips := endpointslice.addresses(pod, family)):
            chosen.append((publish or pods.ready(pod), ips[0], pod))
    chosen.sort(key=lambda c: (not c[0], ipaddress.ip_address(c[1]), meta.uid(c[2])))
    groups: dict[bytes, dict[str, Any]] = {}
    for is_ready, ip, pod in chosen[:_CAPACITY]:
        ports = endpointslice.ports_of(service, pod)
        if not ports and not endpointslice.headless(service):
            continue
        ports = sorted(({k: v for k, v in p.items() if v} for p in ports), key=text)
        group = groups.setdefault(text(ports), {"addresses": [], "notReadyAddresses": [], "ports": ports})
        group["addresses" if is_ready else "notReadyAddresses"].append(_address(service, pod, ip))
    return [{k: v for k, v in groups[g].items() if v} for g in sorted(groups)], len(chosen) > _CAPACITY


def _address(service: Object, pod: Object, ip: str) -> Object:
    address: Object = {"ip": ip}
    if name := endpointslice.hostname_of(service, pod):
        address["hostname"] = name
    if node := pod["spec"].get("nodeName"):
        address["nodeName"] = node
    ref = {"kind": "Pod", "namespace": meta.namespace(pod), "name": meta.name(pod), "uid": meta.uid(pod)}
    return address | {"targetRef": ref}


def _mirrored(s: Object, view: View) -> list[Key]:
    labels = meta.labels(s)
    return (
        [Key(meta.namespace(s), labels[SERVICE])]
        if labels.get(MANAGED_BY) == _MIRROR and SERVICE in labels
        else []
    )


def mirror(endpoints: Object, view: View, now: float) -> Plan:
    """Slices with the content of hand-made Endpoints, for a service without selector."""
    service = view.get("services", meta.name(endpoints), meta.namespace(endpoints))
    existing = [
        s for s in view.owned(RESOURCE, meta.uid(endpoints)) if meta.labels(s).get(MANAGED_BY) == _MIRROR
    ]
    skipped = meta.labels(endpoints).get(_SKIP) == "true" or _LEADER in meta.annotations(endpoints)
    if skipped or service is None or service["spec"].get("selector") or meta.deleted(endpoints):
        return Plan().then(
            *(Delete(RESOURCE, meta.name(s), meta.namespace(s), uid=meta.uid(s)) for s in existing)
        )
    groups: dict[bytes, Group] = {}
    for subset in endpoints.get("subsets") or ():
        ports = [{"name": "", "protocol": "TCP"} | p for p in subset.get("ports") or ()]
        for kind, is_ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(kind) or ():
                family = "IPv6" if ":" in address["ip"] else "IPv4"
                group = groups.setdefault(text([family, ports]), Group(family, ports, []))
                group.endpoints.append(_mirrored_endpoint(address, is_ready))
    own = {k: v for k, v in meta.labels(endpoints).items() if k not in (HEADLESS, _MANAGED)}
    labels = own | {SERVICE: meta.name(endpoints), MANAGED_BY: _MIRROR}
    return Plan().then(*pack(endpoints, meta.name(endpoints), labels, list(groups.values()), existing))


def _mirrored_endpoint(address: Object, is_ready: bool) -> Object:
    endpoint: Object = {"addresses": [address["ip"]], "conditions": {"ready": is_ready}}
    return endpoint | {k: address[k] for k in ("hostname", "nodeName", "targetRef") if address.get(k)}
