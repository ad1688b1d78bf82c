"""Defaults of what gives pods names and addresses: Service, Endpoints, EndpointSlice, IngressClass, NetworkPolicy.

Addresses, node ports and address families are not defaults: the server allocates them.
Source: API reference, groups core/v1, discovery.k8s.io/v1, networking.k8s.io/v1.
"""

from __future__ import annotations

from sampan.api.defaults.pod import Json

_STICKY_SECONDS = 3 * 60 * 60


def service(obj: Json) -> None:
    """A targetPort is the port; what only makes sense for some types is set for those alone."""
    spec = obj.setdefault("spec", {})
    affinity = spec.setdefault("sessionAffinity", "None")
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", _STICKY_SECONDS)
    kind = spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port", 0)
    reachable = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if reachable:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for entry in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress", ()):
            if entry.get("ip"):
                entry.setdefault("ipMode", "VIP")


def endpoints(obj: Json) -> None:
    for subset in obj.get("subsets", ()):
        for port in subset.get("ports", ()):
            port.setdefault("protocol", "TCP")


def endpoint_slice(obj: Json) -> None:
    obj.setdefault("endpoints", [])
    obj.setdefault("ports", [])
    for port in obj["ports"]:
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def ingress_class(obj: Json) -> None:
    parameters = (obj.get("spec") or {}).get("parameters")
    if parameters is not None:
        parameters.setdefault("scope", "Cluster")


def network_policy(obj: Json) -> None:
    """Egress counts only if there is a rule for it: an empty list is as good as none."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
        for port in rule.get("ports", ()):
            port.setdefault("protocol", "TCP")
