"""What packets cost: between pods, through a Service, through a tunnel; against a bare veth pair in the same run.

Two nodes and a pair of plain namespaces on this machine, nothing else: what limits is Python's copying in both ends,
the same for all, so the ratios tell. Every number is the best of several rounds that take turns.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from network_objects import endpoint, service, slice_of

from sampan.node.network import fabric, namespace, routes, rtnetlink
from sampan.node.network.node import prepare_node
from sampan.node.network.pod import PodNetwork
from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.routes import NodeRoutes
from sampan.node.network.ruleset import Config
from sampan.node.network.services import desired
from sampan.node.runtime import SandboxConfig

ROUNDS, SECONDS = 5, 0.6
_CHUNK = 1 << 20
_PORT = 8080
_VIP = "10.96.0.77"


class Machine:
    """node-1 with pod `client`, node-2 with pod `server`; namespaces `left` and `right` with a veth pair."""

    def __init__(self, directory: str, mode: str) -> None:
        self.directory, self.fabric = directory, f"{directory}/run/fabric"
        self.spaces: list[str] = []
        fabric.create(self.fabric)
        objects = [_node(number) for number in (1, 2)]
        for number in (1, 2):
            node = self.space(f"node-{number}")
            fabric.join(self.fabric, node, number, f"10.89.7.{number + 1}/24")
            prepare_node(netns=node)
            ways = NodeRoutes("eth0", node, sources=[f"10.89.7.{number + 1}"], mode=mode)
            ways.sync(routes.wanted(objects, f"node-{number}"))
            pods = PodNetwork([f"10.244.{number}.0/24"], netns=node, mtu=ways.pod_mtu)
            setattr(self, f"pods{number}", pods)

    def space(self, name: str) -> str:
        path = f"{self.directory}/{name}"
        namespace.create(path)
        self.spaces.append(path)
        return path

    async def pod(self, name: str, number: int) -> tuple[str, str]:
        """Its namespace and address."""
        path = self.space(name)
        config = SandboxConfig(name, name, name, "default", 0, name)
        return path, await getattr(self, f"pods{number}").attach(path, config)

    def pair(self) -> tuple[str, str, str]:
        """Both namespaces, and the address of the second."""
        left, right = self.space("left"), self.space("right")
        with rtnetlink.connect(left) as nl, rtnetlink.connect(right) as inside, namespace.opened(right) as fd:
            nl.run(rtnetlink.add_veth("bare", "eth0", peer_netns=fd))
            for side, name, address in ((nl, "bare", "192.0.2.1/24"), (inside, "eth0", "192.0.2.2/24")):
                link = rtnetlink.link_index(side, name)
                side.run(rtnetlink.add_address(link, address), rtnetlink.set_link(link))
        return left, right, "192.0.2.2"

    def close(self) -> None:
        fabric.destroy(self.fabric, "bench", host=self.spaces[0])
        for path in self.spaces:
            namespace.remove(path)


def _node(number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": f"node-{number}"},
        "spec": {"podCIDR": f"10.244.{number}.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": f"10.89.7.{number + 1}"}]},
    }


@contextmanager
def listening(space: str) -> Iterator[None]:
    """A server in the namespace that reads all it is sent, one connection at a time."""
    listener = namespace.run_in(space, lambda: socket.create_server(("0.0.0.0", _PORT), backlog=512))

    def serve() -> None:
        buffer = bytearray(_CHUNK)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while connection.recv_into(buffer):
                    pass

    threading.Thread(target=serve, daemon=True).start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def gigabits(space: str, address: str, port: int) -> float:
    """Per second, over one connection."""
    block = memoryview(bytes(_CHUNK))
    with namespace.run_in(space, lambda: socket.create_connection((address, port), 3)) as channel:
        sent, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            channel.sendall(block)
            sent += _CHUNK
        return sent * 8 / (time.perf_counter() - began) / 1e9


def connecting(space: str, address: str, port: int, count: int = 300) -> float:
    """Microseconds a new connection takes, median: the first packet finds its endpoint."""

    def connect() -> list[float]:
        took = []
        for _ in range(count):
            with socket.socket() as channel:
                channel.settimeout(3)
                began = time.perf_counter()
                channel.connect((address, port))
                took.append((time.perf_counter() - began) * 1e6)
        return took

    return statistics.median(namespace.run_in(space, connect))


async def throughput(directory: str) -> dict[str, Any]:
    """Gbit/s and shares, for plain routes and for vxlan."""
    results: dict[str, Any] = {}
    for mode in ("host-gw", "vxlan"):
        machine = Machine(f"{directory}/{mode}", mode)
        try:
            left, right, bare = machine.pair()
            client, _ = await machine.pod("client", 1)
            server, address = await machine.pod("server", 2)
            wanted = desired([service("web", _VIP)], [slice_of("web", endpoint(address))], Config())
            proxy = ServiceProxy(Config(), machine.spaces[0])
            await proxy.start(wanted)
            with listening(right), listening(server):
                found = _rounds(
                    {
                        "veth_pair": (left, bare, _PORT),
                        "pod_to_pod": (client, address, _PORT),
                        "through_service": (client, _VIP, 80),
                    }
                )
            proxy.close()
        finally:
            machine.close()
        results[mode] = {f"{name}_gbit_s": round(value, 2) for name, value in found.items()} | {
            "pod_to_pod_share_of_veth_pair": round(found["pod_to_pod"] / found["veth_pair"], 3),
            "service_share_of_direct": round(found["through_service"] / found["pod_to_pod"], 3),
        }
    return results


def _rounds(paths: Mapping[str, tuple[str, str, int]]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(ROUNDS):
        for name, where in paths.items():
            found[name].append(gigabits(*where))
    return {name: max(values) for name, values in found.items()}


async def first_packets(directory: str, services: Sequence[Any], slices: Sequence[Any]) -> dict[str, float]:
    """Microseconds until a connection stands: to a pod, and through one of many Services."""
    machine = Machine(directory, "host-gw")
    try:
        client, _ = await machine.pod("client", 1)
        server, address = await machine.pod("server", 2)
        config = Config()
        proxy = ServiceProxy(config, machine.spaces[0])
        more = [*slices, slice_of("first-packet", endpoint(address))]
        await proxy.start(desired([*services, service("first-packet", "10.96.255.77")], more, config))
        with listening(server):
            connecting(client, address, _PORT, 50)
            direct = connecting(client, address, _PORT)
            through = connecting(client, "10.96.255.77", 80)
        proxy.close()
    finally:
        machine.close()
    return {"direct_us": round(direct, 1), "through_service_us": round(through, 1)}
