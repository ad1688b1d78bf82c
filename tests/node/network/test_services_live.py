"""Services with real packets: three nodes, pods, connections through virtual addresses."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections import Counter

import pytest
from network_objects import endpoint, service, slice_of

from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.ruleset import Config
from sampan.node.network.services import desired

pytestmark = pytest.mark.root


class Cluster:
    """The machine, with a proxy on each node and on the host."""

    def __init__(self, machine):
        self.machine = machine
        inside = ("10.244.0.0/16", machine.plan.subnet, "10.96.0.0/16")
        self.proxies = [
            ServiceProxy(
                Config(node=f"node-{i}", egress=(f"10.244.{i}.0/24",), inside=inside, loopback=True),
                machine.node(i),
            )
            for i in range(machine.count)
        ]
        host = Config(table=machine.plan.table, egress=(machine.plan.subnet,), inside=inside, loopback=True)
        self.proxies.append(ServiceProxy(host, machine.host))

    async def start(self):
        for proxy in self.proxies:
            await proxy.start()

    async def apply(self, services, slices):
        names = {f"default/{s['metadata']['name']}" for s in services}
        for proxy in self.proxies:
            former = {name: proxy.programmed(name) for name in names}
            await proxy.change(desired(services, slices, proxy.config, former))

    def close(self):
        for proxy in self.proxies:
            proxy.close()


@contextlib.asynccontextmanager
async def cluster(machine):
    made = Cluster(machine)
    await made.start()
    try:
        yield made
    finally:
        made.close()


async def three_servers(machine, kind=socket.SOCK_STREAM):
    endpoints = []
    for index in range(3):
        address = await machine.pod(f"web-{index}", index)
        machine.serve(f"web-{index}", 8080, kind)
        endpoints.append(endpoint(address, f"node-{index}"))
    await machine.pod("client", 0)
    return endpoints


def spread(machine, source, address, port, times=40):
    return Counter(machine.ask(source, address, port).split()[0] for _ in range(times))


async def test_pods_reach_each_other_and_the_host(machine):
    a = await machine.pod("a", 0)
    b = await machine.pod("b", 1)
    machine.serve("b")
    machine.serve(machine.host, 9000)
    assert machine.ask("a", b, 8080) == f"b {a}"
    assert machine.ask(machine.host, b, 8080) == f"b {machine.plan.host}"
    assert machine.ask(machine.node(1), b, 8080) == f"b {machine.plan.node(1)}"
    assert machine.ask("a", machine.plan.host, 9000).endswith(a)


async def test_a_service_spreads_load_from_everywhere(machine):
    endpoints = await three_servers(machine)
    async with cluster(machine) as net:
        await net.apply([service("web", node_port=30080)], [slice_of("web", *endpoints)])
        for source in ("client", machine.node(1), machine.host):
            assert set(spread(machine, source, "10.96.1.1", 80)) == {"web-0", "web-1", "web-2"}, source
        for address in (machine.plan.node(0), machine.plan.node(2)):
            assert set(spread(machine, machine.host, address, 30080)) == {"web-0", "web-1", "web-2"}
        assert set(spread(machine, machine.host, "127.0.0.1", 30080)) == {"web-0", "web-1", "web-2"}


async def test_a_pod_reaches_itself_through_its_service(machine):
    endpoints = await three_servers(machine)
    async with cluster(machine) as net:
        await net.apply([service("web")], [slice_of("web", endpoints[0])])
        assert machine.ask("web-0", "10.96.1.1", 80).startswith("web-0 ")


async def test_refused_at_once_without_endpoints_and_at_unknown_addresses(machine):
    await three_servers(machine)
    async with cluster(machine) as net:
        await net.apply([service("web", node_port=30080)], [])
        for source in ("client", machine.node(0), machine.host):
            assert machine.ask(source, "10.96.1.1", 80) == "ConnectionRefusedError"
            assert machine.ask(source, "10.96.200.200", 80) == "ConnectionRefusedError"
            assert machine.ask(source, machine.plan.node(1), 30080) == "ConnectionRefusedError"


async def test_endpoints_come_and_go(machine):
    endpoints = await three_servers(machine)
    web = service("web")
    async with cluster(machine) as net:
        for used in ([0, 1, 2], [2], [1, 2], [0]):
            await net.apply([web], [slice_of("web", *[endpoints[i] for i in used])])
            assert set(spread(machine, "client", "10.96.1.1", 80)) == {f"web-{i}" for i in used}


async def test_local_policy_keeps_the_clients_address(machine):
    endpoints = await three_servers(machine)
    balancer = machine.plan.balancer
    web = service(
        "web", type="LoadBalancer", node_port=30080, ingress=[balancer], externalTrafficPolicy="Local"
    )
    async with cluster(machine) as net:
        await net.apply([web], [slice_of("web", *endpoints[1:])])
        answers = {machine.ask(machine.host, balancer, 80) for _ in range(20)}
        assert answers == {f"web-1 {machine.plan.host}", f"web-2 {machine.plan.host}"}
        node_2 = machine.plan.node(2)
        assert {machine.ask(machine.fabric_client, node_2, 30080) for _ in range(9)} == {
            f"web-2 {machine.outsider}"
        }
        assert machine.ask(machine.fabric_client, machine.plan.node(0), 30080, 0.5) == "TimeoutError"
        assert set(spread(machine, "client", balancer, 80)) == {"web-1", "web-2"}


async def test_load_balancer_source_ranges(machine):
    endpoints = await three_servers(machine)
    balancer = machine.plan.balancer
    web = service(
        "web", type="LoadBalancer", ingress=[balancer], loadBalancerSourceRanges=[f"{machine.plan.host}/32"]
    )
    async with cluster(machine) as net:
        await net.apply([web], [slice_of("web", *endpoints)])
        assert machine.ask(machine.host, balancer, 80).startswith("web-")
        assert machine.ask(machine.node(0), balancer, 80, 0.5) == "TimeoutError"


async def test_session_affinity(machine):
    endpoints = await three_servers(machine)
    web = service("web", sessionAffinity="ClientIP", node_port=30080)
    async with cluster(machine) as net:
        await net.apply([web], [slice_of("web", *endpoints)])
        chosen = spread(machine, "client", "10.96.1.1", 80)
        assert len(chosen) == 1
        kept = next(iter(chosen))
        others = [e for i, e in enumerate(endpoints) if f"web-{i}" != kept]
        await net.apply([web], [slice_of("web", *others)])
        moved = spread(machine, "client", "10.96.1.1", 80)
        assert len(moved) == 1 and kept not in moved
        assert len(spread(machine, machine.host, machine.plan.node(0), 30080)) == 1


async def test_udp_clients_are_moved_when_their_endpoint_goes(machine):
    endpoints = await three_servers(machine, socket.SOCK_DGRAM)
    dns = service("dns", port=53, protocol="UDP")
    client = None
    async with cluster(machine) as net:
        await net.apply([dns], [slice_of("dns", endpoints[1], protocol="UDP")])
        client = machine.udp_client("client")
        assert machine.ask_udp("client", "10.96.1.1", 53, client).startswith("web-1 ")
        await net.apply([dns], [slice_of("dns", endpoints[2], protocol="UDP")])
        assert machine.ask_udp("client", "10.96.1.1", 53, client).startswith("web-2 ")
        await net.apply([dns], [])
        assert machine.ask_udp("client", "10.96.1.1", 53, client) in (
            "ConnectionRefusedError",
            "TimeoutError",
        )
        await net.apply([dns], [slice_of("dns", endpoints[0], protocol="UDP")])
        assert machine.ask_udp("client", "10.96.1.1", 53, client).startswith("web-0 ")
        client.close()


async def test_partition_and_heal(machine):
    from sampan.node.network import fabric

    a = await machine.pod("a", 0)
    b = await machine.pod("b", 1)
    machine.serve("b")
    ends = (machine.node(0), machine.node(1), machine.plan.node(0), machine.plan.node(1))
    fabric.partition(*ends)
    assert machine.ask("a", b, 8080, 0.3) != f"b {a}"
    fabric.heal(*ends)
    assert machine.ask("a", b, 8080) == f"b {a}"


async def test_loopback_is_of_the_node_alone(machine):
    """A node port answers there; what others send to 127.0.0.1 does not reach the node's servers."""
    ends = await three_servers(machine)
    async with cluster(machine) as c:
        await c.apply([service("web", node_port=30080, type="NodePort")], [slice_of("web", *ends)])
        assert len(spread(machine, machine.node(0), "127.0.0.1", 30080)) == 3
    private = machine.udp_client(machine.node(0))
    private.bind(("127.0.0.1", 9000))
    private.settimeout(0.3)
    machine.udp_client(machine.node(0)).sendto(b"from here", ("127.0.0.1", 9000))
    assert private.recv(100) == b"from here"
    stranger = ["nsenter", f"--net={machine.fabric_client}", "ip", "route"]
    for command in (
        "del local 127.0.0.0/8 dev lo table local",
        "del local 127.0.0.1 dev lo table local",
        f"add 127.0.0.1/32 via {machine.plan.node(0)} dev eth0 src {machine.outsider}",
    ):
        subprocess.run([*stranger, *command.split()], check=True)
    machine.udp_client(machine.fabric_client).sendto(b"from elsewhere", ("127.0.0.1", 9000))
    with pytest.raises(TimeoutError):
        private.recv(100)
    private.close()
