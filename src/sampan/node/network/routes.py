"""Ways to the pods of other nodes, following Node objects: via the node's own address (host-gw), nothing to encapsulate.

`wanted` is a pure function of the Node objects; `NodeRoutes` makes the kernel agree. A route that somebody deleted or
added under our protocol number is put right at the next change or `sync`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sampan.node.network import namespace, rtnetlink

Object = Mapping[str, Any]


def pod_cidrs(node: Object) -> list[str]:
    spec = node.get("spec", {})
    return spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])


def internal_ips(node: Object) -> list[str]:
    addresses = node.get("status", {}).get("addresses") or []
    return [entry["address"] for entry in addresses if entry.get("type") == "InternalIP"]


def wanted(nodes: Iterable[Object], me: str = "") -> dict[str, str]:
    """pod CIDR -> address of its node, for every node but `me`. Of two nodes that claim a range the first by name has it."""
    result: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: node["metadata"]["name"]):
        if node["metadata"]["name"] == me:
            continue
        via = {6 if ":" in ip else 4: ip for ip in reversed(internal_ips(node))}
        for cidr in pod_cidrs(node):
            gateway = via.get(6 if ":" in cidr else 4)
            if gateway:
                result.setdefault(str(ipaddress.ip_network(cidr, strict=False)), gateway)
    return result


def overlaps(nodes: Iterable[Object]) -> dict[str, str]:
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
    """Keeps the routes over `link_name` of a namespace as they are wanted."""

    def __init__(
        self, link_name: str = "eth0", netns: namespace.Netns | None = None, source: str = ""
    ) -> None:
        self.link_name = link_name
        self.netns = netns
        self._source = source
        self._last: dict[str, str] | None = None

    def changes(self, goal: Mapping[str, str]) -> bool:
        """Whether `sync` would have something to do, as far as is known."""
        return goal != self._last

    def forget(self) -> None:
        """What the kernel has is not known any more: somebody else has changed it."""
        self._last = None

    def sync(self, goal: Mapping[str, str]) -> Sequence[str]:
        """Adds, replaces and deletes routes (blocks; call it in a thread). Gives the destinations that changed."""
        changed = []
        with rtnetlink.connect(self.netns) as nl:
            link = rtnetlink.link_index(nl, self.link_name)
            ours = [
                r for r in rtnetlink.routes(nl, protocol=rtnetlink.PROTOCOL) if r.gateway and r.link == link
            ]
            present = {r.destination: r for r in ours if not r.destination.endswith("/0")}
            for destination, route in present.items():
                if destination not in goal:
                    nl.run(rtnetlink.delete_route(route))
                    changed.append(destination)
            for destination, gateway in goal.items():
                if destination not in present or present[destination].gateway != gateway:
                    nl.run(self._route(destination, gateway, link))
                    changed.append(destination)
        self._last = dict(goal)
        return changed

    def _route(self, destination: str, gateway: str, link: int) -> Any:
        source = self._source if (":" in self._source) == (":" in destination) else ""
        return rtnetlink.add_route(
            destination, gateway=gateway, link=link, source=source, onlink=True, metric=metric_of(link)
        )


def metric_of(link: int) -> int:
    """Routes of several clusters to the same range can be there together: that of the newest is used, none is replaced."""
    return max(1, 10000 - link)
