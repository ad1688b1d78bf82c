"""A pod's cable: a point-to-point veth, an address /32, the gateway 169.254.1.1, a host route. No bridge.

Without a bridge there is no bridge-netfilter to trip over, Services and hairpin work whatever the machine's settings
are, and the host route doubles as the record of who has which address.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
from collections.abc import Iterable, Sequence

from sampan.node.network import namespace, rtnetlink
from sampan.node.network.hostports import HostPorts
from sampan.node.network.ipam import AddressPool
from sampan.node.network.netlink import Message, NetlinkSocket
from sampan.node.runtime import SandboxConfig

GATEWAY = {4: "169.254.1.1", 6: "fe80::1"}
# The same on the node's end of every pod: link-local to that cable, and known to the pod without asking.
_NODE_MAC = "ee:ee:ee:ee:ee:ee"


class PodNetwork:
    """Attaches the sandboxes of one node. Lives in the node's network namespace, or is told it as `netns`.

    `cidrs` are the node's pod ranges (spec.podCIDRs): one, or one of each IP family. `node_ips` become the source
    of the node's own traffic to pods (probes). `ports` opens host ports.
    """

    def __init__(
        self,
        cidrs: Sequence[str] = (),
        *,
        node_ips: Sequence[str] = (),
        mtu: int = 1500,
        netns: namespace.Netns | None = None,
        ports: HostPorts | None = None,
    ) -> None:
        self._netns = netns
        self._mtu = mtu
        self._ports = ports
        self._sources = {_version(ip): ip for ip in node_ips}
        self._attached: dict[str, tuple[str, ...]] = {}
        self._paths: dict[str, str] = {}  # of the attached sandboxes' namespaces
        self._repairing = asyncio.Lock()
        self._pools: list[AddressPool] = []
        if cidrs:
            self.set_cidrs(cidrs)

    def set_cidrs(self, cidrs: Sequence[str]) -> None:
        """The ranges, once the Node object has them; addresses in use are read from the kernel."""
        if [str(pool.network) for pool in self._pools] == list(cidrs):
            return
        with rtnetlink.connect(self._netns) as nl:
            taken = {*_pod_addresses(nl), *(a for own in self._attached.values() for a in own)}
        self._pools = [
            AddressPool(cidr, [a for a in taken if _version(a) == _version(cidr)]) for cidr in cidrs
        ]

    @property
    def ready(self) -> bool:
        return bool(self._pools)

    def addresses(self, sandbox_id: str) -> tuple[str, ...]:
        """What an attached sandbox has; the primary one first."""
        return self._attached.get(sandbox_id, ())

    async def attach(self, netns_path: str, sandbox_config: SandboxConfig) -> str:
        """Cables the namespace up and gives the pod's (primary) address; `config.ip` is kept if it is set.

        Repeating it for an attached sandbox is harmless. Raises OSError or PoolExhausted.
        """
        known = self._attached.get(sandbox_config.id)
        if known:
            return known[0]
        if not self._pools and not sandbox_config.ip:
            raise OSError("the node has no pod address range yet (spec.podCIDR)")
        addresses: list[str] = [] if self._pools else [sandbox_config.ip]
        try:
            for pool in self._pools:
                same = sandbox_config.ip and _version(sandbox_config.ip) == pool.network.version
                addresses.append(pool.take(sandbox_config.ip if same else ""))
            await asyncio.to_thread(self._cable, netns_path, veth_name(sandbox_config.id), addresses)
        except BaseException:
            self._release(addresses)
            raise
        self._attached[sandbox_config.id] = tuple(addresses)
        self._paths[sandbox_config.id] = netns_path
        if self._ports:
            await self._ports.publish(sandbox_config, addresses)
        return addresses[0]

    async def detach(self, sandbox_config: SandboxConfig) -> None:
        """Takes cable, routes and addresses away; a sandbox that has none is fine."""
        name = veth_name(sandbox_config.id)
        if self._ports:
            await self._ports.withdraw(sandbox_config)
        async with self._repairing:
            addresses = self._attached.pop(sandbox_config.id, None)
            self._paths.pop(sandbox_config.id, None)
        found = await asyncio.to_thread(self._cut, name)
        self._release(addresses or found or ([sandbox_config.ip] if sandbox_config.ip else []))

    async def adopt(self, netns_path: str, sandbox_config: SandboxConfig) -> str:
        """After a restart: this sandbox is still there. Gives its address.

        What it has is read from the kernel; a cable that is gone is laid anew with `config.ip`. Raises OSError.
        """
        found = await asyncio.to_thread(self._found, veth_name(sandbox_config.id))
        if not found:
            return await self.attach(netns_path, sandbox_config)
        own = tuple(dict.fromkeys([a for a in (sandbox_config.ip,) if a in found] + found))
        self._attached[sandbox_config.id] = own
        self._paths[sandbox_config.id] = netns_path
        for pool in self._pools:
            for address in own:
                pool.take(address)
        if self._ports:
            await self._ports.publish(sandbox_config, own)
        return own[0]

    async def repair(self) -> list[str]:
        """Lays the cables anew that somebody else has cut, or whose routes are gone. Gives the ids of their sandboxes."""
        async with self._repairing:
            return await asyncio.to_thread(self._repair)

    def _repair(self) -> list[str]:
        with rtnetlink.connect(self._netns) as nl:
            links = {link.index: link.name for link in rtnetlink.links(nl)}
            routes = rtnetlink.routes(nl, protocol=rtnetlink.PROTOCOL)
        there: dict[str, set[str]] = {}
        for route in routes:
            there.setdefault(links.get(route.link, ""), set()).add(route.destination.split("/")[0])
        cut = [
            id_
            for id_, addresses in list(self._attached.items())
            if not set(addresses) <= there.get(veth_name(id_), set())
        ]
        for id_ in cut:
            with contextlib.suppress(OSError, KeyError):  # its namespace may have ended
                self._cable(self._paths[id_], veth_name(id_), self._attached[id_])
        return cut

    def left(self, sandboxes: Iterable[SandboxConfig]) -> dict[str, tuple[SandboxConfig, list[str]]]:
        """Those of a former agent's sandboxes that still have a cable, with their addresses."""
        found = {config.id: (config, self._found(veth_name(config.id))) for config in sandboxes}
        return {id_: entry for id_, entry in found.items() if entry[1]}

    def _found(self, name: str) -> list[str]:
        """The addresses behind a cable, IPv4 first."""
        with rtnetlink.connect(self._netns) as nl:
            link = rtnetlink.link_named(nl, name)
            return _behind(nl, link.index) if link else []

    def _release(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            for pool in self._pools:
                pool.release(address)

    def _cable(self, netns_path: str, name: str, addresses: Sequence[str]) -> None:
        mac = pod_mac(addresses[0])
        with (
            namespace.opened(netns_path) as descriptor,
            rtnetlink.connect(netns_path) as inside,
            rtnetlink.connect(self._netns) as nl,
        ):
            veth = rtnetlink.add_veth(
                name,
                "eth0",
                peer_netns=descriptor,
                mac=_NODE_MAC,
                peer_mac=mac,
                mtu=self._mtu,
            )
            nl.run(rtnetlink.delete_link(name))  # left by an attempt that was interrupted
            nl.run(veth, rtnetlink.set_link(name))
            link = rtnetlink.link_index(nl, name)
            inside.run(*_pod_side(rtnetlink.link_index(inside, "eth0"), addresses))
            nl.run(*self._node_side(link, mac, addresses))
            rtnetlink.activate(nl, name)

    def _node_side(self, link: int, mac: str, addresses: Sequence[str]) -> list[Message]:
        result = []
        for address in addresses:
            version = _version(address)
            if version == 6:
                result.append(rtnetlink.add_address(link, f"{GATEWAY[6]}/64", rtnetlink.LINK))
            result.append(rtnetlink.neighbour(link, address, mac))
            source = self._sources.get(version, "")
            result.append(rtnetlink.add_route(_host_cidr(address), link=link, source=source))
        return result

    def _cut(self, name: str) -> list[str]:
        with rtnetlink.connect(self._netns) as nl:
            link = rtnetlink.link_named(nl, name)
            if link is None:
                return []
            found = _behind(nl, link.index)
            nl.run(rtnetlink.delete_link(link.index))
            return found


def _pod_side(link: int, addresses: Sequence[str]) -> list[Message]:
    result = [rtnetlink.set_link(1)]
    result += [rtnetlink.add_address(link, _host_cidr(address)) for address in addresses]
    result.append(rtnetlink.set_link(link))
    for version in sorted({_version(address) for address in addresses}):
        gateway = GATEWAY[version]
        result += [
            rtnetlink.neighbour(link, gateway, _NODE_MAC),
            rtnetlink.add_route(_host_cidr(gateway), link=link),
            rtnetlink.add_route("0.0.0.0/0" if version == 4 else "::/0", gateway=gateway, link=link),
        ]
    return result


def _behind(nl: NetlinkSocket, link: int) -> list[str]:
    found = rtnetlink.routes(nl, protocol=rtnetlink.PROTOCOL)
    return [route.destination.split("/")[0] for route in found if route.link == link]


def _pod_addresses(nl: NetlinkSocket) -> list[str]:
    """Addresses that have a host route of ours over a pod's cable."""
    cables = {link.index for link in rtnetlink.links(nl) if link.name.startswith("pod")}
    found = rtnetlink.routes(nl, protocol=rtnetlink.PROTOCOL)
    return [route.destination.split("/")[0] for route in found if route.link in cables and not route.gateway]


def veth_name(sandbox_id: str) -> str:
    """The node's end of a pod's cable: known from the sandbox alone, so that nothing needs to be remembered."""
    return "pod" + hashlib.sha256(sandbox_id.encode()).hexdigest()[:11]


def pod_mac(address: str) -> str:
    """A locally administered MAC made of the address, so that two pods never share one."""
    packed = ipaddress.ip_address(address).packed[-4:]
    return (b"\x0a\x58" + packed).hex(":")


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _host_cidr(address: str) -> str:
    return f"{address}/{32 if _version(address) == 4 else 128}"
