"""Addresses and ports of Services: what is taken is read from the Services themselves, writes on their way included.

The server calls `prepare_service` just before the append, with no await between, so nothing has to be reserved or
given back. Dynamic allocation begins in the upper part of a range; the lower part is left to those who choose
themselves. Sources: API reference, ServiceSpec; KEP-3070 (static part of the address range), KEP-3668 (of the ports).
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sampan.api.status import ApiError, FieldError, invalid, show
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.server.lookup import Lookup

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_EXTERNAL, _NODE_PORT, _BALANCER = "ExternalName", "NodePort", "LoadBalancer"
_REQUIRE_DUAL = "RequireDualStack"
_CIDRS = "servicecidrs.networking.k8s.io"
_MOST_ADDRESSES = 1 << 16  # of an IPv6 range, as many as the original hands out


class Range:
    """Numbers in [first, last]; dynamic ones come from the upper part while it lasts."""

    def __init__(self, first: int, last: int, static: int) -> None:
        self.first = first
        self.last = last
        self._middle = min(first + static, last + 1)

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last

    def pick(self, taken: set[int], ids: Ids) -> int | None:
        """A free number by chance, None when there is none."""
        for low, high in ((self._middle, self.last), (self.first, self._middle - 1)):
            size = high - low + 1
            if size <= 0:
                continue
            start = ids.choice(size)
            for step in range(size):
                number = low + (start + step) % size
                if number not in taken:
                    return number
        return None


def _address_range(network: Network) -> Range:
    """All but the network's own and, for IPv4, the broadcast address."""
    first = int(network.network_address) + 1
    size = min(network.num_addresses, _MOST_ADDRESSES)
    last = first + size - (3 if network.version == 4 else 2)
    return Range(first, last, min(max(16, size // 16), 256) if size > 16 else 0)


@functools.lru_cache(maxsize=256)
def _added(text: str, version: int) -> Range | None:
    """A ServiceCIDR's range, if it is of this family."""
    network = ipaddress.ip_network(text)
    return _address_range(network) if network.version == version else None


class _Taken:
    """What the stored Services hold: addresses by family and ports, each with the key of its Service."""

    __slots__ = ("addresses", "ports")

    def __init__(self) -> None:
        self.addresses: dict[int, dict[int, str]] = {4: {}, 6: {}}
        self.ports: dict[int, str] = {}


class Allocators:
    """One for a server. `cidrs` are one range, or one of each family, the first being the default family."""

    def __init__(
        self,
        lookup: Lookup,
        ids: Ids,
        *,
        cidrs: Sequence[str] = ("10.96.0.0/16",),
        node_ports: tuple[int, int] = (30000, 32767),
    ) -> None:
        self._lookup = lookup
        self._ids = ids
        self._networks: dict[int, Network] = {}
        for text in cidrs:
            network = ipaddress.ip_network(text)
            self._networks[network.version] = network
        self._ranges = {version: _address_range(network) for version, network in self._networks.items()}
        first, last = node_ports
        size = last - first + 1
        self._ports = Range(first, last, min(max(16, size // 32), 128) if size > 32 else 0)
        self._held: dict[str, tuple[int, tuple[tuple[int, int], ...], tuple[int, ...]]] = {}

    def address(self, offset: int, version: int = 0) -> str:
        """The address this far into the range: 1 is the API's own, 10 the cluster DNS."""
        network = self._networks[version] if version else next(iter(self._networks.values()))
        return str(network.network_address + offset)

    # What is taken

    def _taken(self, but: str) -> _Taken:
        """By all Services except the one with the key `but`."""
        taken = _Taken()
        fresh: dict[str, tuple[int, tuple[tuple[int, int], ...], tuple[int, ...]]] = {}
        for item in self._lookup.current("services"):
            held = self._held.get(item.key)
            if held is None or held[0] != item.revision:
                held = (item.revision, *_holdings(self._lookup.decode("services", item)))
            fresh[item.key] = held
            if item.key == but:
                continue
            for version, number in held[1]:
                taken.addresses[version][number] = item.key
            for port in held[2]:
                taken.ports[port] = item.key
        self._held = fresh
        return taken

    # What the server calls

    def prepare_service(
        self, service: Object, old: Object | None = None, *, dry_run: bool = False
    ) -> Callable[[], None]:
        """Fill in clusterIP(s), ipFamilies, ipFamilyPolicy, nodePorts and healthCheckNodePort, in place.

        `old` is the stored Service of an update; what the writer left out of an unchanged kind is kept from it, what
        belongs to another type is dropped. Raises 422 when what is asked for is taken or out of range. Returns what
        to call when the write failed; since nothing is reserved that does nothing.
        """
        spec = service.setdefault("spec", {})
        before = (old or {}).get("spec") or {}
        if old is not None:
            _keep(spec, before)
            _drop(spec, before)
            if _exchanged(spec, before):
                return _nothing  # validation refuses that
        if spec.get("type", "ClusterIP") == _EXTERNAL:
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            return _nothing
        meta = service["metadata"]
        taken = self._taken(f"{meta.get('namespace', '')}/{meta.get('name', '')}")
        self._families(service, spec)
        self._addresses(service, spec, taken)
        self._node_ports(service, spec, taken)
        self._health_port(service, spec, taken)
        return _nothing

    allocate = prepare_service

    def release(self, service: Object) -> None:
        """A Service is gone; its address is free as soon as the store says so."""

    # Families

    def _families(self, service: Object, spec: Object) -> None:
        """ipFamilyPolicy and ipFamilies ("IPv4/IPv6 dual-stack"); headless without selector is free to have both."""
        default, both = next(iter(self._networks)), len(self._networks) == 2
        loose = _headless(spec) and not spec.get("selector")
        given = [v for v in map(_version, spec.get("clusterIPs") or ()) if v]
        families = [int(f[-1]) for f in spec.get("ipFamilies") or ()]
        policy = spec.get("ipFamilyPolicy")
        if policy is None:
            dual = loose or len(given) == 2 or len(families) == 2
            policy = spec["ipFamilyPolicy"] = _REQUIRE_DUAL if dual else "SingleStack"
        errors = []
        if policy == _REQUIRE_DUAL and not both and not loose:
            why = "this cluster is not configured for dual-stack services"
            errors.append(_invalid("spec.ipFamilyPolicy", policy, why))
        for number, family in enumerate(families):
            if family not in self._networks and not loose:
                field = f"spec.ipFamilies[{number}]"
                errors.append(_invalid(field, f"IPv{family}", "not configured on this cluster"))
        if errors:
            raise _refuse(service, errors)
        families = families or given or [default]
        if policy == "SingleStack":
            families = families[:1]
        elif len(families) == 1 and (both or loose):
            families.append(6 if families[0] == 4 else 4)
        spec["ipFamilies"] = [f"IPv{f}" for f in families]

    # Addresses

    def _addresses(self, service: Object, spec: Object, taken: _Taken) -> None:
        if _headless(spec):
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return
        ips = list(spec.get("clusterIPs") or ())
        if not ips and spec.get("clusterIP"):
            ips = [spec["clusterIP"]]
        families = [int(f[-1]) for f in spec["ipFamilies"]]
        chosen: list[str] = []
        for number, family in enumerate(families):
            wanted = ips[number] if number < len(ips) else ""
            if wanted:
                self._check_address(service, ips, wanted, taken)
                chosen.append(wanted)
            else:
                chosen.append(self._pick_address(family, taken))
        spec["clusterIP"], spec["clusterIPs"] = chosen[0], chosen

    def _bounds(self, version: int) -> list[Range]:
        """The cluster's own range, then those of ServiceCIDRs that somebody added (KEP-1880)."""
        own = self._ranges.get(version)
        added = [
            found
            for cidr in self._lookup.list(_CIDRS)
            if not cidr["metadata"].get("deletionTimestamp")
            for text in cidr["spec"]["cidrs"]
            if (found := _added(text, version)) and (own is None or found.first != own.first)
        ]
        return [own, *added] if own else added

    def _check_address(self, service: Object, ips: list[str], wanted: str, taken: _Taken) -> None:
        version = _version(wanted)
        if not version:
            return  # validation says that it is no address
        number = int(ipaddress.ip_address(wanted))
        if not any(number in bounds for bounds in self._bounds(version)):
            network = self._networks.get(version)
            why = f"the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {network}"
        elif number in taken.addresses[version]:
            why = "provided IP is already allocated"
        else:
            return
        raise _refuse(service, [_invalid("spec.clusterIPs", ips, f"failed to allocate IP {wanted}: {why}")])

    def _pick_address(self, family: int, taken: _Taken) -> str:
        held = set(taken.addresses[family])
        tries = (bounds.pick(held, self._ids) for bounds in self._bounds(family))
        number = next((found for found in tries if found is not None), None)
        if number is None:
            why = "failed to allocate a serviceIP: range is full"
            raise ApiError(
                500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]}
            )
        return str(ipaddress.ip_address(number) if family == 4 else ipaddress.IPv6Address(number))

    # Ports

    def _node_ports(self, service: Object, spec: Object, taken: _Taken) -> None:
        kind = spec.get("type", "ClusterIP")
        if kind not in (_NODE_PORT, _BALANCER):
            return
        wants = kind == _NODE_PORT or spec.get("allocateLoadBalancerNodePorts") is not False
        ports = spec.get("ports") or []
        own: dict[int, set[str]] = {}  # node port -> protocols it serves here
        for number, port in enumerate(ports):
            if port.get("nodePort"):
                field = f"spec.ports[{number}].nodePort"
                self._check_port(service, field, port["nodePort"], taken)
                own.setdefault(port["nodePort"], set()).add(port.get("protocol", "TCP"))
        for port in ports:
            if port.get("nodePort") or not wants:
                continue
            found = _shared(ports, port, own) or self._pick_port(set(taken.ports) | set(own))
            port["nodePort"] = found
            own.setdefault(found, set()).add(port.get("protocol", "TCP"))

    def _health_port(self, service: Object, spec: Object, taken: _Taken) -> None:
        """A balancer that keeps traffic on its node asks each node for its health at a port of its own."""
        if spec.get("type") != _BALANCER or spec.get("externalTrafficPolicy") != "Local":
            return
        if spec.get("healthCheckNodePort"):
            self._check_port(service, "spec.healthCheckNodePort", spec["healthCheckNodePort"], taken)
            return
        own = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
        spec["healthCheckNodePort"] = self._pick_port(set(taken.ports) | own)

    def _check_port(self, service: Object, field: str, wanted: int, taken: _Taken) -> None:
        if wanted not in self._ports:
            bounds = f"{self._ports.first}-{self._ports.last}"
            why = f"provided port is not in the valid range. The range of valid ports is {bounds}"
        elif wanted in taken.ports:
            why = "provided port is already allocated"
        else:
            return
        raise _refuse(service, [_invalid(field, wanted, why)])

    def _pick_port(self, taken: Iterable[int]) -> int:
        found = self._ports.pick(set(taken), self._ids)
        if found is None:
            why = "failed to allocate a nodePort: range is full"
            raise ApiError(
                500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]}
            )
        return found


def _nothing() -> None:
    """What to do when a write failed: the next one reads what is taken anew."""


def _holdings(service: Object) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """The addresses (family, number) and node ports of a stored Service."""
    spec = service.get("spec") or {}
    addresses = []
    for ip in spec.get("clusterIPs") or [spec.get("clusterIP", "")]:
        version = _version(ip)
        if version:
            addresses.append((version, int(ipaddress.ip_address(ip))))
    ports = [p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        ports.append(spec["healthCheckNodePort"])
    return tuple(addresses), tuple(ports)


def _version(ip: str) -> int:
    """4 or 6; 0 for "None", "" and what is no address."""
    try:
        return ipaddress.ip_address(ip).version
    except ValueError:
        return 0


def _headless(spec: Object) -> bool:
    return spec.get("clusterIP") == "None" or (spec.get("clusterIPs") or [""])[0] == "None"


def _shared(ports: list[Object], port: Object, own: dict[int, set[str]]) -> int:
    """The node port that the same port has under another protocol (DNS over TCP and UDP), 0 for none."""
    for other in ports:
        found = other.get("nodePort")
        if (
            found
            and other.get("port") == port.get("port")
            and port.get("protocol", "TCP") not in own.get(found, ())
        ):
            return int(found)
    return 0


def _keep(spec: Object, before: Object) -> None:
    """What a writer leaves out of an update stays as it was, if it still means something."""
    kind, was = spec.get("type", "ClusterIP"), before.get("type", "ClusterIP")
    if kind != _EXTERNAL and was != _EXTERNAL:
        old_first, new_first = before.get("clusterIP"), spec.get("clusterIP")
        if (
            old_first
            and new_first
            and new_first != old_first
            and spec.get("clusterIPs") == before.get("clusterIPs")
        ):
            spec["clusterIPs"] = [new_first]  # the list follows the single field of older clients
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
            if not spec.get("clusterIPs"):
                spec["clusterIPs"] = list(before.get("clusterIPs") or [before["clusterIP"]])
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(field) and before.get(field):
                spec[field] = before[field]
    if kind in (_NODE_PORT, _BALANCER) and was in (_NODE_PORT, _BALANCER):
        known = {
            (p.get("protocol", "TCP"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()
        }
        used = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
        for port in spec.get("ports") or ():
            former = known.get((port.get("protocol", "TCP"), port.get("port")))
            if not port.get("nodePort") and former and former not in used:
                port["nodePort"] = former
    if kind == was == _BALANCER and not spec.get("healthCheckNodePort") and before.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before["healthCheckNodePort"]


def _exchanged(spec: Object, before: Object) -> bool:
    """Whether a cluster address that was given is to be another one."""
    new, old = spec.get("clusterIPs") or [""], before.get("clusterIPs") or [""]
    kinds = (spec.get("type", "ClusterIP"), before.get("type", "ClusterIP"))
    return bool(old[0] and new[0] != old[0]) and _EXTERNAL not in kinds


def _drop(spec: Object, before: Object) -> None:
    """What belonged to the former type, and the writer did not change, goes when the type changes."""
    kind, was = spec.get("type", "ClusterIP"), before.get("type", "ClusterIP")
    if kind not in (_NODE_PORT, _BALANCER) and was in (_NODE_PORT, _BALANCER):
        former = {p.get("nodePort") for p in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            if port.get("nodePort") in former:
                port.pop("nodePort", None)
    same_health = spec.get("healthCheckNodePort") == before.get("healthCheckNodePort")
    if same_health and _needs_health(before) and not _needs_health(spec):
        spec.pop("healthCheckNodePort", None)
    if kind != _BALANCER and was == _BALANCER:
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(field) == before.get(field):
                spec.pop(field, None)
    same_policy = spec.get("externalTrafficPolicy") == before.get("externalTrafficPolicy")
    if same_policy and _reachable(before) and not _reachable(spec):
        spec.pop("externalTrafficPolicy", None)
    if kind == _EXTERNAL and was != _EXTERNAL and spec.get("clusterIP") == before.get("clusterIP"):
        spec.pop("clusterIP", None)
        spec.pop("clusterIPs", None)


def _reachable(spec: Object) -> bool:
    """Whether it can be reached from outside the cluster."""
    kind = spec.get("type", "ClusterIP")
    return kind in (_NODE_PORT, _BALANCER) or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def _needs_health(spec: Object) -> bool:
    return spec.get("type") == _BALANCER and spec.get("externalTrafficPolicy") == "Local"


def _invalid(field: str, value: Any, why: str) -> FieldError:
    return FieldError("FieldValueInvalid", field, f"Invalid value: {show(value)}: {why}")


def _refuse(service: Object, errors: list[FieldError]) -> ApiError:
    return invalid("", "Service", service["metadata"].get("name", ""), errors)
