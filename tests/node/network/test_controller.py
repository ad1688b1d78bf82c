"""From a change in the cluster to rules in the kernel, and back when somebody damages them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time

import pytest
from network_objects import endpoint, service, slice_of
from picture import Picture

from sampan.base.clock import RealClock
from sampan.node.network import nftables, ruleset
from sampan.node.network.controller import ProxyController
from sampan.node.network.expressions import IPV4
from sampan.node.network.proxy import ServiceProxy
from sampan.node.network.routes import NodeRoutes
from sampan.node.network.ruleset import Config

pytestmark = pytest.mark.root


@contextlib.asynccontextmanager
async def controller(machine, view, index=0):
    routes = NodeRoutes("eth0", machine.node(index))
    made = ProxyController(
        view, ServiceProxy(Config(node=f"node-{index}"), machine.node(index)), RealClock(), routes
    )
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def in_kernel(machine, name, index=0):
    with nftables.connect(machine.node(index)) as nl:
        return nl.elements(IPV4, "sampan", name)


async def test_the_kernel_follows_the_cluster_at_little_cost(machine):
    view = Picture(service("old"), slice_of("old", endpoint("10.244.0.9", "node-0")))
    async with controller(machine, view) as made:
        assert len(in_kernel(machine, ruleset.VIPS)) == 1
        began = time.process_time()
        view.put(service("new", "10.96.1.2"))
        view.put(slice_of("new", endpoint("10.244.0.8", "node-0"), endpoint("10.244.1.8", "node-1")))
        await made.settled()
        assert time.process_time() - began < 0.2
        assert len(in_kernel(machine, ruleset.VIPS)) == 2
        assert len(in_kernel(machine, ruleset.ENDPOINTS)) == 3
        view.delete(service("old"))
        view.delete(slice_of("old"))
        view.put(slice_of("new"))
        await made.settled()
        assert in_kernel(machine, ruleset.VIPS) == {} == in_kernel(machine, ruleset.ENDPOINTS)
        assert len(in_kernel(machine, ruleset.REJECTED)) == 1


async def test_a_restart_takes_over_and_drops_what_is_gone(machine):
    view = Picture(service("web"), slice_of("web", endpoint("10.244.0.9", "node-0")))
    async with controller(machine, view):
        pass
    before = in_kernel(machine, ruleset.VIPS)
    view.put(service("more", "10.96.1.2"))
    async with controller(machine, view):
        after = in_kernel(machine, ruleset.VIPS)
        assert before.items() <= after.items()  # rules outlived the controller, and mean the same


@pytest.mark.parametrize("damage", ["delete table ip sampan", "flush chain ip sampan services"])
async def test_damage_is_repaired(machine, damage):
    view = Picture(service("web"), slice_of("web", endpoint("10.244.0.9", "node-0")))
    async with controller(machine, view) as made:
        chain = ["nsenter", f"--net={machine.node(0)}", "nft", "list", "chain", "ip", "sampan", "services"]
        whole = subprocess.run(chain, capture_output=True, check=True).stdout
        subprocess.run(["nsenter", f"--net={machine.node(0)}", "nft", damage], check=True)
        async with asyncio.timeout(60):
            while subprocess.run(chain, capture_output=True).stdout != whole:
                await asyncio.sleep(0.02)
        await made.settled()
        assert len(in_kernel(machine, ruleset.VIPS)) == 1


async def test_a_pod_is_withdrawn_once_no_service_sends_to_it(machine):
    pod = {"status": {"podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}]}}
    view = Picture(service("web"), slice_of("web", endpoint("10.244.0.9", "node-0")))
    async with controller(machine, view) as made:
        assert await made.withdrawn(pod, cap=0.05) is False
        waiting = asyncio.create_task(made.withdrawn(pod))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        view.put(slice_of("web", endpoint("10.244.0.9", "node-0", ready=False, terminating=True)))
        assert await waiting is True
        assert await made.withdrawn(pod) is True


async def test_routes_follow_nodes(machine):
    nodes = machine.node_objects()
    view = Picture(*({"kind": "Node"} | node for node in nodes[:2]))
    async with controller(machine, view) as made:

        def routes():
            return subprocess.run(
                ["nsenter", f"--net={machine.node(0)}", "ip", "route"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout

        assert "10.244.1.0/24 via 10.89.7.3" in routes() and "10.244.2.0" not in routes()
        view.put({"kind": "Node"} | nodes[2])
        await made.settled()
        assert "10.244.2.0/24 via 10.89.7.4" in routes()
        view.delete({"kind": "Node"} | nodes[1])
        await made.settled()
        assert "10.244.1.0/24" not in routes()
