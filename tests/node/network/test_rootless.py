"""An ordinary user's way out and in: a namespace without any route, and a gateway outside of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest
from network_objects import service
from picture import Picture

from sampan.base.clock import RealClock
from sampan.node.network import namespace, rtnetlink
from sampan.node.network.forward import run_gateway
from sampan.node.network.gateway import Gateway
from sampan.node.network.rootless import Inbound, Uplink, inbound_ports


def outside_address() -> str:
    """An address of this machine that is not on loopback, or a skip."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.200", 9))
        except OSError:
            pytest.skip("this machine has no route out")
        return probe.getsockname()[0]


@contextlib.asynccontextmanager
async def gateway():
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=run_gateway, args=(outside,))
    thread.start()
    made = Gateway(inside.fileno(), RealClock())
    try:
        yield made
    finally:
        made.close()
        inside.close()
        thread.join()
        outside.close()


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
def island(tmp_path):
    path = str(tmp_path / "island")
    namespace.create(path)
    with rtnetlink.connect(path) as nl:
        nl.run(rtnetlink.set_link(1), rtnetlink.add_route("0.0.0.0/0", link=1, source="127.0.0.1"))
    yield path
    namespace.remove(path)


@pytest.mark.root
async def test_connections_out_are_carried_by_the_gateway(island):
    server = await asyncio.start_server(echo, outside_address(), 0)
    address = server.sockets[0].getsockname()
    async with gateway() as way:
        uplink = Uplink(way, ["10.96.0.0/16"], island)
        await uplink.start()

        def talk() -> bytes:
            with socket.create_connection(address, 60) as connection:
                connection.sendall(payload)
                connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(1 << 20), b""))

        payload = bytes(range(256)) * 8192
        answer = await asyncio.to_thread(namespace.run_in, island, talk)
        assert answer == payload
        unused = (address[0], 1)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(
                namespace.run_in, island, lambda: socket.create_connection(unused, 5).recv(1).decode()[0]
            )
        await uplink.stop()
    server.close()


@pytest.mark.root
async def test_node_ports_and_load_balancers_are_on_the_machines_loopback(island):
    listener = namespace.run_in(island, lambda: socket.create_server(("127.0.0.1", 0)))
    server = await asyncio.start_server(echo, sock=listener)
    target = listener.getsockname()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    web = service("web", target[0], target[1], type="NodePort", node_port=port)
    view, problems = Picture(web), []
    async with gateway() as way:
        inbound = Inbound(view, way, netns=island, problem=lambda service, text: problems.append(text))
        await inbound.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.read(99) == b"hello"
        writer.close()
        taken = socket.create_server(("127.0.0.1", 0))
        view.put(service("other", "127.0.0.9", 80, type="NodePort", node_port=taken.getsockname()[1]))
        view.delete(web)
        async with asyncio.timeout(60):
            while not problems or inbound.ports:
                await asyncio.sleep(0.01)
        assert "in use" in problems[0] and inbound.ports == {}
        taken.close()
        await inbound.stop()
    server.close()


def test_a_node_port_goes_before_a_load_balancers_port():
    first = service("a", "10.96.0.2", 30000, type="LoadBalancer")
    second = service("b", "10.96.0.3", 80, type="NodePort", node_port=30000)
    hidden = service("c", "10.96.0.4", 81)
    ports = {port: target for port, (target, _) in inbound_ports([first, second, hidden]).items()}
    assert ports == {30000: ("10.96.0.3", 80)}
