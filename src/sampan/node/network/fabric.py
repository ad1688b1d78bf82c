"""The private network in which the nodes of one machine meet: a namespace with a bridge, each node and the host a leaf.

The bridge is out of reach of the host's firewall (a DROP in its FORWARD chain cannot cut nodes apart), and all goes
with the namespace: `destroy` leaves no interface. The same code serves an ordinary user, whose "host" is the user
namespace everything runs in. All functions block for some milliseconds, and repeating one is harmless.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from sampan.node.network import namespace, nftables, passage, rtnetlink
from sampan.node.network.expressions import FAMILIES
from sampan.node.network.netlink import ROUTE, NetlinkSocket
from sampan.node.network.routes import metric_of

HOST_PORT, MACHINES = "host", "machines"
MTU = 1500
_BRIDGE = "fabric"
_NODE_LINK = "eth0"
_NOWHERE_MAC = "02:00:00:00:00:01"
_HOST_PREFIX = "sampan"  # of every cluster's interface
# Service addresses and the pool of load balancers; see `cluster.config`.
SERVICE_CIDRS = ("10.96.0.0/16", "10.97.255.0/24")


def tag(cluster: str) -> str:
    """Six characters that are in the name of everything this cluster puts on the host."""
    return hashlib.sha256(cluster.encode()).hexdigest()[:6]


def host_link(cluster: str) -> str:
    """The host's interface into the fabric."""
    return _HOST_PREFIX + tag(cluster)


def host_table(cluster: str) -> str:
    """Name of the cluster's nftables table on the host."""
    return f"sampan-{tag(cluster)}"


def create(path: str) -> None:
    """Makes the namespace, mounted at `path`, and its bridge."""
    if not namespace.exists(path):
        namespace.remove(path)
        namespace.create(path)
    # Frames on the bridge are not for a firewall (net.bridge exists only with the br_netfilter module).
    namespace.set_sysctls(
        path, {"bridge/bridge-nf-call-iptables": "0", "bridge/bridge-nf-call-ip6tables": "0"}
    )
    with rtnetlink.connect(path) as nl:
        nl.run(rtnetlink.add_bridge(_BRIDGE), rtnetlink.set_link(1), rtnetlink.set_link(_BRIDGE))


def destroy(path: str, cluster: str, *, host: namespace.Netns | None = None) -> None:
    """Ends the fabric, with the links of nodes and host into it; the host's tables, routes and settings go back too."""
    if namespace.exists(path):
        with contextlib.suppress(OSError), rtnetlink.connect(path) as nl:
            for link in rtnetlink.links(nl):
                if link.master:
                    nl.run(rtnetlink.delete_link(link.index))
    namespace.remove(path)
    with _settings(path) as file, rtnetlink.connect(host) as nl:
        nl.run(rtnetlink.delete_link(host_link(cluster)))
        if not any(_is_host_link(link.name) for link in rtnetlink.links(nl)):
            _restore_settings(file, host)
    for family in FAMILIES:
        with contextlib.suppress(OSError):
            nftables.drop_table(family, host_table(cluster), host)
    with contextlib.suppress(OSError):
        passage.remove(host_table(cluster), host)


def join(
    path: str,
    node: namespace.Netns,
    index: int,
    cidrs: str | Sequence[str],
    *,
    gateways: Sequence[str] = (),
    mtu: int = MTU,
) -> None:
    """Gives the namespace of a node (a process in it, or its path) an `eth0` with addresses and default routes.

    `cidrs` and `gateways`: one of IPv4 or one of each IP version. `index` numbers the nodes of the cluster; a former link
    of the same number is replaced (the node was restarted).
    """
    link = _plug(path, node, port_name(index), _NODE_LINK, cidrs, mtu)
    with rtnetlink.connect(node) as nl:
        nl.run(rtnetlink.set_link(1))
        for gateway in gateways:
            nl.run(rtnetlink.add_route("::/0" if ":" in gateway else "0.0.0.0/0", gateway=gateway, link=link))


def leave(path: str, index: int) -> None:
    """Unplugs a node."""
    if namespace.exists(path):
        with rtnetlink.connect(path) as nl:
            nl.run(rtnetlink.delete_link(port_name(index)))


def port_name(index: int) -> str:
    return f"node{index}"


def join_host(
    path: str,
    cluster: str,
    cidrs: str | Sequence[str],
    *,
    rootless: bool = False,
    services: Sequence[str] = SERVICE_CIDRS,
    mtu: int = MTU,
    host: namespace.Netns | None = None,
) -> None:
    """Makes the host (the caller's namespace) a leaf: an address on the fabric, forwarding, routes for `services`.

    A firewall of the host that drops what is forwarded lets this through, see `passage`.

    Those routes only give local connections a source address and a way to the output hook, where they are sent on to
    a pod. `rootless`: there is no way out but the uplink, so the default route leads
    to lo, where the uplink picks connections up. What was changed on the host is noted beside the cluster's run
    directory, and put back by the last `destroy`.
    """
    own = {6 if ":" in cidr else 4: cidr.split("/")[0] for cidr in _listed(cidrs)}
    with _settings(path) as file:
        link = _plug(path, host, HOST_PORT, host_link(cluster), cidrs, mtu)
        _note_settings(file, namespace.set_sysctls(host, _forwarding(host, 6 in own)))
    # Connections to 127.0.0.1:nodePort leave by this link.
    namespace.set_sysctls(host, {f"ipv4/conf/{host_link(cluster)}/route_localnet": "1"})
    with rtnetlink.connect(host) as nl:
        nl.run(rtnetlink.set_link(1))
        for service_cidr in services:
            source = own.get(6 if ":" in service_cidr else 4)
            if source:
                nl.run(rtnetlink.add_route(service_cidr, link=link, source=source, metric=metric_of(link)))
        if rootless:
            nl.run(rtnetlink.add_route("0.0.0.0/0", link=1, source=own[4]))
    if not rootless:
        with contextlib.suppress(OSError):  # nodes reach each other all the same
            passage.settle(host_link(cluster), host_table(cluster), tuple(own), host)


def join_machines(
    path: str, network_id: int, address: str, *, mtu: int, host: namespace.Netns | None = None
) -> None:
    """Plugs in the tunnel to the fabric's parts on other machines; `tunnel_table` tells it who is where.

    It belongs to the fabric's namespace, while its packets leave from the host's `address`.
    """
    with (
        namespace.opened(path) as descriptor,
        rtnetlink.connect(host) as outside,
        rtnetlink.connect(path) as nl,
    ):
        nl.run(rtnetlink.delete_link(MACHINES))
        outside.run(rtnetlink.add_vxlan(MACHINES, network_id, address, mtu=mtu, netns=descriptor))
        nl.run(rtnetlink.set_link(MACHINES, master=rtnetlink.link_index(nl, _BRIDGE)))


def _forwarding(host: namespace.Netns | None, six: bool) -> dict[str, str]:
    """Settings for a host that passes packets on. One that learns its own IPv6 routes from routers goes on to do so."""
    settings = {"ipv4/ip_forward": "1"}
    if not six:
        return settings

    def listens() -> list[str]:
        found = []
        for directory in Path("/proc/sys/net/ipv6/conf").glob("*"):
            with contextlib.suppress(OSError):
                if (directory / "accept_ra").read_text().strip() == "1":
                    found.append(directory.name)
        return found

    settings |= {f"ipv6/conf/{name}/accept_ra": "2" for name in namespace.run_in(host, listens)}
    return settings | {"ipv6/conf/all/forwarding": "1"}


def watch(path: str) -> socket.socket:
    """A socket that becomes readable when a link of the fabric comes or goes; drain it with `recv`."""
    return namespace.run_in(path, lambda: NetlinkSocket(ROUTE, 1)).socket


def ports(path: str) -> set[str]:
    """The names of what is plugged into the fabric."""
    with rtnetlink.connect(path) as nl:
        return {link.name for link in rtnetlink.links(nl) if link.master}


def partition(
    a: namespace.Netns | None, b: namespace.Netns | None, a_ip: str, b_ip: str, *, b_link: str = _NODE_LINK
) -> None:
    """Cuts two nodes from each other, both ways: each believes the other to be at a MAC address nobody has.

    `b` may be the host (None: the caller's namespace), with its own `b_link`.
    """
    for netns, link, other in ((a, _NODE_LINK, b_ip), (b, b_link, a_ip)):
        with rtnetlink.connect(netns) as nl:
            nl.run(rtnetlink.neighbour(rtnetlink.link_index(nl, link), other, _NOWHERE_MAC))


def heal(
    a: namespace.Netns | None, b: namespace.Netns | None, a_ip: str, b_ip: str, *, b_link: str = _NODE_LINK
) -> None:
    """Undoes `partition`."""
    for netns, link, other in ((a, _NODE_LINK, b_ip), (b, b_link, a_ip)):
        with rtnetlink.connect(netns) as nl:
            nl.run(rtnetlink.delete_neighbour(rtnetlink.link_index(nl, link), other))


def _listed(cidrs: str | Sequence[str]) -> Sequence[str]:
    return [cidrs] if isinstance(cidrs, str) else cidrs


def _plug(
    path: str, leaf: namespace.Netns | None, port: str, inner: str, cidrs: str | Sequence[str], mtu: int
) -> int:
    """A veth from the bridge into the leaf's namespace, up and with its addresses; gives its index there."""
    cidrs = _listed(cidrs)
    with (
        rtnetlink.connect(path) as nl,
        rtnetlink.connect(leaf) as inside,
        namespace.opened(leaf if leaf is not None else "/proc/thread-self/ns/net") as descriptor,
    ):
        bridge = rtnetlink.link_index(nl, _BRIDGE)
        nl.run(rtnetlink.delete_link(port))
        inside.run(rtnetlink.delete_link(inner))
        nl.run(rtnetlink.add_veth(port, inner, peer_netns=descriptor, peer_mac=mac(cidrs[0]), mtu=mtu))
        nl.run(rtnetlink.set_link(port, master=bridge))
        link = rtnetlink.link_index(inside, inner)
        inside.run(*(rtnetlink.add_address(link, cidr) for cidr in cidrs), rtnetlink.set_link(link))
        rtnetlink.activate(nl, port)
        return link


def mac(cidr: str) -> str:
    """Of the leaf with this IPv4 address: a node that comes back has the MAC its neighbours remember."""
    return (b"\x0a\x59" + ipaddress.ip_interface(cidr).ip.packed[-4:]).hex(":")


def _is_host_link(name: str) -> bool:
    return name.startswith(_HOST_PREFIX) and len(name) == len(host_link(""))


@contextlib.contextmanager
def _settings(path: str) -> Iterator[str]:
    """The file of what the host's settings were, which is held meanwhile. It is shared by all clusters of the machine's
    user: the first to come notes, the last to go restores, and nobody comes while somebody finds to be the last."""
    directory = os.path.dirname(os.path.dirname(path))
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):  # after a reboot: nobody's cluster runs
            handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield os.path.join(directory, "host-settings.json")


def _note_settings(file: str, former: dict[str, str]) -> None:
    if former and not os.path.exists(file):
        with open(f"{file}.new", "w") as new:
            json.dump(former, new)
        os.rename(f"{file}.new", file)


def _restore_settings(file: str, host: namespace.Netns | None) -> None:
    with contextlib.suppress(FileNotFoundError):
        with open(file) as noted:
            namespace.set_sysctls(host, json.load(noted))
        os.unlink(file)
