"""The memory fidelity: the real server, controllers, scheduler and agents on one event loop, with time in your hand.

    async with Cluster(nodes=3) as cluster:
        await cluster.client.create("deployments.apps", deployment, "default")
        await cluster.settle()                # everything that can happen now has happened
        await cluster.advance(60)             # a minute passes, in microseconds

With the same `seed` two runs write the same history, byte for byte. Needs asyncio's own loop, as pytest has it.
"""

from __future__ import annotations

from typing import Any, Self

from sampan.base import pki
from sampan.base.clock import VirtualClock
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.client.messages import User
from sampan.cluster.planks import ControlPlane, Options
from sampan.node.simulated_node import SimulatedNode
from sampan.store.memory import MemoryStore
from sampan.testing.connector import SimulatedConnector

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


class Cluster:
    """An async context manager. `options` are fields of `cluster.planks.Options`."""

    def __init__(self, nodes: int = 1, *, seed: int = 1, **options: Any) -> None:
        self.clock = VirtualClock()
        self.ids = Ids(seed)
        self.store = MemoryStore(self.clock)
        self.nodes: dict[str, SimulatedNode] = {}
        self._count = nodes
        options.setdefault("token_key", pki.fixed_key())
        options.setdefault("nodes", SimulatedConnector(self.nodes))
        options.setdefault("load_balancer_pool", "10.97.255.0/24")
        self.plane = ControlPlane(self.store, self.clock, self.ids, Options(**options))

    @property
    def client(self) -> Client:
        """The administrator."""
        return self.plane.client(ADMIN, "test")

    async def add_node(self, name: str = "", **settings: Any) -> SimulatedNode:
        """Start a node; `settings` are those of `SimulatedNode`, such as capacity and labels."""
        name = name or f"node-{len(self.nodes) + 1}"
        user = User(f"system:node:{name}", ("system:nodes", "system:authenticated"))
        settings.setdefault("pod_cidr", f"10.244.{len(self.nodes) + 1}.0/24")
        node = SimulatedNode(self.plane.client(user, "kubelet"), name, self.clock, self.ids, **settings)
        self.nodes[name] = node
        await node.start()
        return node

    async def settle(self) -> None:
        """Return when nobody can do anything more at this instant."""
        await self.clock.settle()

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that happens in it."""
        await self.clock.advance(seconds)

    async def __aenter__(self) -> Self:
        await self.plane.start()
        for _ in range(self._count):
            await self.add_node()
        await self.settle()
        return self

    async def __aexit__(self, *failure: object) -> None:
        for node in self.nodes.values():
            await node.stop()
        await self.plane.stop()
        await self.store.close()
