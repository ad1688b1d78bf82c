"""Ways to the pods of other nodes, following Node objects: via the node's own address, or through a tunnel to it.

Between neighbours nothing needs to be encapsulated (host-gw). Where the network between the nodes must not see the
addresses of pods, or has routers in it, they go through one vxlan link (RFC 7348) that learns nothing: who is where is
written into its tables. All a tunnel needs (MAC and link-local address of the other end) is made of the other node's
address, so that nodes have nothing to tell each other.

`wanted` is a pure function of the Node objects; `NodeRoutes` makes the kernel agree. A route that somebody deleted or
added under our protocol number is put right at the next change or `sync`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sampan.base.objects import ReadOnlyObject
from sampan.node.network import namespace, rtnetlink
from sampan.node.network.netlink import Message, NetlinkSocket

AUTO, HOST_GW, VXLAN = "auto", "host-gw", "vxlan"
TUNNEL = "vxlan"
_NETWORK_ID = 83
OVERHEAD = {4: 50, 6: 70}  # bytes around a tunnelled packet, by the IP version between the nodes


class Way(NamedTuple):
    """To another node's pods: its address of their IP version, and the address at which a tunnel to it ends."""

    gateway: str
    machine: str


def pod_cidrs(node: ReadOnlyObject) -> list[str]:
    """The ranges of its pods, the primary one first; none until the control plane has given it some."""
    spec = node.get("spec", {})
    return spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])


def internal_ips(node: ReadOnlyObject) -> list[str]:
    """Addresses at which other nodes reach it, the primary one first."""
    addresses = node.get("status", {}).get("addresses") or []
    return [entry["address"] for entry in addresses if entry.get("type") == "InternalIP"]


def wanted(nodes: Iterable[ReadOnlyObject], me: str = "") -> dict[str, Way]:
    """pod CIDR -> way to its node, for every node but `me`. Of two nodes that claim a range the first by name has it."""
    result: dict[str, Way] = {}
    for node in sorted(nodes, key=lambda node: node["metadata"]["name"]):
        if node["metadata"]["name"] == me:
            continue
        own = internal_ips(node)
        via = {6 if ":" in ip else 4: ip for ip in reversed(own)}
        for cidr in pod_cidrs(node):
            gateway = via.get(6 if ":" in cidr else 4)
            if gateway:
                result.setdefault(str(ipaddress.ip_network(cidr, strict=False)), Way(gateway, own[0]))
    return result


def overlaps(nodes: Iterable[ReadOnlyObject]) -> dict[str, str]:
    """For every node: which of its pod ranges another node has too, or a part of it; "" when none."""
    ranges = [
        (n["metadata"]["name"], ipaddress.ip_network(c, strict=False)) for n in nodes for c in pod_cidrs(n)
    ]
    ranges.sort(key=lambda entry: (entry[1].version, entry[1].network_address, entry[1].prefixlen, entry[0]))
    found: dict[str, list[str]] = {name: [] for name, _ in ranges}
    widest: tuple[str, Any] | None = None
    for name, network in ranges:
        if (
            widest
            and widest[0] != name
            and widest[1].version == network.version
            and network.overlaps(widest[1])
        ):
            found[name].append(f"{network} overlaps {widest[1]} of node {widest[0]}")
            found[widest[0]].append(f"{widest[1]} overlaps {network} of node {name}")
        if (
            not widest
            or widest[1].version != network.version
            or network.broadcast_address > widest[1].broadcast_address
        ):
            widest = name, network
    return {name: "; ".join(texts) for name, texts in found.items()}


class NodeRoutes:
    """Keeps the routes over `link_name` of a namespace, and over its tunnel, as they are wanted.

    `sources` are the namespace's own addresses, the primary one first. `mode`: "host-gw" (no tunnel), "vxlan" (all
    through the tunnel), "auto" (through the tunnel to those that are no neighbours on the link). `mtu`: the link's.
    """

    def __init__(
        self,
        link_name: str = "eth0",
        netns: namespace.Netns | None = None,
        *,
        sources: Sequence[str] = (),
        mode: str = HOST_GW,
        mtu: int = 1500,
    ) -> None:
        self.link_name = link_name
        self.netns = netns
        self._mode, self._mtu = mode, mtu
        self._sources = {_version(address): address for address in reversed(sources)}
        self._machine = sources[0] if sources else ""
        self._last: dict[str, Way] | None = None
        self._peers: set[Way] = set()

    @property
    def pod_mtu(self) -> int:
        """What pods can send without being cut. With "auto" tunnels are the exception: path MTU discovery tells."""
        return self._tunnel_mtu if self._mode == VXLAN else self._mtu

    @property
    def _tunnel_mtu(self) -> int:
        return self._mtu - OVERHEAD[_version(self._machine)]

    def changes(self, goal: Mapping[str, Way]) -> bool:
        """Whether `sync` would have something to do, as far as is known."""
        return goal != self._last

    def forget(self) -> None:
        """What the kernel has is not known any more: somebody else has changed it."""
        self._last = None

    def sync(self, goal: Mapping[str, Way]) -> Sequence[str]:
        """Adds, replaces and deletes routes (blocks; call it in a thread). Gives the destinations that changed."""
        with rtnetlink.connect(self.netns) as nl:
            uplink = rtnetlink.link_index(nl, self.link_name)
            tunnelled = self._tunnelled(nl, uplink, goal)
            tunnel = self._tunnel(nl, tunnelled)
            hops = {
                destination: (_tunnel_gateway(way, destination), tunnel)
                if way in tunnelled
                else (way.gateway, uplink)
                for destination, way in goal.items()
            }
            changed = self._write(nl, {uplink, tunnel}, hops)
        self._last = dict(goal)
        return changed

    def _write(
        self, nl: NetlinkSocket, links: set[int], hops: Mapping[str, tuple[str, int]]
    ) -> Sequence[str]:
        changed = []
        ours = [r for r in rtnetlink.routes(nl, protocol=rtnetlink.PROTOCOL) if r.gateway and r.link in links]
        present = {(r.destination, r.gateway, r.link): r for r in ours if not r.destination.endswith("/0")}
        wanted_ones = {(destination, *hop) for destination, hop in hops.items()}
        # New ones first: a changed way is never without a route, and the old one has another metric.
        for destination, gateway, link in sorted(wanted_ones - present.keys()):
            nl.run(self._route(destination, gateway, link))
            changed.append(destination)
        for key in present.keys() - wanted_ones:
            replaced = any(key[0] == one[0] and key[2] == one[2] for one in wanted_ones)
            if not replaced:  # else it has gone by being replaced
                nl.run(rtnetlink.delete_route(present[key]))
                changed.append(key[0])
        return changed

    def _route(self, destination: str, gateway: str, link: int) -> Message:
        source = self._sources.get(_version(destination), "")
        return rtnetlink.add_route(
            destination, gateway=gateway, link=link, source=source, onlink=True, metric=metric_of(link)
        )

    # The tunnel

    def _tunnelled(self, nl: NetlinkSocket, uplink: int, goal: Mapping[str, Way]) -> set[Way]:
        if self._mode == HOST_GW:
            return set()
        if self._mode == VXLAN:
            return set(goal.values())
        connected = [r for r in rtnetlink.routes(nl) if r.link == uplink and not r.gateway]
        near = [ipaddress.ip_network(r.destination) for r in connected if not r.destination.endswith("/0")]
        return {
            way
            for way in goal.values()
            if not any(ipaddress.ip_address(way.machine) in network for network in near)
        }

    def _tunnel(self, nl: NetlinkSocket, peers: set[Way]) -> int:
        """The link's index, with its tables as they must be; 0 where nobody needs one."""
        link = rtnetlink.link_named(nl, TUNNEL)
        if link is None and not peers:
            return 0
        if link is None:
            local, mac = self._machine, tunnel_mac(self._machine)
            nl.run(rtnetlink.add_vxlan(TUNNEL, _NETWORK_ID, local, mtu=self._tunnel_mtu, mac=mac))
            nl.run(rtnetlink.set_link(TUNNEL))
            index, self._peers = rtnetlink.link_index(nl, TUNNEL), set()
        else:
            index = link.index
        for way in peers:
            mac = tunnel_mac(way.machine)
            nl.run(rtnetlink.forwarding(index, mac, way.machine))
            nl.run(rtnetlink.neighbour(index, _tunnel_gateway(way, way.gateway), mac))
        for way in self._peers - peers:
            nl.run(rtnetlink.delete_neighbour(index, _tunnel_gateway(way, way.gateway)))
            if all(way.machine != other.machine for other in peers):
                nl.run(rtnetlink.delete_forwarding(index, tunnel_mac(way.machine)))
        self._peers = set(peers)
        return index


def tunnel_mac(machine: str) -> str:
    """Of a node's end of the tunnel."""
    return (b"\x0a\x5a" + ipaddress.ip_address(machine).packed[-4:]).hex(":")


def _tunnel_gateway(way: Way, destination: str) -> str:
    """The next hop on the tunnel: IPv6 wants one that is on no other link."""
    if _version(destination) == 4:
        return way.gateway
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(10) + ipaddress.ip_address(way.machine).packed[-4:]))


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def metric_of(link: int) -> int:
    """Routes of several clusters to the same range can be there together: that of the newest is used, none is replaced."""
    return max(1, 10000 - link)
