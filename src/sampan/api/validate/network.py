"""Ingresses, network policies, endpoints and their slices. Source: API reference, networking.k8s.io, discovery.k8s.io."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    VALID_ADDRESS,
    Errors,
    address,
    dns_label,
    dns_subdomain,
    duplicate,
    forbidden_field,
    immutable,
    invalid_value,
    label_selector,
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
from sampan.api.validate.service import balancer_status
from sampan.base.objects import Object

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDS = ("/..", "/.")
_CLASS_NOTE = "kubernetes.io/ingress.class"


# Ingress


def ingress(errors: Errors, obj: Object) -> None:
    """A class is named in one way. Source: API reference, IngressSpec v1."""
    spec = obj.get("spec") or NONE
    note = (obj["metadata"].get("annotations") or NONE).get(_CLASS_NOTE)
    if note and spec.get("ingressClassName") is not None:
        detail = "can not be set when the class field is also set"
        errors.append(invalid_value(f"annotations.{_CLASS_NOTE}", note, detail))
    _ingress_spec(errors, spec)


def ingress_update(errors: Errors, new: Object, old: Object) -> None:
    _ingress_spec(errors, new.get("spec") or NONE)


def _ingress_spec(errors: Errors, spec: Object) -> None:
    rules, default = spec.get("rules") or (), spec.get("defaultBackend")
    if not rules and default is None:
        detail = "either `defaultBackend` or `rules` must be specified"
        errors.append(invalid_value("spec", spec.get("rules"), detail))
    if default is not None:
        _backend(errors, default, "spec.defaultBackend")
    for index, rule in enumerate(rules):
        _rule(errors, rule, f"spec.rules[{index}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        at = f"spec.tls[{index}]"
        for number, host in enumerate(tls.get("hosts") or ()):
            _host(errors, host, f"{at}.hosts[{number}]")
        if tls.get("secretName"):
            dns_subdomain(errors, f"{at}.secretName", tls["secretName"])
    if spec.get("ingressClassName") is not None:
        dns_subdomain(errors, "spec.ingressClassName", spec["ingressClassName"])


def _host(errors: Errors, host: str, path: str) -> None:
    if "*" in host:
        texts(errors, path, host, names.wildcard_subdomain)
    else:
        dns_subdomain(errors, path, host)


def _rule(errors: Errors, rule: Object, path: str) -> None:
    host = rule.get("host", "")
    if host:
        if address(host) is not None:
            errors.append(invalid_value(f"{path}.host", host, "must be a DNS name, not an IP address"))
        else:
            _host(errors, host, f"{path}.host")
    http = rule.get("http")
    if http is None:
        return
    if not http.get("paths"):
        errors.append(required(f"{path}.http.paths"))
    for index, entry in enumerate(http.get("paths") or ()):
        at = f"{path}.http.paths[{index}]"
        _path(errors, entry, at)
        _backend(errors, entry.get("backend") or NONE, f"{at}.backend")


def _path(errors: Errors, entry: Object, path: str) -> None:
    kind, text = entry.get("pathType"), entry.get("path", "")
    if kind is None:
        errors.append(required(f"{path}.pathType", "pathType must be specified"))
        return
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            errors.append(invalid_value(f"{path}.path", text, "must be an absolute path"))
        if text:
            for bad in _BAD_PATHS:
                if bad in text:
                    errors.append(invalid_value(f"{path}.path", text, f"must not contain '{bad}'"))
            for bad in _BAD_ENDS:
                if text.endswith(bad):
                    errors.append(invalid_value(f"{path}.path", text, f"cannot end with '{bad}'"))
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            errors.append(invalid_value(f"{path}.path", text, "must be an absolute path"))
    else:
        errors.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))


def _backend(errors: Errors, backend: Object, path: str) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return errors.append(invalid_value(path, "", "cannot set both resource and service backends"))
    if resource is not None:
        for field in ("kind", "name"):
            if not resource.get(field):
                errors.append(required(f"{path}.resource.{field}"))
        return None
    if service is None:
        return errors.append(required(path, "resource or service backend is required"))
    name, port = service.get("name", ""), service.get("port") or NONE
    if not name:
        errors.append(required(f"{path}.service.name"))
    else:
        dns_label(errors, f"{path}.service.name", name)
    label, number = port.get("name", ""), port.get("number", 0)
    if label and number:
        errors.append(invalid_value(path, "", "cannot set both port name & port number"))
    elif label:
        texts(errors, f"{path}.service.port.name", label, names.port_name)
    elif number:
        port_number(errors, f"{path}.service.port.number", number)
    else:
        errors.append(required(path, "port name or number is required"))
    return None


def ingress_status(errors: Errors, new: Object, old: Object) -> None:
    balancer_status(errors, (new.get("status") or NONE).get("loadBalancer") or NONE, "status.loadBalancer")


def ingress_class(errors: Errors, obj: Object) -> None:
    """Its parameters name a namespace if, and only if, they say that their scope is one. Source: IngressClassSpec v1."""
    spec = obj.get("spec") or NONE
    controller, parameters = spec.get("controller", ""), spec.get("parameters")
    if len(controller) > 250:
        errors.append(
            invalid_value("spec.controller", controller, "Too long: may not be more than 250 bytes")
        )
    elif not controller:
        errors.append(required("spec.controller"))
    else:
        _domain_path(errors, controller, "spec.controller")
    if parameters is None:
        return
    for field in ("kind", "name"):
        if not parameters.get(field):
            errors.append(required(f"spec.parameters.{field}"))
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errors.append(required("spec.parameters.scope"))
        return
    one_of(errors, "spec.parameters.scope", scope, ("Cluster", "Namespace"))
    if scope == "Namespace" and not namespace:
        detail = "`parameters.scope` is set to 'Namespace'"
        errors.append(required("spec.parameters.namespace", detail))
    elif scope == "Cluster" and namespace is not None:
        detail = "`parameters.scope` is set to 'Cluster'"
        errors.append(forbidden_field("spec.parameters.namespace", detail))


def _domain_path(errors: Errors, text: str, path: str) -> None:
    domain, slash, rest = text.partition("/")
    if not slash or not domain or not rest:
        detail = 'must be a domain-prefixed path (such as "acme.io/foo")'
        errors.append(invalid_value(path, text, detail))
        return
    dns_subdomain(errors, path, domain)


def ingress_class_update(errors: Errors, new: Object, old: Object) -> None:
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    ingress_class(errors, new)
    immutable(errors, "spec.controller", after.get("controller", ""), before.get("controller", ""))


# NetworkPolicy


def network_policy(errors: Errors, obj: Object) -> None:
    """Source: API reference, NetworkPolicySpec v1."""
    spec = obj.get("spec") or NONE
    label_selector(errors, "spec.podSelector", spec.get("podSelector"))
    for way, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(way) or ()):
            at = f"spec.{way}[{index}]"
            for number, port in enumerate(rule.get("ports") or ()):
                _policy_port(errors, port, f"{at}.ports[{number}]")
            for number, peer in enumerate(rule.get(side) or ()):
                _peer(errors, peer, f"{at}.{side}[{number}]")
    types = spec.get("policyTypes") or ()
    if len(types) > 2:
        detail = "may not specify more than two policyTypes"
        errors.append(invalid_value("spec.policyTypes", list(types), detail))
        return
    for index, kind in enumerate(types):
        if kind not in ("Ingress", "Egress"):
            errors.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Ingress", "Egress")))


def _policy_port(errors: Errors, port: Object, path: str) -> None:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in ("TCP", "UDP", "SCTP"):
        errors.append(not_supported(f"{path}.protocol", protocol, ("TCP", "UDP", "SCTP")))
    if number is None:
        if end is not None:
            errors.append(required(f"{path}.port", "must be specified when `endPort` is specified"))
        return
    port_or_name(errors, f"{path}.port", number)
    if end is None:
        return
    if isinstance(number, str):
        errors.append(
            invalid_value(f"{path}.endPort", end, "may not be specified when `port` is non-numeric")
        )
        return
    if end < number:
        errors.append(invalid_value(f"{path}.endPort", end, "must be greater than or equal to `port`"))
    port_number(errors, f"{path}.endPort", end)


def _peer(errors: Errors, peer: Object, path: str) -> None:
    block = peer.get("ipBlock")
    count = 0
    for field in ("podSelector", "namespaceSelector"):
        if peer.get(field) is not None:
            count += 1
            label_selector(errors, f"{path}.{field}", peer[field])
    if block is not None:
        count += 1
        _block(errors, block, f"{path}.ipBlock")
    if not count:
        errors.append(required(path, "must specify a peer"))
    elif count > 1 and block is not None:
        errors.append(forbidden_field(path, "may not specify both ipBlock and another peer"))


_VALID_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def _block(errors: Errors, block: Object, path: str) -> None:
    text = block.get("cidr", "")
    if not text:
        errors.append(required(f"{path}.cidr"))
        return
    whole = network(text)
    if whole is None:
        errors.append(invalid_value(f"{path}.cidr", text, _VALID_CIDR))
        return
    for index, hole in enumerate(block.get("except") or ()):
        at, part = f"{path}.except[{index}]", network(hole)
        if part is None:
            errors.append(invalid_value(at, hole, _VALID_CIDR))
        elif part.version != whole.version or not (whole.supernet_of(part) and part != whole):  # type: ignore[arg-type]
            errors.append(invalid_value(at, hole, "must be a strict subset of `cidr`"))


def network_policy_update(errors: Errors, new: Object, old: Object) -> None:
    network_policy(errors, new)


# Endpoints


def endpoints(errors: Errors, obj: Object) -> None:
    """A subset has addresses; of several ports each has a name. Source: API reference, Endpoints v1."""
    for index, subset in enumerate(obj.get("subsets") or ()):
        at = f"subsets[{index}]"
        ready, waiting = subset.get("addresses") or (), subset.get("notReadyAddresses") or ()
        if not ready and not waiting:
            errors.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for field, given in (("addresses", ready), ("notReadyAddresses", waiting)):
            for number, entry in enumerate(given):
                _endpoint_address(errors, entry, f"{at}.{field}[{number}]")
        ports = subset.get("ports") or ()
        for number, port in enumerate(ports):
            _endpoint_port(errors, port, len(ports) > 1, f"{at}.ports[{number}]")


def _endpoint_address(errors: Errors, entry: Object, path: str) -> None:
    text = entry.get("ip", "")
    if address(text) is None:
        errors.append(invalid_value(f"{path}.ip", text, VALID_ADDRESS))
    if entry.get("hostname"):
        dns_label(errors, f"{path}.hostname", entry["hostname"])
    if entry.get("nodeName") is not None:
        dns_subdomain(errors, f"{path}.nodeName", entry["nodeName"])
    if address(text) is not None:
        special_address(errors, f"{path}.ip", text)


def _endpoint_port(errors: Errors, port: Object, named: bool, path: str) -> None:
    name = port.get("name", "")
    if name:
        dns_label(errors, f"{path}.name", name)
    elif named:
        errors.append(required(f"{path}.name"))
    port_number(errors, f"{path}.port", port.get("port", 0))
    protocol = port.get("protocol", "")
    required_one_of(errors, f"{path}.protocol", protocol, ("SCTP", "TCP", "UDP"))
    if port.get("appProtocol") is not None:
        qualified(errors, f"{path}.appProtocol", port["appProtocol"])


def endpoints_update(errors: Errors, new: Object, old: Object) -> None:
    if new.get("subsets") != old.get("subsets"):
        endpoints(errors, new)


# EndpointSlice

_MOST_ENDPOINTS, _MOST_PORTS, _MOST_ADDRESSES = 1000, 20000, 100
_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")


def endpoint_slice(errors: Errors, obj: Object) -> None:
    """Source: API reference, EndpointSlice v1."""
    kind = obj.get("addressType", "")
    required_one_of(errors, "addressType", kind, _ADDRESS_TYPES)
    _slice_endpoints(errors, obj.get("endpoints") or (), kind)
    _slice_ports(errors, obj.get("ports") or ())


def _slice_endpoints(errors: Errors, given: Sequence[Object], kind: str) -> None:
    if len(given) > _MOST_ENDPOINTS:
        errors.append(too_many("endpoints", len(given), _MOST_ENDPOINTS))
        return
    for index, endpoint in enumerate(given):
        at, texts_given = f"endpoints[{index}]", endpoint.get("addresses") or ()
        if not texts_given:
            errors.append(required(f"{at}.addresses", "must contain at least 1 address"))
        elif len(texts_given) > _MOST_ADDRESSES:
            errors.append(too_many(f"{at}.addresses", len(texts_given), _MOST_ADDRESSES))
        for number, text in enumerate(texts_given):
            _slice_address(errors, text, kind, f"{at}.addresses[{number}]")
        if endpoint.get("nodeName") is not None:
            dns_subdomain(errors, f"{at}.nodeName", endpoint["nodeName"])
        labels(errors, f"{at}.deprecatedTopology", endpoint.get("deprecatedTopology"))
        if endpoint.get("hostname") is not None:
            dns_label(errors, f"{at}.hostname", endpoint["hostname"])


def _slice_address(errors: Errors, text: str, kind: str, path: str) -> None:
    if kind == "FQDN":
        dns_subdomain(errors, path, text)
        return
    found = address(text)
    if kind in ("IPv4", "IPv6"):
        wanted = ipaddress.IPv4Address if kind == "IPv4" else ipaddress.IPv6Address
        if not isinstance(found, wanted):
            sample = "IPv4" if kind == "IPv4" else "IPv6"
            errors.append(invalid_value(path, text, f"must be a valid {sample} address"))
            return
        special_address(errors, path, text)


def _slice_ports(errors: Errors, given: Sequence[Object]) -> None:
    if len(given) > _MOST_PORTS:
        errors.append(too_many("ports", len(given), _MOST_PORTS))
        return
    seen: set[str] = set()
    for index, port in enumerate(given):
        at, name = f"ports[{index}]", port.get("name") or ""
        if name:
            dns_label(errors, f"{at}.name", name)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        protocol = port.get("protocol")
        if protocol is None:
            errors.append(required(f"{at}.protocol"))
        else:
            one_of(errors, f"{at}.protocol", protocol, ("SCTP", "TCP", "UDP"))
        if port.get("port") is not None:
            port_number(errors, f"{at}.port", port["port"])
        if port.get("appProtocol") is not None:
            qualified(errors, f"{at}.appProtocol", port["appProtocol"])


def endpoint_slice_update(errors: Errors, new: Object, old: Object) -> None:
    endpoint_slice(errors, new)
    immutable(errors, "addressType", new.get("addressType"), old.get("addressType"))


# ServiceCIDR and IPAddress


def service_cidr(errors: Errors, obj: Object) -> None:
    """One range for each IP family at most. Source: API reference, ServiceCIDRSpec v1; KEP-1880."""
    given = (obj.get("spec") or NONE).get("cidrs") or ()
    if not given:
        errors.append(required("spec.cidrs", "at least one CIDR required"))
    if len(given) > 2:
        errors.append(invalid_value("spec", obj.get("spec"), "may only hold up to 2 values"))
    families = set()
    for index, text in enumerate(given):
        block = network(text)
        if block is None:
            errors.append(invalid_value(f"spec.cidrs[{index}]", text, _VALID_CIDR))
            continue
        if block.version in families:
            detail = (
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            )
            errors.append(invalid_value("spec", obj.get("spec"), detail))
        families.add(block.version)


def service_cidr_update(errors: Errors, new: Object, old: Object) -> None:
    """A range of the other IP family may be added (KEP-1880)."""
    after = (new.get("spec") or NONE).get("cidrs") or []
    before = (old.get("spec") or NONE).get("cidrs") or []
    if after[: len(before)] != before:
        immutable(errors, "spec.cidrs", after, before)


def address_name(text: str) -> list[str]:
    """An IPAddress is called by the address, in its canonical form."""
    found = address(text)
    if found is None:
        return [VALID_ADDRESS]
    return [] if str(found) == text else [f'must be in canonical form ("{found}")']


def ip_address(errors: Errors, obj: Object) -> None:
    """It says whose address it is. Source: API reference, IPAddressSpec v1; KEP-1880."""
    parent = (obj.get("spec") or NONE).get("parentRef")
    if parent is None:
        errors.append(required("spec.parentRef"))
        return
    for field in ("resource", "name"):
        if not parent.get(field):
            errors.append(required(f"spec.parentRef.{field}"))


def ip_address_update(errors: Errors, new: Object, old: Object) -> None:
    after, before = (new.get("spec") or NONE).get("parentRef"), (old.get("spec") or NONE).get("parentRef")
    immutable(errors, "spec.parentRef", after, before)
