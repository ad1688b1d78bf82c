"""The private network in which the nodes of one machine meet: a namespace with a bridge, each node and the host a leaf.

The bridge is out of reach of the host's firewall (a DROP in its FORWARD chain cannot cut nodes apart), and all goes
with the namespace: `destroy` leaves no interface. The same code serves an ordinary user, whose "host" is the user
namespace everything runs in. All functions block for some milliseconds; call them in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sampan.node.network import namespace, nftables, rtnetlink
from sampan.node.network.expressions import FAMILIES
from sampan.node.network.netlink import NetlinkSocket

_BRIDGE = "fabric"
_NODE_LINK = "eth0"
_NOWHERE_MAC = "02:00:00:00:00:01"


@dataclass(frozen=True, slots=True)
class Plan:
    """The addresses of one cluster's fabric: /24 with the host .1, nodes .2-.126, load balancers .128-.254."""

    cluster: str
    subnet: str

    @property
    def tag(self) -> str:
        """Six characters that are in the name of everything this cluster puts on the host."""
        return hashlib.sha256(self.cluster.encode()).hexdigest()[:6]

    @property
    def host_link(self) -> str:
        return f"sampan{self.tag}"

    @property
    def table(self) -> str:
        """Name of the cluster's nftables table on the host."""
        return f"sampan-{self.tag}"

    def _at(self, offset: int) -> str:
        return str(ipaddress.ip_network(self.subnet).network_address + offset)

    @property
    def host(self) -> str:
        return self._at(1)

    def node(self, index: int) -> str:
        """The address of node number 0, 1, ... 124. Raises ValueError beyond."""
        if not 0 <= index < 125:
            raise ValueError(f"the fabric {self.subnet} has room for 125 nodes")
        return self._at(2 + index)

    @property
    def load_balancers(self) -> str:
        """A range that reaches the host and the nodes without any further route."""
        return f"{self._at(128)}/25"


def plan(cluster: str, in_use: Iterable[ipaddress.IPv4Network] = ()) -> Plan:
    """Chooses 10.89.X.0/24: X follows from the cluster's name, or is the next that overlaps none of `in_use`.

    `in_use` is usually `rtnetlink.networks_in_use()` of the host. Raises OSError when nothing is left.
    """
    taken = list(in_use)
    start = hashlib.sha256(cluster.encode()).digest()[0]
    for step in range(256):
        subnet = ipaddress.IPv4Network(f"10.89.{(start + step) % 256}.0/24")
        if not any(subnet.overlaps(other) for other in taken):
            return Plan(cluster, str(subnet))
    raise OSError("every network in 10.89.0.0/16 overlaps a route of this machine")


def create_fabric(path: str) -> None:
    """Makes the namespace, mounted at `path`, and its bridge. Harmless when it is there."""
    if not namespace.exists(path):
        namespace.remove(path)
        namespace.create(path)
    # Frames on the bridge are not for a firewall (net.bridge exists only with the br_netfilter module).
    namespace.set_sysctls(
        path, {"bridge/bridge-nf-call-iptables": "0", "bridge/bridge-nf-call-ip6tables": "0"}
    )
    with rtnetlink.connect(path) as nl:
        nl.run(rtnetlink.add_bridge(_BRIDGE), rtnetlink.set_link(1), rtnetlink.set_link(_BRIDGE))


def destroy(path: str) -> None:
    """Ends the fabric: links in it, and with them their other ends in nodes and host, are gone."""
    if namespace.exists(path):
        with contextlib.suppress(OSError), rtnetlink.connect(path) as nl:
            for link in rtnetlink.links(nl):
                if link.master:
                    nl.run(rtnetlink.delete_link(link.index))
    namespace.remove(path)


def join(
    fabric: str, node: namespace.Netns, name: str, cidr: str, gateway: str = "", *, mtu: int = 1500
) -> None:
    """Gives a node's namespace an `eth0` with the address `cidr` (10.89.7.2/24) on the fabric; default route by `gateway`.

    `name` is the node's name in the fabric; a former link of that name is replaced (the node was restarted).
    """
    with rtnetlink.connect(node) as nl:
        link = _plug(fabric, node, port_name(name), _NODE_LINK, cidr, mtu)
        nl.run(rtnetlink.set_link(1))
        if gateway:
            nl.run(rtnetlink.add_route("0.0.0.0/0", gateway=gateway, link=link))


def leave(fabric: str, name: str) -> None:
    """Unplugs a node; one that is not there is fine."""
    with rtnetlink.connect(fabric) as nl:
        nl.run(rtnetlink.delete_link(port_name(name)))


def nodes(fabric: str) -> list[str]:
    """The names of the fabric's ports, as `port_name` gives them."""
    with rtnetlink.connect(fabric) as nl:
        return sorted(link.name for link in rtnetlink.links(nl) if link.master)


def join_host(
    fabric: str, plan: Plan, service_cidrs: Sequence[str] = (), *, host: namespace.Netns | None = None
) -> dict[str, str]:
    """Makes the host (the caller's namespace) a leaf: an address on the fabric, routes for Service addresses, forwarding.

    The route for Services only gives local connections a source address and a way to the output hook, where they
    are sent on to a pod. Returns the settings it changed, for `leave_host`; keep them on disk before anything else.
    """
    cidr = f"{plan.host}/24"
    link = _plug(fabric, host, "host", plan.host_link, cidr, 1500)
    former = namespace.set_sysctls(
        host, {"ipv4/ip_forward": "1", f"ipv4/conf/{plan.host_link}/route_localnet": "1"}
    )
    former.pop(f"ipv4/conf/{plan.host_link}/route_localnet", None)
    with rtnetlink.connect(host) as nl:
        nl.run(rtnetlink.set_link(1))
        for service_cidr in service_cidrs:
            if ":" not in service_cidr:
                nl.run(rtnetlink.add_route(service_cidr, link=link, source=plan.host))
    return former


def leave_host(plan: Plan, former: Mapping[str, str], *, host: namespace.Netns | None = None) -> None:
    """Takes link, routes and tables away and puts settings back. Harmless when nothing is there."""
    with rtnetlink.connect(host) as nl:
        nl.run(rtnetlink.delete_link(plan.host_link))
    for family in FAMILIES:
        with contextlib.suppress(OSError):
            nftables.drop_table(family, plan.table, host)
    namespace.set_sysctls(host, former)


def partition(a: namespace.Netns, b: namespace.Netns, a_ip: str, b_ip: str) -> None:
    """Cuts two nodes from each other, both ways: each believes the other to be at a MAC address nobody has."""
    for netns, other in ((a, b_ip), (b, a_ip)):
        with rtnetlink.connect(netns) as nl:
            nl.run(rtnetlink.neighbour(rtnetlink.link_index(nl, _NODE_LINK), other, _NOWHERE_MAC))


def heal(a: namespace.Netns, b: namespace.Netns, a_ip: str, b_ip: str) -> None:
    """Undoes `partition`."""
    for netns, other in ((a, b_ip), (b, a_ip)):
        with rtnetlink.connect(netns) as nl:
            nl.run(rtnetlink.delete_neighbour(rtnetlink.link_index(nl, _NODE_LINK), other))


def port_name(node: str) -> str:
    """The bridge port of a node: its own name when that fits into an interface name, else a hash of it."""
    if len(node) <= 13 and "/" not in node:
        return f"n-{node}"
    return f"n-{hashlib.sha256(node.encode()).hexdigest()[:12]}"


def _plug(fabric: str, leaf: namespace.Netns | None, port: str, inner: str, cidr: str, mtu: int) -> int:
    """A veth from the bridge into the leaf's namespace, up and with its address; gives its index there."""
    with (
        rtnetlink.connect(fabric) as nl,
        rtnetlink.connect(leaf) as inside,
        namespace.opened(leaf if leaf is not None else "/proc/thread-self/ns/net") as descriptor,
    ):
        bridge = rtnetlink.link_index(nl, _BRIDGE)
        _unplug(nl, port)
        _unplug(inside, inner)
        nl.run(rtnetlink.add_veth(port, inner, peer_netns=descriptor, peer_mac=_mac(cidr), mtu=mtu))
        nl.run(rtnetlink.set_link(port, master=bridge))
        link = rtnetlink.link_index(inside, inner)
        inside.run(rtnetlink.add_address(link, cidr), rtnetlink.set_link(link))
        return link


def _unplug(nl: NetlinkSocket, name: str) -> None:
    nl.run(rtnetlink.delete_link(name))


def _mac(cidr: str) -> str:
    """Made of the address: a node that comes back has the MAC its neighbours remember."""
    return (b"\x0a\x59" + ipaddress.ip_interface(cidr).ip.packed[-4:]).hex(":")
