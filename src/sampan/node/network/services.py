"""What the kernel must hold for a Service: a pure function from the Service and its EndpointSlices to elements.

The rules are those of the Service API ("Virtual IPs and Service Proxies"): which endpoints serve, what the traffic
policies mean, when a client is refused. `arrange` keeps indexes stable, so that little changes when an endpoint does.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sampan.base.objects import ReadOnlyObject
from sampan.node.network import ruleset
from sampan.node.network.ruleset import LOCAL_OFFSET, Balance, Config

_PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": 132}
_FAMILY = {"IPv4": 4, "IPv6": 6}
SERVICE_NAME = "kubernetes.io/service-name"
# Well-known labels: another proxy implements this Service, or its users look endpoints up themselves.
_NOT_OURS = {"service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"}


class Element(NamedTuple):
    """A key of one of the table's sets, in the table of IP version 4 or 6."""

    version: int
    set: str
    key: bytes


# A Balance in `vips` and `shortcut`, an endpoint's address and port in `endpoints`, None in sets.
Entries = dict[Element, Balance | bytes | None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port that serves; `value` is its form in the kernel."""

    value: bytes
    local: bool
    ready: bool
    serving: bool
    terminating: bool
    zones: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()


def pack_address(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def pack_port(port: int) -> bytes:
    return struct.pack(">Hxx", port)


def pack_key(address: bytes, protocol: str, port: int) -> bytes:
    return address + struct.pack("=Bxxx", _PROTOCOLS[protocol]) + pack_port(port)


def desired(
    services: Iterable[ReadOnlyObject],
    slices: Iterable[ReadOnlyObject],
    config: Config,
    previous: Mapping[str, Entries] | None = None,
) -> dict[str, Entries]:
    """The elements of every Service, by "namespace/name"; `previous` are those there are now."""
    by_service: dict[str, list[ReadOnlyObject]] = {}
    for item in slices:
        by_service.setdefault(slice_service(item), []).append(item)
    result = {}
    for service in services:
        key = service_key(service)
        result[key] = entries(service, by_service.get(key, ()), config, (previous or {}).get(key, {}))
    return result


def service_key(service: ReadOnlyObject) -> str:
    meta = service["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"


def slice_service(item: ReadOnlyObject) -> str:
    """The Service an EndpointSlice belongs to, by its label."""
    meta = item["metadata"]
    return f"{meta.get('namespace', '')}/{(meta.get('labels') or {}).get(SERVICE_NAME, '')}"


def entries(
    service: ReadOnlyObject, slices: Sequence[ReadOnlyObject], config: Config, old: Mapping[Element, Any]
) -> Entries:
    """The elements of one Service; none for a headless one, an ExternalName, or one with a label that says: not you."""
    spec = service.get("spec") or {}
    result: Entries = {}
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") in (None, "", "None"):
        return result
    if _NOT_OURS & (service["metadata"].get("labels") or {}).keys():
        return result
    for port in spec.get("ports") or ():
        if port.get("protocol", "TCP") not in _PROTOCOLS:
            continue
        for version in {_FAMILY.get(family, 4) for family in spec.get("ipFamilies") or ("IPv4",)}:
            found = _endpoints(slices, port.get("name") or "", version, config)
            _Port(service, port, version, found, config, old, result).fill()
    return result


def _endpoints(
    slices: Sequence[ReadOnlyObject], port_name: str, version: int, config: Config
) -> list[Endpoint]:
    """All endpoints of a named port, whatever their condition; of duplicates in several slices the last."""
    found: dict[bytes, Endpoint] = {}
    for item in slices:
        if _FAMILY.get(item.get("addressType", "IPv4")) != version:
            continue
        numbers = [
            p["port"] for p in item.get("ports") or () if (p.get("name") or "") == port_name and p.get("port")
        ]
        for endpoint in item.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            ready = conditions.get("ready") is not False
            serving = conditions.get("serving")
            hints = endpoint.get("hints") or {}
            for number in numbers:
                value = pack_address(endpoint["addresses"][0]) + pack_port(number)
                found[value] = Endpoint(
                    value,
                    not config.node or endpoint.get("nodeName") == config.node,
                    ready,
                    ready if serving is None else bool(serving),
                    bool(conditions.get("terminating")),
                    frozenset(zone["name"] for zone in hints.get("forZones") or ()),
                    frozenset(node["name"] for node in hints.get("forNodes") or ()),
                )
    return [found[value] for value in sorted(found)]


def usable(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The ready ones, or while there is none those that still serve while they terminate (KEP-1669)."""
    ready = [e for e in endpoints if e.ready]
    return ready or [e for e in endpoints if e.serving and e.terminating]


def hinted(endpoints: list[Endpoint], config: Config) -> list[Endpoint]:
    """Those meant for this node or zone, if every endpoint has such a hint and some are for us (KEP-2433, KEP-3015)."""
    if not config.node or not endpoints:
        return endpoints
    if all(e.nodes for e in endpoints):
        mine = [e for e in endpoints if config.node in e.nodes]
        if mine:
            return mine
    if config.zone and all(e.zones for e in endpoints):
        return [e for e in endpoints if config.zone in e.zones] or endpoints
    return endpoints


def arrange(old: Sequence[bytes], new: Iterable[bytes]) -> list[bytes]:
    """The new values in an order in which those of the old that remain keep their place where possible."""
    wanted = set(new)
    size = len(wanted)
    result: list[bytes | None] = [value if value in wanted else None for value in old[:size]]
    result += [None] * (size - len(result))
    rest = iter(sorted(wanted.difference(result)))
    return [value if value is not None else next(rest) for value in result]


class _Port:
    """Fills in the elements of one port of a Service, for one IP version."""

    def __init__(
        self,
        service: ReadOnlyObject,
        port: ReadOnlyObject,
        version: int,
        endpoints: Sequence[Endpoint],
        config: Config,
        old: Mapping[Element, Any],
        result: Entries,
    ) -> None:
        self.spec = service["spec"]
        self.status = service.get("status") or {}
        self.port = port
        self.version = version
        self.config = config
        self.old = old
        self.result = result
        self.protocol = port.get("protocol", "TCP")
        self.everywhere = hinted(usable(endpoints), config)
        self.here = usable([e for e in endpoints if e.local])
        self.affinity = 0
        if self.spec.get("sessionAffinity") == "ClientIP":
            client = (self.spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
            self.affinity = client.get("timeoutSeconds") or 10800

    def fill(self) -> None:
        number = self.port["port"]
        internal_local = self.spec.get("internalTrafficPolicy") == "Local"
        for address in self._mine(self.spec.get("clusterIPs") or [self.spec["clusterIP"]]):
            if address not in self.config.served_here:
                self._internal(pack_key(pack_address(address), self.protocol, number), internal_local)
        for address in self._mine(self.spec.get("externalIPs") or ()):
            self._external(pack_key(pack_address(address), self.protocol, number))
        ingress = (self.status.get("loadBalancer") or {}).get("ingress") or ()
        allowed = tuple(self.spec.get("loadBalancerSourceRanges") or ())
        for address in self._mine(i["ip"] for i in ingress if i.get("ip") and i.get("ipMode") != "Proxy"):
            self._external(pack_key(pack_address(address), self.protocol, number), sources=allowed)
        if self.port.get("nodePort"):
            nowhere = bytes(4 if self.version == 4 else 16)
            self._external(pack_key(nowhere, self.protocol, self.port["nodePort"]), node_port=True)
        for endpoint in self.here if self.config.node else ():
            own = endpoint.value[:-4]
            self.result[Element(self.version, ruleset.HAIRPIN, own + own)] = None

    def _mine(self, addresses: Iterable[str]) -> list[str]:
        return [a for a in addresses if a and a != "None" and (":" in a) == (self.version == 6)]

    def _internal(self, key: bytes, local: bool) -> None:
        if local and self.config.node:
            self._send(key, self.here, Balance(len(self.here), local=True, affinity=self.affinity))
        else:
            self._send(key, self.everywhere, Balance(len(self.everywhere), affinity=self.affinity))

    def _external(self, key: bytes, *, node_port: bool = False, sources: tuple[str, ...] = ()) -> None:
        everyone = Balance(
            len(self.everywhere),
            node_port=node_port,
            masquerade=True,
            affinity=self.affinity,
            sources=sources,
        )
        if self.spec.get("externalTrafficPolicy") != "Local":
            self._send(key, self.everywhere, everyone)
            return
        # The client's address is kept. On the host all traffic comes back through it anyway; a node may only use its
        # own endpoints, except for clients inside the cluster.
        if not self.config.node:
            kept = Balance(len(self.everywhere), node_port=node_port, affinity=self.affinity, sources=sources)
            self._send(key, self.everywhere, kept)
            return
        kept = Balance(len(self.here), True, node_port, False, self.affinity, sources)
        self._send(key, self.here, kept)
        if self.everywhere:
            self._send(key, self.everywhere, everyone, shortcut=True)

    def _send(
        self, key: bytes, endpoints: Sequence[Endpoint], balance: Balance, *, shortcut: bool = False
    ) -> None:
        if not endpoints:
            # Nobody at all: tell the client. Nobody here, where only "here" counts: as if this node had no such port.
            refusal = ruleset.DROPPED if balance.local and self.everywhere else ruleset.REJECTED
            self.result[Element(self.version, refusal, key)] = None
            return
        offset = LOCAL_OFFSET if balance.local else 0
        for index, value in enumerate(arrange(self._former(key, offset), [e.value for e in endpoints])):
            self.result[Element(self.version, ruleset.ENDPOINTS, key + struct.pack("=I", offset + index))] = (
                value
            )
            if balance.affinity:
                number = ruleset.endpoint_id(value, balance)
                place = key + struct.pack("=I", offset + index)
                self.result[Element(self.version, ruleset.IDS, place)] = number
                self.result[Element(self.version, ruleset.KEPT, key + number)] = value
        self.result[Element(self.version, ruleset.SHORTCUT if shortcut else ruleset.VIPS, key)] = balance

    def _former(self, key: bytes, offset: int) -> list[bytes]:
        found: list[bytes] = []
        while (
            value := self.old.get(
                Element(self.version, ruleset.ENDPOINTS, key + struct.pack("=I", offset + len(found)))
            )
        ) is not None:
            found.append(value)
        return found
