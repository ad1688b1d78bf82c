"""Columns of services, endpoints, ingresses and network policies."""

from __future__ import annotations

from typing import Any

from sampan.api.table.cells import NONE, created, labels, name, selector, some
from sampan.base.objects import Object


def _service(obj: Object, now: float) -> list[Any]:
    spec = obj["spec"]
    kind = spec.get("type", "ClusterIP")
    address = (spec.get("clusterIPs") or [spec.get("clusterIP")])[0] or NONE
    ports = ",".join(map(_port, spec.get("ports") or [])) or NONE
    pods = labels(spec.get("selector"))
    return [name(obj), kind, address, _external(obj, kind), ports, created(obj, now), pods]


def _port(port: Object) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node}/{port.get('protocol', 'TCP')}"


def _external(obj: Object, kind: str) -> str:
    spec = obj["spec"]
    if kind == "ExternalName":
        return spec.get("externalName", "")
    listed = ",".join(spec.get("externalIPs") or [])
    if kind != "LoadBalancer":
        return listed or NONE
    ingress = obj.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    balancers = sorted({i.get("ip") or i.get("hostname", "") for i in ingress})
    return ",".join([*balancers, *([listed] if listed else [])]) or "<pending>"


def _endpoints(obj: Object, now: float) -> list[Any]:
    subsets = obj.get("subsets") or []
    pairs = []
    for subset in subsets:
        addresses = [a["ip"] for a in subset.get("addresses") or []]
        ports = subset.get("ports") or []
        if not ports:
            pairs += addresses
        for port in ports:
            pairs += [f"[{ip}]:{port['port']}" if ":" in ip else f"{ip}:{port['port']}" for ip in addresses]
    return [name(obj), some(pairs, 3) if subsets else NONE, created(obj, now)]


def _endpointslice(obj: Object, now: float) -> list[Any]:
    ports = obj.get("ports")
    if not ports:
        shown = "<unset>"
    else:
        shown = some([str(p["port"]) if p.get("port") is not None else "*" for p in ports], 3)
    addresses = [a for endpoint in obj.get("endpoints") or [] for a in endpoint.get("addresses") or []]
    listed = some(addresses, 3) if addresses else "<unset>"
    return [name(obj), obj.get("addressType", ""), shown, listed, created(obj, now)]


def _ingress(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    hosts = [rule["host"] for rule in spec.get("rules") or [] if rule.get("host")]
    ingress = obj.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    address = ",".join(i.get("ip") or i.get("hostname", "") for i in ingress)
    ports = "80, 443" if spec.get("tls") else "80"
    klass = spec.get("ingressClassName") or NONE
    return [name(obj), klass, some(hosts, 3) if hosts else "*", address, ports, created(obj, now)]


def _ingressclass(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    parameters = spec.get("parameters")
    shown = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        shown = f"{parameters['kind']}{group}/{parameters['name']}"
    return [name(obj), spec.get("controller", ""), shown, created(obj, now)]


def _networkpolicy(obj: Object, now: float) -> list[Any]:
    return [name(obj), selector(obj.get("spec", {}).get("podSelector")), created(obj, now)]


def _ipaddress(obj: Object, now: float) -> list[Any]:
    parent = obj.get("spec", {}).get("parentRef") or {}
    group = f".{parent['group']}" if parent.get("group") else ""
    place = f"{parent['namespace']}/" if parent.get("namespace") else ""
    return [
        name(obj),
        f"{parent.get('resource', '')}{group}/{place}{parent.get('name', '')}",
        created(obj, now),
    ]


def _servicecidr(obj: Object, now: float) -> list[Any]:
    return [name(obj), ",".join(obj.get("spec", {}).get("cidrs") or []), created(obj, now)]


COLUMNS = {
    "services": ("Name|Type|Cluster-IP|External-IP|Port(s)|Age|Selector*", _service),
    "endpoints": ("Name|Endpoints|Age", _endpoints),
    "endpointslices.discovery.k8s.io": ("Name|AddressType|Ports|Endpoints|Age", _endpointslice),
    "ingresses.networking.k8s.io": ("Name|Class|Hosts|Address|Ports|Age", _ingress),
    "ingressclasses.networking.k8s.io": ("Name|Controller|Parameters|Age", _ingressclass),
    "networkpolicies.networking.k8s.io": ("Name|Pod-Selector|Age", _networkpolicy),
    "ipaddresses.networking.k8s.io": ("Name|ParentRef|Age", _ipaddress),
    "servicecidrs.networking.k8s.io": ("Name|CIDRs|Age", _servicecidr),
}
