"""The agent of a node (kubelet): registers it, keeps it alive in the API, and runs the pods that are assigned to it.

Everything it needs is passed in, so that the same agent drives real containers and simulated ones.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable

from sampan.api.status import ApiError
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.base.tasks import Tasks
from sampan.client.client import Client
from sampan.node import machine, shutdown
from sampan.node.config import AgentConfig, NodeHooks
from sampan.node.events import NodeEvents
from sampan.node.heartbeat import Heartbeat
from sampan.node.hooks import HookRunner
from sampan.node.housekeeping import Housekeeping, Observe, observe
from sampan.node.logrotate import LogRotator
from sampan.node.meter import Meter
from sampan.node.pods import admission
from sampan.node.pods.addresses import AddressPool
from sampan.node.pods.kit import Kit, Prober, Volumes
from sampan.node.pods.manager import PodManager, follow
from sampan.node.probes import ProbeManager
from sampan.node.registration import node_object
from sampan.node.runtime import Images, Runtime
from sampan.node.static import StaticPods
from sampan.node.statuses import StatusWriter
from sampan.node.volumes.manager import VolumeManager

log = logging.getLogger(__name__)


class Agent:
    """One node. `await start()` returns when it is registered and follows its pods; `await close()` lets go of them.

    client: with the identity system:node:NAME. volumes, prober: for nodes that have no files or processes.
    measure_machine: how much memory, disk and processes are left.
    """

    def __init__(
        self,
        client: Client,
        runtime: Runtime,
        images: Images,
        *,
        clock: Clock,
        ids: Ids,
        node_name: str,
        config: AgentConfig,
        hooks: NodeHooks | None = None,
        volumes: Volumes | None = None,
        prober: Prober | None = None,
        measure_machine: Observe = observe,
    ) -> None:
        self.client, self.runtime, self.images = client, runtime, images
        self.name, self.config, self.hooks = node_name, config, hooks or NodeHooks()
        self._clock = clock
        self.events = NodeEvents(client, clock, ids, node_name, config.events)
        self.statuses = StatusWriter(client, clock)
        self.heartbeat = Heartbeat(client, clock, config, node_name, self._tell)
        volumes = volumes or VolumeManager(
            client, clock, config, self._allocatable, ids, lambda: self.heartbeat.node, self.events.record
        )
        self.kit = Kit(
            client=client,
            runtime=runtime,
            images=images,
            clock=clock,
            ids=ids,
            config=config,
            hooks=self.hooks,
            volumes=volumes,
            prober=prober or ProbeManager(runtime, clock),
            events=self.events,
            statuses=self.statuses,
            lookup=self.lookup,
            node=lambda: self.heartbeat.node,
            run_hook=HookRunner(runtime, clock),
            images_changed=self._images_changed,
            host_ips=list(config.addresses or (config.address,)),
        )
        self.manager = PodManager(self.kit, node_name)
        self.meter = Meter(runtime, clock, alone=bool(config.root))
        self.housekeeping = Housekeeping(
            self.kit, self.manager, self.meter, self.heartbeat, clock, config, measure_machine
        )
        self.started_at = clock.now()
        self.manager.admit = self._admit
        self.manager.refresh = self.heartbeat.refresh
        self.static = StaticPods(config.static_pods, self.manager, node_name, clock.now)
        self._tasks = Tasks()
        self._ranges: list[str] = []

    async def start(self) -> None:
        """Take over what runs, register, follow. The node is Ready from its first status."""
        if self.config.root:
            os.makedirs(self.config.root, mode=0o755, exist_ok=True)
        await self.runtime.start(self.manager.exited)
        await self.manager.survey()
        capacity = dict(self.config.capacity) or machine.capacity(self.config.root, self.config.max_pods)
        info = self.config.node_info or machine.node_info()
        runtime, now = self.runtime, self._clock.now()
        node = node_object(self.name, self.config, capacity, info, runtime.name, now, runtime.handlers)
        self.heartbeat.node = node
        if self.config.static_pods:  # they run without an API, too
            await self.static.load()
            self._tasks.start(self._forever(self.static.run))
        self._use_range(await self.heartbeat.register(node))
        self._announce()
        loops = [self.manager.run, self.heartbeat.leases, self.heartbeat.statuses]
        if self.config.watch_node:
            loops.append(self._watch_node)
        if self.config.root:
            loops.append(LogRotator(self.manager, self.runtime, self._clock, self.config).run)
            loops.append(self.housekeeping.run)
        for loop in loops:
            self._tasks.start(self._forever(loop))
        self._images_changed()

    def _announce(self) -> None:
        """The events by which `kubectl describe node` tells when a node came."""
        self._tell("Normal", "Starting", "Starting kubelet.")
        states = ("NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady")
        for state in states:
            self._tell("Normal", state, f"Node {self.name} status is now: {state}")

    def _tell(self, type: str, reason: str, message: str) -> None:
        """An event about this node."""
        self.events.record(self.heartbeat.node, type, reason, message)

    async def _forever(self, loop: Callable[[], Awaitable[None]]) -> None:
        """A node does not go quiet because one of its loops met something unforeseen."""
        while True:
            try:
                return await loop()
            except Exception:
                log.exception("%s", loop.__qualname__)
            await self._clock.sleep(1.0)

    def _use_range(self, node: Object) -> None:
        """The pool of pod addresses follows the range the control plane assigned."""
        spec = node.get("spec", {})
        ranges = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        if not ranges or ranges == self._ranges:
            return
        self._ranges = ranges
        if isinstance(self.hooks.addresses, AddressPool) and self.hooks.addresses.cidr != ranges[0]:
            self.hooks.addresses.use(ranges[0])
        if self.hooks.pod_ranges is not None:
            self.hooks.pod_ranges(ranges)

    async def _watch_node(self) -> None:
        """Keep this node's own object current: its range, its labels."""
        fields = f"metadata.name={self.name}"
        async for kind, node, _ in follow(self.client, self._clock, "nodes", fields=fields):
            if node is None or kind == "DELETED":
                continue
            self.heartbeat.seen(node)
            self._use_range(node)

    async def shutdown(self, grace: float, critical: float) -> None:
        """End all pods before the node ends: within `grace` seconds, critical pods in the last `critical` of them."""
        self.heartbeat.set_problem(shutdown.PROBLEM)
        self._tell("Normal", "NodeShutdown", "Shutdown manager detected shutdown event")
        self.manager.admit = lambda pod, others: shutdown.REFUSAL
        await shutdown.end_pods(self.manager.drivers.values(), self._clock, grace, critical)

    def _admit(self, pod: Object, others: list[admission.Holder]) -> tuple[str, str] | None:
        return admission.judge(
            pod,
            self.heartbeat.node,
            others,
            pressures=self.housekeeping.pressure.conditions,
            unsafe_sysctls=self.config.unsafe_sysctls,
        )

    async def lookup(self, resource: str, namespace: str, name: str) -> Object | None:
        """An object that a pod names; None when it does not exist."""
        try:
            return await self.client.get(resource, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def _images_changed(self) -> None:
        """The node's status lists its images; simulated nodes spare themselves that."""
        if self.config.root:
            self._tasks.start(self._list_images())

    async def _list_images(self) -> None:
        self.heartbeat.set_images(await self.images.list())

    def _allocatable(self) -> Object:
        return self.heartbeat.node.get("status", {}).get("allocatable", {})

    def keep(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run something for as long as the agent runs (`loop` is begun anew when it fails)."""
        self._tasks.start(self._forever(loop))

    async def close(self) -> None:
        """Stop following; containers go on, the next agent takes them over."""
        await self._tasks.cancel()
        await self.manager.close()
        await self.kit.volumes.close()
        await self.statuses.close()
        await self.events.close()
        await self.runtime.close()
