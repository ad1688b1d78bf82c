"""Addresses and links of this machine, as far as other machines are concerned. Looks only; changes nothing."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator

from sampan.base.errors import SampanError
from sampan.node.network import rtnetlink
from sampan.node.network.routes import OVERHEAD

AUTO = "auto"
_SOMEWHERE = "192.0.2.1"  # RFC 5737: never reached, but the way there is the default route
_MTU = 1500


def own_address(wish: str) -> str:
    """An address of this machine, checked; for "auto" that of the default route. Raises SampanError."""
    if wish == AUTO:
        return source_towards(_SOMEWHERE)
    try:
        address = ipaddress.ip_address(wish)
    except ValueError:
        raise SampanError(f"--advertise {wish} is not an IP address", "See: ip address") from None
    if address.is_loopback or address.is_unspecified:
        raise SampanError(f"other machines cannot reach {wish}", "See: ip address")
    if not present(wish):
        raise SampanError(f"this machine has no address {wish}", "See: ip address")
    return str(address)


def present(address: str) -> bool:
    """Whether this machine has this address."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def source_towards(host: str) -> str:
    """The address of this machine from which packets to `host` come. Nothing is sent. Raises SampanError."""
    with socket.socket(_family(host), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError as error:
            raise SampanError(
                f"this machine has no way to {host}: {error.strerror}",
                "Name its address: --advertise ADDRESS",
            ) from None
        return str(probe.getsockname()[0])


def fabric_mtu(address: str) -> int:
    """What fits into the tunnel that leaves from an address of this machine, if no link on its way is narrower."""
    return min(_MTU, _link_mtu(address)) - OVERHEAD[ipaddress.ip_address(address).version]


def _link_mtu(address: str) -> int:
    with rtnetlink.connect() as nl:
        owner = rtnetlink.owner_of(nl, address)
        return next((link.mtu for link in rtnetlink.links(nl) if link.index == owner), _MTU)


def overlapping(networks: Iterable[str]) -> Iterator[str]:
    """Routes of this machine that are in the way of these networks, as "ROUTE (NETWORK)"."""
    with rtnetlink.connect() as nl:
        present = [ipaddress.ip_network(route.destination) for route in rtnetlink.routes(nl)]
    for network in map(ipaddress.ip_network, networks):
        for route in present:
            if route.prefixlen and route.version == network.version and route.overlaps(network):
                yield f"{route} ({network})"


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
