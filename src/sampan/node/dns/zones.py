"""What a name of the cluster resolves to: a pure function of Services, EndpointSlices and Pods.

The rules are those of the Kubernetes "DNS-Based Service Discovery" specification, version 1.1.0. Names here are tuples
of lower-case labels without the root, e.g. ("web", "default", "svc", "cluster", "local").
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from sampan.base.objects import ReadOnlyObject

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 255
NOERROR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 2, 3, 4, 5

Name = tuple[str, ...]
SERVER: Name = ("ns", "dns")  # below the domain: as CoreDNS calls itself


class Record(NamedTuple):
    """`data` is an address (text), a Name, or for SRV (priority, weight, port, Name); a zone's SOA is always the same."""

    name: Name
    type: int
    data: Any


@dataclass(slots=True)
class Answer:
    """`topic` is what the answer depends on: a change of it makes the answer stale. `forward`: look there for the rest."""

    code: int = NOERROR
    records: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)
    topic: str = ""
    forward: Name | None = None


class Services(Protocol):
    """The part of a view that zones are built from."""

    def service(self, namespace: str, name: str) -> ReadOnlyObject | None: ...

    def slices(self, namespace: str, name: str) -> Iterable[ReadOnlyObject]: ...

    def has_namespace(self, namespace: str) -> bool: ...

    def owner_of(self, address: str) -> Iterable[Name]:
        """The names of the Service or of the headless endpoints that have the address, for PTR."""
        ...


class Zones:
    """Answers for one cluster domain and for the reverse zones of its addresses."""

    def __init__(
        self,
        services: Services,
        domain: str = "cluster.local",
        networks: Iterable[str] = (),
        addresses: Sequence[str] = (),
    ) -> None:
        """`addresses` are those at which the zones are served."""
        self._services = services
        self._addresses = addresses
        self.domain: Name = tuple(domain.lower().strip(".").split("."))
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def answer(self, name: Name, kind: int) -> Answer | None:
        """None: not a name of this cluster, ask upstream."""
        size = len(self.domain)
        if name[-size:] == self.domain:
            return self._inside(name, name[:-size], kind)
        address = reverse_address(name)
        if address is not None and any(address in network for network in self._networks):
            return self._reverse(name, str(address), kind)
        return None

    def zone_of(self, name: Name) -> Name:
        """The zone that an answered name is in, whose SOA negative answers carry (RFC 2308): ours, or in-addr.arpa, ip6.arpa."""
        return self.domain if name[-len(self.domain) :] == self.domain else name[-2:]

    def _inside(self, name: Name, relative: Name, kind: int) -> Answer:
        if not relative:
            return self._apex(name, kind)
        if relative == SERVER:
            return Answer(records=self._server(name, kind))
        if relative == SERVER[1:]:
            return Answer()
        if relative == ("dns-version",):
            return Answer(records=[Record(name, TXT, "1.1.0")] if kind in (TXT, ANY) else [])
        if relative[-1] == "svc":
            return self._service(name, relative[:-1], kind)
        if relative[-1] == "pod":
            return self._pod(name, relative[:-1], kind)
        return Answer(NXDOMAIN)

    def _apex(self, name: Name, kind: int) -> Answer:
        """Who serves the zone: dynamic updaters and resolvers that delegate look for it (RFC 1035, 3.3.11 and 3.3.13)."""
        if kind == NS:
            server = (*SERVER, *self.domain)
            return Answer(records=[Record(name, NS, server)], additional=self._server(server, ANY))
        return Answer(records=[Record(name, SOA, None)] if kind == SOA else [])

    def _server(self, name: Name, kind: int) -> list[Record]:
        return [Record(name, _kind_of(a), a) for a in self._addresses if kind in (_kind_of(a), ANY)]

    def _service(self, name: Name, relative: Name, kind: int) -> Answer:
        """`relative` is what stands before "svc": [_port._protocol or endpoint host] service namespace."""
        if not relative:
            return Answer()
        namespace = relative[-1]
        if len(relative) == 1:
            known = self._services.has_namespace(namespace)
            return Answer(NOERROR if known else NXDOMAIN, topic=f"namespace/{namespace}")
        service_name, rest = relative[-2], relative[:-2]
        topic = f"{namespace}/{service_name}"
        service = self._services.service(namespace, service_name)
        if service is None or len(rest) > 2:
            return Answer(NXDOMAIN, topic=topic)
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return self._external_name(name, rest, spec, topic)
        base = (service_name, namespace, "svc", *self.domain)
        if spec.get("clusterIP") in (None, "", "None"):
            return self._headless(name, rest, kind, base, service, topic)
        return _cluster_ip(name, rest, kind, base, spec, topic)

    def _external_name(self, name: Name, rest: Name, spec: ReadOnlyObject, topic: str) -> Answer:
        target = tuple((spec.get("externalName") or "").lower().strip(".").split("."))
        if rest or not target[0]:
            return Answer(NXDOMAIN, topic=topic)
        return Answer(records=[Record(name, CNAME, target)], topic=topic, forward=target)

    def _headless(
        self, name: Name, rest: Name, kind: int, base: Name, service: ReadOnlyObject, topic: str
    ) -> Answer:
        namespace, service_name = base[1], base[0]
        publish = bool((service.get("spec") or {}).get("publishNotReadyAddresses"))
        found = _headless_endpoints(self._services.slices(namespace, service_name), publish)
        answer = Answer(topic=topic)
        if len(rest) == 2:
            port, protocol = rest
            targets = [
                (host, number, addresses)
                for host, addresses, ports in found
                for port_name, port_protocol, number in ports
                if (port, protocol) == (f"_{port_name}", f"_{port_protocol}")
            ]
            if not targets:
                return Answer(NXDOMAIN, topic=topic)
            for host, number, addresses in targets:
                if kind in (SRV, ANY):
                    answer.records.append(Record(name, SRV, (0, _share(len(targets)), number, (host, *base))))
                    answer.additional += [Record((host, *base), _kind_of(a), a) for a in addresses]
            return answer
        mine = [entry for entry in found if not rest or entry[0] == rest[0]]
        if not mine:
            return Answer(NXDOMAIN, topic=topic)
        every = dict.fromkeys(address for _, listed, _ in mine for address in listed)
        answer.records = [Record(name, _kind_of(a), a) for a in every if kind in (_kind_of(a), ANY)]
        if kind == SRV:
            for host, listed, ports in mine:
                for _, _, number in ports:
                    answer.records.append(Record(name, SRV, (0, _share(len(mine)), number, (host, *base))))
                answer.additional += [Record((host, *base), _kind_of(a), a) for a in listed]
        return answer

    def _pod(self, name: Name, relative: Name, kind: int) -> Answer:
        """a-b-c-d.namespace.pod: the address is in the name; whether such a pod exists is not asked ("insecure" mode)."""
        if not relative:
            return Answer()
        namespace = relative[-1]
        topic = f"namespace/{namespace}"
        if not self._services.has_namespace(namespace) or len(relative) > 2:
            return Answer(NXDOMAIN, topic=topic)
        if len(relative) == 1:
            return Answer(topic=topic)
        address = _dashed_address(relative[0])
        if address is None:
            return Answer(NXDOMAIN, topic=topic)
        records = [Record(name, _kind_of(address), address)] if kind in (_kind_of(address), ANY) else []
        return Answer(records=records, topic=topic)

    def _reverse(self, name: Name, address: str, kind: int) -> Answer:
        names = sorted(self._services.owner_of(address))
        if not names:
            return Answer(NXDOMAIN, topic="reverse")
        records = [Record(name, PTR, (*owner, "svc", *self.domain)) for owner in names]
        return Answer(records=records if kind in (PTR, ANY) else [], topic="reverse")


def _cluster_ip(name: Name, rest: Name, kind: int, base: Name, spec: ReadOnlyObject, topic: str) -> Answer:
    addresses = spec.get("clusterIPs") or [spec["clusterIP"]]
    ports = spec.get("ports") or []
    answer = Answer(topic=topic)
    if len(rest) == 1:
        return Answer(NXDOMAIN, topic=topic)
    if len(rest) == 2:
        ports = [p for p in ports if p.get("name") and (f"_{p['name']}", f"_{_protocol(p)}") == rest]
        if not ports:
            return Answer(NXDOMAIN, topic=topic)
    else:
        answer.records = [Record(name, _kind_of(a), a) for a in addresses if kind in (_kind_of(a), ANY)]
    if kind == SRV or (rest and kind == ANY):
        answer.records += [Record(name, SRV, (0, _share(len(ports)), p["port"], base)) for p in ports]
        answer.additional = [Record(base, _kind_of(a), a) for a in addresses]
    return answer


def _protocol(port: ReadOnlyObject) -> str:
    return port.get("protocol", "TCP").lower()


Found = tuple[str, list[str], list[tuple[str, str, int]]]


def _headless_endpoints(slices: Iterable[ReadOnlyObject], publish: bool) -> list[Found]:
    """(host label, addresses, (port name, protocol, number)...) of each endpoint that is published.

    Ready ones; with publishNotReadyAddresses all. An endpoint of two IP families is in two slices: same host, merged
    when it has a hostname.
    """
    result: list[Found] = []
    for item in slices:
        if item.get("addressType") == "FQDN":
            continue
        ports = [
            (port.get("name") or "", _protocol(port), port["port"])
            for port in item.get("ports") or ()
            if port.get("port")
        ]
        for endpoint in item.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False and not publish:
                continue
            addresses = list(endpoint["addresses"])
            host = (endpoint.get("hostname") or host_label(addresses[0])).lower()
            result.append((host, addresses, ports))
    return sorted(result)


def host_label(address: str) -> str:
    """The name of an endpoint without a hostname; the specification leaves it open, this is the address with dashes."""
    return address.replace(".", "-").replace(":", "-").strip("-") or "0"


def _dashed_address(label: str) -> str | None:
    for text in (label.replace("-", "."), label.replace("-", ":")):
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            continue
    return None


def _kind_of(address: str) -> int:
    return AAAA if ":" in address else A


def _share(count: int) -> int:
    """SRV weight: all the same, as large as 100 allows."""
    return max(1, 100 // max(1, count))


def reverse_address(name: Name) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that an in-addr.arpa or ip6.arpa name stands for (RFC 1035 3.5, RFC 3596 2.5), if it is a whole one."""
    try:
        if name[-2:] == ("in-addr", "arpa") and len(name) == 6:
            return ipaddress.IPv4Address(".".join(reversed(name[:4])))
        if name[-2:] == ("ip6", "arpa") and len(name) == 34:
            return ipaddress.IPv6Address(bytes.fromhex("".join(reversed(name[:32]))))
    except ValueError:
        return None
    return None


def packed_name(name: Name) -> bytes:
    """Uncompressed wire form."""
    return b"".join(struct.pack("B", len(label)) + label.encode("latin-1") for label in name) + b"\0"
