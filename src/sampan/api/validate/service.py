"""Services. Source: API reference, Service; "Service"; KEP-563 (dual stack)."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    Errors,
    address,
    dns_label,
    dns_subdomain,
    duplicate,
    forbidden_field,
    invalid_value,
    labels,
    network,
    not_supported,
    one_of,
    port_number,
    port_or_name,
    qualified,
    required,
    required_one_of,
    special_address,
    texts,
    too_many,
)
from sampan.api.validate.containers import PROTOCOLS
from sampan.base.objects import Object

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FAMILIES = ("IPv4", "IPv6")
_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
_DAY = 86400
_KUBELET_PORT = 10250
_RANGES_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"


def create(errors: Errors, service: Object) -> None:
    """What a new Service may say; its addresses and ports are given out already. Source: API reference, ServiceSpec v1."""
    spec = service.get("spec") or NONE
    kind = spec.get("type", "")
    headless = spec.get("clusterIP") == "None"
    ports = spec.get("ports") or ()
    if not ports and not headless and kind != "ExternalName":
        errors.append(required("spec.ports"))
    _by_type(errors, spec, kind, headless)
    _ports(errors, ports)
    labels(errors, "spec.selector", spec.get("selector"))
    _affinity(errors, spec)
    _families(errors, spec)
    for index, text in enumerate(spec.get("externalIPs") or ()):
        special_address(errors, f"spec.externalIPs[{index}]", text)
    required_one_of(errors, "spec.type", kind, _TYPES)
    if kind == "ClusterIP":
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                detail = "may not be used when `type` is 'ClusterIP'"
                errors.append(forbidden_field(f"spec.ports[{index}].nodePort", detail))
    _repeated(errors, ports)
    _balancer(errors, service, spec, kind)
    _traffic(errors, spec, kind)


def _by_type(errors: Errors, spec: Object, kind: str, headless: bool) -> None:
    if kind == "LoadBalancer":
        for index, port in enumerate(spec.get("ports") or ()):
            if port.get("port") == _KUBELET_PORT:
                detail = f"may not expose port {_KUBELET_PORT} externally since it is used by kubelet"
                errors.append(invalid_value(f"spec.ports[{index}]", _KUBELET_PORT, detail))
    if kind in ("LoadBalancer", "NodePort") and headless:
        detail = f"may not be set to 'None' for {kind} services"
        errors.append(invalid_value("spec.clusterIPs[0]", "None", detail))
    if kind == "ExternalName":
        if spec.get("clusterIPs"):
            errors.append(forbidden_field("spec.clusterIPs", "may not be set for ExternalName services"))
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if spec.get(field):
                errors.append(forbidden_field(f"spec.{field}", "may not be set for ExternalName services"))
        name = spec.get("externalName", "").removesuffix(".")
        if name:
            dns_subdomain(errors, "spec.externalName", name)
        else:
            errors.append(required("spec.externalName"))


def _ports(errors: Errors, ports: Sequence[Object]) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at, name = f"spec.ports[{index}]", port.get("name", "")
        if not name:
            if len(ports) > 1:
                errors.append(required(f"{at}.name"))
        else:
            dns_label(errors, f"{at}.name", name)
            if name in seen:
                errors.append(duplicate(f"{at}.name", name))
            seen.add(name)
        port_number(errors, f"{at}.port", port.get("port", 0))
        protocol = port.get("protocol", "")
        required_one_of(errors, f"{at}.protocol", protocol, PROTOCOLS)
        port_or_name(errors, f"{at}.targetPort", port.get("targetPort", 0))
        if port.get("appProtocol") is not None:
            qualified(errors, f"{at}.appProtocol", port["appProtocol"])


def _repeated(errors: Errors, ports: Sequence[Object]) -> None:
    """Node ports and service ports are unique by protocol."""
    node_ports: set[tuple[str, int]] = set()
    numbers: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        node = port.get("nodePort")
        if node:
            key = (port.get("protocol", ""), node)
            if key in node_ports:
                errors.append(duplicate(f"spec.ports[{index}].nodePort", node))
            node_ports.add(key)
    for index, port in enumerate(ports):
        protocol, number = port.get("protocol", ""), port.get("port", 0)
        if (protocol, number) in numbers:
            shown = {
                "Name": "",
                "Protocol": protocol,
                "AppProtocol": None,
                "Port": number,
                "TargetPort": 0,
                "NodePort": 0,
            }
            errors.append(duplicate(f"spec.ports[{index}]", shown))
        numbers.add((protocol, number))


def _affinity(errors: Errors, spec: Object) -> None:
    kind, config = spec.get("sessionAffinity", ""), spec.get("sessionAffinityConfig")
    required_one_of(errors, "spec.sessionAffinity", kind, ("ClientIP", "None"))
    at = "spec.sessionAffinityConfig"
    if kind == "ClientIP":
        client = (config or NONE).get("clientIP")
        seconds = (client or NONE).get("timeoutSeconds")
        if config is None:
            errors.append(required(at, f"when session affinity type is {kind}"))
        elif client is None:
            errors.append(required(f"{at}.clientIP", f"when session affinity type is {kind}"))
        elif seconds is None:
            errors.append(required(f"{at}.clientIP.timeoutSeconds", f"when session affinity type is {kind}"))
        elif not 0 < seconds <= _DAY:
            detail = f"must be greater than 0 and less than {_DAY}"
            errors.append(invalid_value(f"{at}.clientIP.timeoutSeconds", seconds, detail))
    elif kind == "None" and config is not None:
        errors.append(forbidden_field(at, "must not be set when session affinity is None"))


def _families(errors: Errors, spec: Object) -> None:
    """clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy agree."""
    if spec.get("type") == "ExternalName":
        return
    first, given = spec.get("clusterIP", ""), list(spec.get("clusterIPs") or [])
    if first and not given:
        errors.append(required("spec.clusterIPs"))
    elif first and given[0] != first:
        errors.append(invalid_value("spec.clusterIPs", given, "first value must match `clusterIP`"))
    elif given and not first:
        detail = "must be empty when `clusterIP` is not specified"
        errors.append(invalid_value("spec.clusterIPs", list(given), detail))
    families = spec.get("ipFamilies") or ()
    for index, family in enumerate(families):
        if family not in _FAMILIES:
            errors.append(not_supported(f"spec.ipFamilies[{index}]", family, _FAMILIES))
        elif family in families[:index]:
            errors.append(duplicate(f"spec.ipFamilies[{index}]", family))
    if spec.get("ipFamilyPolicy") is not None:
        one_of(errors, "spec.ipFamilyPolicy", spec["ipFamilyPolicy"], _POLICIES)
    for index, text in enumerate(given):
        _cluster_address(errors, text, given, families, index)
    if len(given) > 2:
        errors.append(too_many("spec.clusterIPs", len(given), 2))


def _cluster_address(
    errors: Errors, text: str, given: Sequence[str], families: Sequence[str], index: int
) -> None:
    at = f"spec.clusterIPs[{index}]"
    if text == "None":
        if index or len(given) > 1:
            errors.append(invalid_value(at, text, "'None' must be the first and only value"))
        return
    found = address(text)
    if found is None:
        errors.append(
            invalid_value(at, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        )
        return
    if text in given[:index]:
        errors.append(duplicate(at, text))
    if index < len(families) and families[index] in _FAMILIES and families[index] != f"IPv{found.version}":
        detail = f"expected an {families[index]} value as indicated by `ipFamilies[{index}]`"
        errors.append(invalid_value(at, text, detail))


def _balancer(errors: Errors, service: Object, spec: Object, kind: str) -> None:
    note = (service["metadata"].get("annotations") or NONE).get(_RANGES_ANNOTATION)
    ranges = spec.get("loadBalancerSourceRanges")
    if ranges:
        if kind != "LoadBalancer":
            detail = "may only be used when `type` is 'LoadBalancer'"
            errors.append(forbidden_field("spec.LoadBalancerSourceRanges", detail))
        for index, text in enumerate(ranges):
            if network(text.strip()) is None:
                detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                errors.append(invalid_value(f"spec.LoadBalancerSourceRanges[{index}]", text, detail))
    elif note and kind != "LoadBalancer":
        path = f"metadata.annotations[{_RANGES_ANNOTATION}]"
        errors.append(forbidden_field(path, "may only be used when `type` is 'LoadBalancer'"))
    ports = spec.get("allocateLoadBalancerNodePorts")
    if kind == "LoadBalancer":
        if ports is None:
            errors.append(required("spec.allocateLoadBalancerNodePorts"))
    elif ports is not None:
        detail = "may only be used when `type` is 'LoadBalancer'"
        errors.append(forbidden_field("spec.allocateLoadBalancerNodePorts", detail))
    chosen = spec.get("loadBalancerClass")
    if chosen is not None:
        if kind != "LoadBalancer":
            detail = "may only be used when `type` is 'LoadBalancer'"
            errors.append(forbidden_field("spec.loadBalancerClass", detail))
        texts(errors, "spec.loadBalancerClass", chosen, names.qualified_name)


def _traffic(errors: Errors, spec: Object, kind: str) -> None:
    """Source: "Virtual IPs and Service Proxies", traffic policies."""
    outer, port = spec.get("externalTrafficPolicy", ""), spec.get("healthCheckNodePort", 0)
    reachable = kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and spec.get("externalIPs"))
    at = "spec.externalTrafficPolicy"
    if not reachable:
        if outer:
            errors.append(invalid_value(at, outer, "may only be set for externally-accessible services"))
    elif not outer:
        errors.append(required(at))
    else:
        one_of(errors, at, outer, ("Cluster", "Local"))
    if kind == "LoadBalancer" and outer == "Local":
        if not port:
            errors.append(required("spec.healthCheckNodePort"))
        else:
            port_number(errors, "spec.healthCheckNodePort", port)
    elif port:
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(invalid_value("spec.healthCheckNodePort", port, detail))
    inner = spec.get("internalTrafficPolicy")
    if inner is not None:
        one_of(errors, "spec.internalTrafficPolicy", inner, ("Cluster", "Local"))
    elif kind in ("ClusterIP", "LoadBalancer", "NodePort"):
        errors.append(required("spec.internalTrafficPolicy"))
    spread = spec.get("trafficDistribution")
    if spread is not None:
        allowed = ("PreferClose", "PreferSameNode", "PreferSameZone")
        one_of(errors, "spec.trafficDistribution", spread, allowed)


def update(errors: Errors, new: Object, old: Object) -> None:
    """A cluster address once given stays, as long as the type has one."""
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    kinds = (after.get("type"), before.get("type"))
    if "ExternalName" not in kinds:
        _fixed_addresses(errors, after, before)
    if kinds == ("LoadBalancer", "LoadBalancer"):
        chosen = after.get("loadBalancerClass")
        if chosen != before.get("loadBalancerClass"):
            errors.append(invalid_value("spec.loadBalancerClass", chosen, "may not change once set"))
    create(errors, new)


def _fixed_addresses(errors: Errors, after: Object, before: Object) -> None:
    new, old = list(after.get("clusterIPs") or ()), before.get("clusterIPs") or ()
    if not old:
        return
    if not new:
        errors.append(invalid_value("spec.clusterIPs[0]", new, "primary clusterIP can not be unset"))
    elif new[0] != old[0]:
        errors.append(invalid_value("spec.clusterIPs[0]", new, "may not change once set"))
    if len(new) > 1 and len(old) > 1 and new[1] != old[1]:
        errors.append(invalid_value("spec.clusterIPs[1]", new, "may not change once set"))


def status(errors: Errors, new: Object, old: Object) -> None:
    """Where a balancer answers. Source: LoadBalancerStatus."""
    balancer = (new.get("status") or NONE).get("loadBalancer") or NONE
    if balancer.get("ingress") and (new.get("spec") or NONE).get("type") != "LoadBalancer":
        detail = 'may only be used when `spec.type` is "LoadBalancer"'
        errors.append(forbidden_field("status.loadBalancer.ingress", detail))
    balancer_status(errors, balancer, "status.loadBalancer")


def balancer_status(errors: Errors, balancer: Object, path: str) -> None:
    """What a load balancer says of itself, here and for an Ingress. `ipMode` needs an address (KEP-1860)."""
    for index, entry in enumerate(balancer.get("ingress") or ()):
        at = f"{path}.ingress[{index}]"
        text, host = entry.get("ip", ""), entry.get("hostname", "")
        if text and address(text) is None:
            errors.append(
                invalid_value(
                    f"{at}.ip", text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                )
            )
        mode = entry.get("ipMode")
        if mode is not None and not text:
            errors.append(forbidden_field(f"{at}.ipMode", "may not be specified when `ip` is not set"))
        elif mode is not None:
            one_of(errors, f"{at}.ipMode", mode, ("Proxy", "VIP"))
        if host:
            dns_subdomain(errors, f"{at}.hostname", host)
            if address(host) is not None:
                detail = "must be a DNS name, not an IP address"
                errors.append(invalid_value(f"{at}.hostname", host, detail))
