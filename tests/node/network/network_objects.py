"""Services and EndpointSlices as the API server gives them, for tests."""

from __future__ import annotations

from typing import Any


def service(name: str, ip: str = "10.96.1.1", port: int = 80, **spec: Any) -> dict[str, Any]:
    ports = spec.pop("ports", None) or [
        {"port": port, "protocol": spec.pop("protocol", "TCP"), "targetPort": 8080}
        | ({"nodePort": spec.pop("node_port")} if "node_port" in spec else {})
    ]
    ingress = [{"ip": address} for address in spec.pop("ingress", ())]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ipFamilies": ["IPv4"],
            "type": "ClusterIP",
            "ports": ports,
        }
        | spec,
        "status": {"loadBalancer": {"ingress": ingress} if ingress else {}},
    }


def endpoint(address: str, node: str = "", **conditions: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True} | conditions,
    }
    if node:
        result["nodeName"] = node
    return result


def slice_of(
    name: str, *endpoints: dict[str, Any], port: int = 8080, protocol: str = "TCP", port_name: str = ""
) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-abcde",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": port, "protocol": protocol}],
        "endpoints": list(endpoints),
    }
