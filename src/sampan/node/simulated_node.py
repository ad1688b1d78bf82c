"""A whole node in a few objects: the real agent over the simulated runtime, no files, no network, no processes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.node.agent import Agent
from sampan.node.api.server import KubeletApi
from sampan.node.config import AgentConfig, NodeHooks
from sampan.node.pods.addresses import AddressPool
from sampan.node.pods.kit import ProbeLooks
from sampan.node.pods.podspec import find_container
from sampan.node.runtime import Image, Mount
from sampan.node.simulated import SimulatedImages, SimulatedRuntime, behaviour, seconds

if TYPE_CHECKING:
    from sampan.node.pods.driver import PodDriver

CAPACITY = {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"}
_INFO = {
    "kernelVersion": "simulated",
    "osImage": "Simulated Linux",
    "operatingSystem": "linux",
    "architecture": "amd64",
}


class SimulatedNode:
    """`await start()` registers the node; `await stop()` leaves it as a crash would; `await start()` brings it back.

    client: as the identity system:node:NAME. capacity: overrides of `CAPACITY`.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        clock: Clock,
        ids: Ids,
        *,
        capacity: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, str]] = (),
        pod_cidr: str = "",
        latency: float = 0.0,
        events: bool = True,
        lease_period: float = 10.0,
        images: SimulatedImages | None = None,
        hooks: NodeHooks | None = None,
    ) -> None:
        number = zlib.crc32(name.encode())
        self.name = name
        self.runtime = SimulatedRuntime(clock, latency)
        self.images = images or SimulatedImages()
        self.prober = SimulatedProber(clock)
        self.volumes = SimulatedVolumes()
        self._client, self._clock, self._ids = client, clock, ids
        self._hooks = hooks or NodeHooks(addresses=AddressPool(pod_cidr or _cidr(number)))
        self._config = AgentConfig(
            address=f"10.{64 + (number >> 16) % 32}.{number >> 8 & 255}.{number & 255}",
            capacity={**CAPACITY, **(capacity or {})},
            labels=labels or {},
            taints=taints,
            pod_cidr=pod_cidr,
            node_info=_INFO,
            events=events,
            lease_period=lease_period,
            watch_node=False,
        )
        self.agent: Agent | None = None
        self.api: KubeletApi | None = None

    async def start(self) -> None:
        """Register and begin to follow the node's pods."""
        self.agent = Agent(
            self._client,
            self.runtime,
            self.images,
            clock=self._clock,
            ids=self._ids,
            node_name=self.name,
            config=self._config,
            hooks=self._hooks,
            volumes=self.volumes,
            prober=self.prober,
        )
        self.api = KubeletApi(self.agent, clock=self._clock)
        await self.agent.start()

    async def stop(self) -> None:
        """The agent ends; its containers go on, unheard."""
        if self.agent:
            await self.agent.close()
            self.agent = self.api = None

    close = stop

    async def power_off(self) -> None:
        """The agent and all its containers end."""
        await self.stop()
        self.runtime.power_off()

    def set_ready(self, pod: str, ready: bool, container: str = "", namespace: str = "default") -> None:
        """Let the readiness probes of a pod answer so from now on."""
        self.prober.force(self._driver(pod, namespace), container, "readiness", ready)

    def set_live(self, pod: str, live: bool, container: str = "", namespace: str = "default") -> None:
        """Let the liveness probes of a pod answer so from now on."""
        self.prober.force(self._driver(pod, namespace), container, "liveness", live)

    def crash(self, pod: str, container: str = "", code: int = 1, namespace: str = "default") -> None:
        """End a pod's container as if its process had exited with `code`."""
        world = self._driver(pod, namespace).world
        for status in world.running():
            if container in ("", status.config.name):
                self.runtime.kill(status.config.id, code, "Completed" if code == 0 else "Error")

    def use(
        self, pod: str, container: str = "", *, cpu: str = "", memory: str = "", namespace: str = "default"
    ) -> None:
        """From now on a pod's containers use so much each (quantities): seen by `kubectl top` and autoscalers."""
        for status in self._driver(pod, namespace).world.running():
            if container in ("", status.config.name):
                self.runtime.use(status.config.id, cpu=cpu, memory=memory)

    def _driver(self, pod: str, namespace: str) -> PodDriver:
        assert self.agent is not None, "the node is stopped"
        for driver in self.agent.manager.drivers.values():
            meta = driver.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, pod):
                return driver
        raise KeyError(f"node {self.name} has no pod {namespace}/{pod}")


def pod_range(number: int) -> str:
    """The pod range of the `number`th node, from 10.244.1.0/24 on; 32,768 of them are distinct."""
    place = (244 << 8) + number
    return f"10.{128 + (place >> 8) % 128}.{place & 255}.0/24"


def _cidr(number: int) -> str:
    """A range derived from the node's name, for when nobody assigns one."""
    return f"10.{128 + (number >> 8) % 64}.{number & 255}.0/24"


class SimulatedVolumes:
    """Volumes of pods without files: all there, nothing to bind."""

    async def mount(self, pod: Object) -> None:
        pass

    async def mounts(
        self,
        pod: Object,
        container: Object,
        env: Mapping[str, str],
        ips: Sequence[str],
        images: Mapping[str, Image],
    ) -> list[Mount]:
        return []

    async def read(self, pod: Object, volume: str, path: str, most: int) -> bytes | None:
        return None

    async def unmount(self, pod_uid: str) -> None:
        pass

    def know(self, pod: Object) -> None:
        pass

    def disk_paths(self, pod: Object) -> dict[str, str]:
        return {}

    measured_paths = disk_paths

    async def remove_logs(self, pod: Object) -> None:
        pass

    async def sweep(self, present: Set[str]) -> None:
        pass

    async def close(self) -> None:
        pass

    def log_path(self, pod: Object, name: str, attempt: int) -> str:
        return f"{pod['metadata']['uid']}/{name}/{attempt}.log"

    async def termination_message(self, pod: Object, container: Object, attempt: int, failed: bool) -> str:
        return ""


class SimulatedProber:
    """Probes that answer what the pod's annotations say (see `simulated`), each once, without timers at rest."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, set[str]] = {}  # pod uid -> ids of probed containers
        self._looks: dict[str, ProbeLooks] = {}  # pod uid -> what they answered

    def sync(self, driver: PodDriver, containers: Mapping[str, str], ending: bool) -> None:
        if not containers:
            return
        seen = self._seen.setdefault(driver.uid, set())
        for name, container_id in containers.items():
            if container_id not in seen:
                seen.add(container_id)
                self._answer(driver, name, container_id)

    def stop(self, driver: PodDriver) -> None:
        self._seen.pop(driver.uid, None)
        self._looks.pop(driver.uid, None)

    def looks(self) -> Sequence[ProbeLooks]:
        return list(self._looks.values())

    def force(self, driver: PodDriver, container: str, kind: str, ok: bool) -> None:
        for status in driver.world.running():
            if container in ("", status.config.name):
                driver.probed(status.config.name, status.config.id, kind, ok)

    def _answer(self, driver: PodDriver, name: str, container_id: str) -> None:
        container = find_container(driver.pod, name) or {}
        words = behaviour(driver.world.containers[container_id].config)
        start = 0.0
        if container.get("startupProbe"):
            start = container["startupProbe"].get("initialDelaySeconds", 0)
            self._later(start, driver, name, container_id, "startup", True)
        if container.get("readinessProbe") and words.get("ready") != "false":
            delay = container["readinessProbe"].get("initialDelaySeconds", 0)
            if words.get("ready", "true") != "true":
                delay = seconds(words["ready"])
            self._later(max(delay, start), driver, name, container_id, "readiness", True)
        probe = container.get("livenessProbe")
        if probe and words.get("live", "true") != "true":
            patience = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
            delay = patience if words["live"] == "false" else seconds(words["live"])
            self._later(max(delay, start), driver, name, container_id, "liveness", False)

    def _later(self, delay: float, driver: PodDriver, *answer: Any) -> None:
        if delay > 0:
            self._clock.call_later(delay, self._tell, driver, *answer)
        else:
            self._tell(driver, *answer)

    def _tell(self, driver: PodDriver, name: str, container_id: str, kind: str, ok: bool) -> None:
        if driver.uid in self._seen:
            looks = self._looks.setdefault(driver.uid, ProbeLooks(driver.pod["metadata"]))
            looks.add(name, kind.capitalize(), ok, 0.0)
        driver.probed(name, container_id, kind, ok)
