"""What an ordinary user's cluster has in place of routes to the world: TCP out, node ports and load balancers in, DNS.

Runs in the process that has the `gateway`, in the namespace that plays the host. Out: connections to
addresses beyond the cluster are redirected to a port here, and joined with one the gateway makes. In: for every node
port and load balancer a listener on 127.0.0.1 of the machine. UDP does not leave, except questions to resolvers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from sampan.base.clock import Clock
from sampan.base.objects import ReadOnlyObject
from sampan.base.tasks import Tasks
from sampan.client.view import CachedView
from sampan.node.dns.server import DnsServer
from sampan.node.dns.upstream import Upstream, machine_resolvers
from sampan.node.network import expressions as x
from sampan.node.network import namespace, nftables
from sampan.node.network.gateway import Gateway
from sampan.node.network.nftables import OUTPUT, PREROUTING, Chain, Transaction
from sampan.node.network.services import service_key
from sampan.node.network.splice import Splicer

log = logging.getLogger(__name__)

_TABLE = "sampan-uplink"
_SO_ORIGINAL_DST = 80
_AT_ONCE = 64


class Uplink:
    """Sends TCP connections that leave the cluster through the gateway, by IPv4. `inside` are networks that stay."""

    def __init__(self, gateway: Gateway, inside: Sequence[str], netns: namespace.Netns | None = None) -> None:
        self._gateway = gateway
        self._inside = inside
        self._netns = netns
        self._splicer = Splicer()
        self._acceptor: _Acceptor | None = None

    async def start(self) -> None:
        """Raises OSError."""
        listener = namespace.run_in(self._netns, lambda: socket.create_server(("0.0.0.0", 0), backlog=1024))
        self._acceptor = _Acceptor(listener, self._carry)
        await asyncio.to_thread(self._redirect, listener.getsockname()[1])

    async def stop(self) -> None:
        if self._acceptor:
            await self._acceptor.close()
        await asyncio.to_thread(nftables.drop_table, x.IPV4, _TABLE, self._netns)
        await asyncio.to_thread(self._splicer.close)

    def _redirect(self, port: int) -> None:
        rule = x.l4proto(0) + x.compare(0, bytes((x.TCP,)))
        rule += x.fib_daddr_type(0) + x.compare(0, struct.pack("=I", x.LOCAL), x.NOT_EQUAL)
        for network in ("127.0.0.0/8", *(n for n in self._inside if ":" not in n)):
            address, _, prefix = network.partition("/")
            rule += x.daddr(x.IPV4, 0)
            rule += x.within(x.IPV4, 0, socket.inet_aton(address), int(prefix), x.NOT_EQUAL)
        rule += x.immediate(0, struct.pack(">H", port)) + x.redirect(0)
        changes = Transaction(x.IPV4, _TABLE)
        changes.fresh_table()
        # After the Services' chains (-100): what they have translated is inside by then.
        for chain in (
            Chain("prerouting", [rule], PREROUTING, -90, "nat"),
            Chain("output", [rule], OUTPUT, -90, "nat"),
        ):
            changes.add_chain(chain)
            changes.add_rules(chain)
        with nftables.connect(self._netns) as nl:
            nl.commit(changes)

    async def _carry(self, client: socket.socket) -> None:
        original = client.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
        (port,) = struct.unpack(">H", original[2:4])
        address = socket.inet_ntoa(original[4:8])
        self._splicer.join(client, await self._gateway.connect(address, port))


class Inbound:
    """Listens on the machine's 127.0.0.1 for node ports and load balancers of a view's services.

    A node port keeps its number. A load balancer listens on its port number too, if an ordinary user may have it
    and it is free. `problem(service, text)` is told of a port that cannot be had.
    """

    def __init__(
        self,
        view: CachedView,
        gateway: Gateway,
        *,
        problem: Callable[[ReadOnlyObject, str], None] | None = None,
        netns: namespace.Netns | None = None,
    ) -> None:
        self._view = view
        self._gateway = gateway
        self._problem = problem or (lambda service, text: log.warning("%s: %s", service_key(service), text))
        self._netns = netns
        self._splicer = Splicer()
        self._open: dict[int, tuple[tuple[str, int], _Acceptor]] = {}  # port -> (target, its acceptor)
        self._refused: set[tuple[str, int]] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._view.subscribe(self._notice)
        await self._sync()
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="inbound")

    async def stop(self) -> None:
        self._view.unsubscribe(self._notice)
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, acceptor in self._open.values():
            await acceptor.close()
        await asyncio.to_thread(self._splicer.close)

    @property
    def ports(self) -> dict[int, tuple[str, int]]:
        """Port on 127.0.0.1 -> the cluster's address and port behind it."""
        return {port: target for port, (target, _) in sorted(self._open.items())}

    def _notice(self, resource: str, old: ReadOnlyObject | None, new: ReadOnlyObject | None) -> None:
        if resource == "services":
            self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._sync()

    async def _sync(self) -> None:
        goal = inbound_ports(self._view.list("services"))
        for port, (target, acceptor) in list(self._open.items()):
            if goal.get(port, (None, None))[0] != target:
                del self._open[port]
                await acceptor.close()
        for port, (target, service) in goal.items():
            if port not in self._open:
                await self._listen(port, target, service)

    async def _listen(self, port: int, target: tuple[str, int], service: ReadOnlyObject) -> None:
        try:
            listener = await self._gateway.listen(port)
        except OSError as error:
            if (service_key(service), port) not in self._refused:
                self._refused.add((service_key(service), port))
                self._problem(service, f"127.0.0.1:{port} cannot be opened: {error.strerror}")
            return
        self._refused.discard((service_key(service), port))

        async def carry(client: socket.socket) -> None:
            family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
            inner = namespace.run_in(self._netns, lambda: socket.socket(family, socket.SOCK_STREAM))
            inner.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(inner, target)
            except BaseException:
                inner.close()
                raise
            self._splicer.join(client, inner)

        self._open[port] = (target, _Acceptor(listener, carry))


def inbound_ports(services: Sequence[ReadOnlyObject]) -> dict[int, tuple[tuple[str, int], ReadOnlyObject]]:
    """Port of 127.0.0.1 -> ((cluster address, port), service). Node ports come first, then load balancers by name."""
    result: dict[int, tuple[tuple[str, int], ReadOnlyObject]] = {}
    exposed = [s for s in services if (s.get("spec") or {}).get("type") in ("NodePort", "LoadBalancer")]
    for field in ("nodePort", "port"):
        for service in exposed:
            spec = service["spec"]
            if spec.get("clusterIP") in (None, "", "None") or (
                field == "port" and spec["type"] != "LoadBalancer"
            ):
                continue
            for port in spec.get("ports") or ():
                if port.get(field) and port.get("protocol", "TCP") == "TCP":
                    result.setdefault(port[field], ((spec["clusterIP"], port["port"]), service))
    return result


class RootlessNetwork:
    """Uplink, inbound ports and a DNS server for the nodes to ask, over one gateway.

    `view` follows services and endpointslices.discovery.k8s.io; `inside` are the cluster's networks (fabric, pods,
    services, load balancers); `dns_address` is the host's address on the fabric, which agents take as their resolver.
    """

    def __init__(
        self,
        gateway_fd: int,
        view: CachedView,
        clock: Clock,
        *,
        inside: Sequence[str],
        dns_address: str,
    ) -> None:
        self._gateway = Gateway(gateway_fd, clock)
        self.uplink = Uplink(self._gateway, inside)
        self.inbound = Inbound(view, self._gateway)
        resolvers = Upstream(machine_resolvers(loopback=True), clock, open_udp=self._gateway.udp)
        self.dns = DnsServer(view, clock, [dns_address], resolvers, networks=inside)

    async def start(self) -> None:
        """Raises OSError."""
        await self.uplink.start()
        await self.inbound.start()
        await self.dns.start()

    async def stop(self) -> None:
        await self.dns.stop()
        await self.inbound.stop()
        await self.uplink.stop()
        self._gateway.close()


class _Acceptor:
    """Accepts on a listener and gives each connection to `carry`; one that cannot be carried on is reset."""

    def __init__(self, listener: socket.socket, carry: Callable[[socket.socket], Any]) -> None:
        self._listener = listener
        self._carry = carry
        self._tasks = Tasks()
        listener.setblocking(False)
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        await self._tasks.cancel()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._tasks.start(self._hand_over(client))

    async def _hand_over(self, client: socket.socket) -> None:
        try:
            await self._carry(client)
        except OSError as error:
            log.debug("a connection was not carried on: %s", error)
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        except BaseException:
            client.close()
            raise
