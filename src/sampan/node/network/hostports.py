"""hostPort: a port of the node that leads to one pod on it, as further elements of the Services' table.

To the kernel a host port is a node port with a single endpoint here: the same chains, no masquerading, so that the pod
sees who calls. Rules: Pod API reference, `containers[].ports[].hostPort` and `hostIP`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from sampan.node.network import ruleset
from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.ruleset import Balance
from sampan.node.network.services import Element, Entries, pack_address, pack_key, pack_port
from sampan.node.runtime import SandboxConfig

_EVERY_ADDRESS = ("", "0.0.0.0", "::")


def entries(config: SandboxConfig, addresses: Iterable[str]) -> Entries:
    """The elements of a sandbox's host ports, in each IP version it has an address of."""
    result: Entries = {}
    for address in addresses:
        version = 6 if ":" in address else 4
        packed = pack_address(address)
        for port in config.ports:
            everywhere = port.host_ip in _EVERY_ADDRESS
            if not everywhere and (":" in port.host_ip) != (version == 6):
                continue
            to = bytes(len(packed)) if everywhere else pack_address(port.host_ip)
            key = pack_key(to, port.protocol, port.host_port)
            result[Element(version, ruleset.VIPS, key)] = Balance(1, node_port=everywhere)
            place = key + struct.pack("=I", 0)
            result[Element(version, ruleset.ENDPOINTS, place)] = packed + pack_port(port.container_port)
        if config.ports:
            result[Element(version, ruleset.HAIRPIN, packed + packed)] = None
    return result


def key(sandbox_id: str) -> str:
    """What the proxy knows a sandbox's host ports by: no Service has such a name."""
    return f"hostport/{sandbox_id}"


class HostPorts:
    """Publishes the ports of a node's sandboxes through its `ServiceProxy`."""

    def __init__(self, proxy: ServiceProxy) -> None:
        self._proxy = proxy

    def expect(self, sandboxes: Mapping[str, tuple[SandboxConfig, Iterable[str]]]) -> None:
        """Before the proxy starts: sandboxes a former agent left, so that their ports never close."""
        self._proxy.expect({key(id_): entries(*sandbox) for id_, sandbox in sandboxes.items()})

    async def publish(self, config: SandboxConfig, addresses: Iterable[str]) -> None:
        """Opens them; returns when the kernel has them. Raises OSError."""
        if config.ports:
            await self._proxy.change({key(config.id): entries(config, addresses)})

    async def withdraw(self, config: SandboxConfig) -> None:
        if config.ports:
            await self._proxy.change({key(config.id): {}})
