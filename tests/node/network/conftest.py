"""Three nodes and the host as network namespaces, with pods: what the tests with real packets run on."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from sampan.node.network import fabric, namespace, node, routes, rtnetlink
from sampan.node.network.pod import PodNetwork
from sampan.node.runtime import SandboxConfig

sys.path.insert(0, os.path.dirname(__file__))  # for network_objects


def sandbox(name: str, ip: str = "") -> SandboxConfig:
    return SandboxConfig(name, f"uid-{name}", name, "default", 0, name, ip=ip)


@pytest.fixture
def host(tmp_path):
    """The path of an empty network namespace that stands for the machine's own."""
    path = str(tmp_path / "host")
    namespace.create(path)
    with rtnetlink.connect(path) as nl:
        nl.run(rtnetlink.set_link(1))
    yield path
    namespace.remove(path)


class Server:
    """Answers every TCP connection or UDP datagram on a port inside a namespace with its name and the caller's address."""

    def __init__(self, netns: str, name: str, port: int, kind: int, host: str = "0.0.0.0") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.name = name
        self.socket = namespace.run_in(netns, lambda: socket.socket(family, kind))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, port))
        if kind == socket.SOCK_STREAM:
            self.socket.listen(64)
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve, args=(kind,), daemon=True)
        self._thread.start()

    def _serve(self, kind: int) -> None:
        while True:
            ready, _, _ = select.select([self.socket, self._wake], [], [])
            if self._wake in ready:
                return
            if kind == socket.SOCK_STREAM:
                connection, peer = self.socket.accept()
                connection.sendall(f"{self.name} {peer[0]}".encode())
                connection.close()
            else:
                _, peer = self.socket.recvfrom(2048)
                self.socket.sendto(f"{self.name} {peer[0]}".encode(), peer)

    def close(self) -> None:
        os.write(self._stop, b"x")
        self._thread.join()
        self.socket.close()
        os.close(self._wake)
        os.close(self._stop)


class Echo:
    """Sends back what it is sent, over one TCP connection or to anybody by UDP."""

    def __init__(self, netns: str, port: int, kind: int) -> None:
        self.socket = namespace.run_in(netns, lambda: socket.socket(socket.AF_INET, kind))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            self.socket.listen()
        threading.Thread(target=self._serve, args=(kind,), daemon=True).start()

    def _serve(self, kind: int) -> None:
        with contextlib.suppress(OSError):
            if kind == socket.SOCK_DGRAM:
                while True:
                    data, peer = self.socket.recvfrom(2048)
                    if peer is None:  # closed
                        return
                    self.socket.sendto(data, peer)
            connection, _ = self.socket.accept()
            with connection:
                while data := connection.recv(2048):
                    connection.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Plan:
    """Addresses as the cluster's configuration gives them."""

    subnet = "10.89.7.0/24"
    host = "10.89.7.1"
    host_link = fabric.host_link("test")
    table = fabric.host_table("test")
    balancer = "10.97.255.1"

    def node(self, index: int) -> str:
        return f"10.89.7.{index + 2}"


class Machine:
    """A fabric with a "host" (a namespace of its own, so that a test cannot hurt the machine) and nodes."""

    def __init__(self, directory: str, count: int) -> None:
        self.directory = directory
        self.count = count
        self.plan = Plan()
        self.fabric = f"{directory}/run/fabric"
        self.host = f"{directory}/host"
        self.servers: list[Server | Echo] = []
        self.pods: dict[str, str] = {}
        namespace.create(self.host)
        fabric.create(self.fabric)
        fabric.join_host(self.fabric, "test", f"{self.plan.host}/24", host=self.host)
        self.networks = []
        for index in range(count):
            namespace.create(self.node(index))
            address = f"{self.plan.node(index)}/24"
            fabric.join(self.fabric, self.node(index), index + 1, address, gateways=[self.plan.host])
            node.prepare_node(["10.96.0.10"], self.node(index))
            cidrs = [f"10.244.{index}.0/24", f"fd00:244:{index}::/64"]
            network = PodNetwork(cidrs, node_ips=[self.plan.node(index)], netns=self.node(index))
            self.networks.append(network)
        self.fabric_client = f"{directory}/outsider"  # a machine that is on the fabric but not of the cluster
        self.outsider = self.plan.node(100)
        namespace.create(self.fabric_client)
        outside = f"{self.outsider}/24"
        fabric.join(self.fabric, self.fabric_client, 100, outside, gateways=[self.plan.host])
        self.sync_routes()

    def node(self, index: int) -> str:
        return f"{self.directory}/node-{index}"

    def node_objects(self) -> list[dict]:
        return [
            {
                "metadata": {"name": f"node-{index}"},
                "spec": {"podCIDR": f"10.244.{index}.0/24"},
                "status": {"addresses": [{"type": "InternalIP", "address": self.plan.node(index)}]},
            }
            for index in range(self.count)
        ]

    def sync_routes(self) -> None:
        nodes = self.node_objects()
        for index in range(self.count):
            routes.NodeRoutes("eth0", self.node(index)).sync(routes.wanted(nodes, f"node-{index}"))
        routes.NodeRoutes(self.plan.host_link, self.host, sources=[self.plan.host]).sync(routes.wanted(nodes))

    async def pod(self, name: str, node_index: int) -> str:
        """A pod; gives its address."""
        path = f"{self.directory}/pod-{name}"
        namespace.create(path)
        self.pods[name] = path
        return await self.networks[node_index].attach(path, sandbox(name))

    def serve(
        self, pod: str, port: int = 8080, kind: int = socket.SOCK_STREAM, host: str = "0.0.0.0"
    ) -> Server:
        server = Server(self.pods.get(pod, pod), pod, port, kind, host)
        self.servers.append(server)
        return server

    def echo(self, pod: str, port: int, kind: int) -> None:
        self.servers.append(Echo(self.pods[pod], port, kind))

    @contextlib.contextmanager
    def connection(self, netns: str, address: str, port: int, kind: int) -> Iterator[Callable[[str], str]]:
        """A function that says something over one connection and gives what comes back, or the error's name."""
        path = self.pods.get(netns, netns)
        with namespace.run_in(path, lambda: socket.socket(socket.AF_INET, kind)) as channel:
            channel.settimeout(0.7)
            channel.connect((address, port))

            def said(text: str) -> str:
                try:
                    channel.send(text.encode())
                    return channel.recv(2048).decode()
                except OSError as error:
                    return type(error).__name__

            yield said

    def ask(self, netns: str, address: str, port: int, timeout: float = 2.8) -> str:
        """What the server at the address says ("name peer"), or the name of the error."""

        def call() -> str:
            try:
                with socket.create_connection((address, port), timeout) as connection:
                    return connection.recv(200).decode()
            except OSError as error:
                return type(error).__name__

        return namespace.run_in(self.pods.get(netns, netns), call)

    def ask_udp(self, netns: str, address: str, port: int, client: socket.socket | None = None) -> str:
        def call() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
                return _exchange(client or own, address, port)

        return namespace.run_in(self.pods.get(netns, netns), call)

    def udp_client(self, netns: str) -> socket.socket:
        return namespace.run_in(
            self.pods.get(netns, netns), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        )

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for path in self.pods.values():
            namespace.remove(path)
        for index in range(self.count):
            namespace.remove(self.node(index))
        fabric.destroy(self.fabric, "test", host=self.host)
        namespace.remove(self.fabric_client)
        namespace.remove(self.host)


def _exchange(client: socket.socket, address: str, port: int) -> str:
    client.settimeout(2.8)
    try:
        client.sendto(b"?", (address, port))
        return client.recv(200).decode()
    except OSError as error:
        return type(error).__name__


@pytest.fixture
def machine(tmp_path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Machine(str(tmp_path), 3)
    yield made
    made.close()
