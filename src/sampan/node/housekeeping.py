"""What a node looks after by itself every ten seconds: use of resources, pressure, local storage, images.

The decisions are `pressure` and `imagegc`; here they are fed with measurements and carried out. One pod is evicted at
a time, and its end waited for, since that may be enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from sampan.api import quantity
from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.node import disk, imagegc, machine, pressure
from sampan.node.config import AgentConfig
from sampan.node.heartbeat import Heartbeat
from sampan.node.meter import Meter
from sampan.node.pods.driver import PodDriver
from sampan.node.pods.kit import Kit
from sampan.node.pods.manager import PodManager
from sampan.node.pods.podspec import all_containers, mains, sidecars
from sampan.node.pressure import Observation, Subject, Threshold
from sampan.node.runtime import ImagesOnDisk

log = logging.getLogger(__name__)
_ENDS = 30.0  # seconds an evicted pod may take before the next look
_IMMEDIATE = 1.0  # grace of a hard threshold
_IMAGES_EVERY = 300.0
Observe = Callable[[str, str], Mapping[str, Observation]]


def observe(root: str, images: str) -> dict[str, Observation]:
    """All signals of this machine. Blocking."""
    memory = Observation(machine.memory_available(), machine.memory_total())
    seen = {"memory.available": memory, "pid.available": disk.processes()}
    seen["nodefs.available"], seen["nodefs.inodesFree"] = disk.space(root)
    seen["imagefs.available"], seen["imagefs.inodesFree"] = disk.space(images or root)
    return seen


class Housekeeping:
    """`run` for ever; `look` once. `measure_machine` replaces the machine's own figures (tests)."""

    def __init__(
        self,
        kit: Kit,
        manager: PodManager,
        meter: Meter,
        heartbeat: Heartbeat,
        clock: Clock,
        config: AgentConfig,
        measure_machine: Observe = observe,
    ) -> None:
        self._kit, self._manager, self._meter = kit, manager, meter
        self._heartbeat, self._clock, self._config = heartbeat, clock, config
        self._observe = measure_machine
        self._stored = kit.images if isinstance(kit.images, ImagesOnDisk) else None
        self._images = self._stored.directory if self._stored else ""
        hard = pressure.parse(config.eviction_hard)
        soft = pressure.parse(config.eviction_soft, config.eviction_soft_grace)
        self.pressure = pressure.Pressure([*hard, *soft], config.pressure_transition)
        self._seen: Mapping[str, Observation] = {}
        self.garbage = imagegc.ImageGarbage(config.image_gc_high, config.image_gc_low, config.image_gc_age)
        self._next_images = 0.0

    async def run(self) -> None:
        while True:
            if not await self.look():
                await self._clock.sleep(self._config.housekeeping)

    async def look(self) -> bool:
        """One round. True when a pod was evicted, so that the next round is due at once."""
        await self._meter.sample()
        now = self._clock.now()
        self._seen = await asyncio.to_thread(self._observe, self._config.root, self._images)
        due = self.pressure.observe(self._seen, now)
        self._heartbeat.set_pressures(self.pressure.conditions)
        if await self._local_storage():
            return True
        if now >= self._next_images:
            self._next_images = now + _IMAGES_EVERY
            await self._collect_images(reclaim=0)
        return await self._relieve(due[0]) if due else False

    # Pressure of the node

    async def _relieve(self, threshold: Threshold) -> bool:
        resource = pressure.SIGNALS[threshold.signal][1]
        self._kit.events.record(
            self._heartbeat.node, "Warning", "EvictionThresholdMet", f"Attempting to reclaim {resource}"
        )
        seen = self._seen[threshold.signal]
        if resource in ("ephemeral-storage", "inodes"):
            await self._kit.runtime.reclaim()
            await self._collect_images(reclaim=max(threshold.least(seen.capacity) - seen.available, 1))
            self._seen = await asyncio.to_thread(self._observe, self._config.root, self._images)
            if not threshold.met(self._seen):
                return False
            seen = self._seen[threshold.signal]
        subjects = await self._subjects(with_disk=resource in ("ephemeral-storage", "inodes"))
        for subject in pressure.ranked(subjects, resource):
            grace = _IMMEDIATE
            if threshold.soft:
                grace = float(subject.pod["spec"].get("terminationGracePeriodSeconds", 30))
                grace = min(grace, self._config.eviction_max_pod_grace)
            await self._evict(subject, pressure.message(threshold, seen, subject), grace)
            return True
        log.warning("%s is short and no pod can be evicted", resource)
        return False

    async def _subjects(self, with_disk: bool) -> list[Subject]:
        drivers = self._active()
        started = {s.config.id: s.started_at for d in drivers for s in d.world.running()}
        used = await self._meter.measure(started)
        result = []
        for driver in drivers:
            parts = {s.config.name: used[s.config.id] for s in driver.world.running() if s.config.id in used}
            subject = Subject(driver.pod, parts)
            if with_disk:
                paths = self.paths(driver)
                await asyncio.to_thread(_measure_disk, subject, paths)
            result.append(subject)
        return result

    def _active(self) -> list[PodDriver]:
        return [
            d for d in self._manager.drivers.values() if d.world.ending_since is None and d.world.running()
        ]

    async def _evict(self, subject: Subject, message: str, grace: float) -> None:
        driver = self._manager.drivers.get(subject.pod["metadata"]["uid"])
        if driver is None:
            return
        driver.record("Warning", "Evicted", message)
        driver.evict("Evicted", message, grace=grace, disruption=True)
        try:
            async with self._clock.timeout(grace + _ENDS):
                await driver.settled()  # its volumes are gone, too
        except TimeoutError:
            log.warning("pod %s was evicted and does not end", subject.pod["metadata"]["name"])

    # Limits of local storage

    async def _local_storage(self) -> bool:
        evicted = False
        for driver in self._active():
            if not _is_limited(driver.pod) or pressure.is_critical(driver.pod):
                continue
            text = await asyncio.to_thread(exceeded, driver.pod, self.paths(driver))
            if text:
                await self._evict(Subject(driver.pod), text, _IMMEDIATE)
                evicted = True
        return evicted

    def paths(self, driver: PodDriver) -> Paths:
        """Where a pod's bytes lie on this node's disk: logs, writable layers, volumes."""
        attempts = list(driver.world.containers.values())
        logs: dict[str, str] = {}
        layers: dict[str, str] = {}
        for status in attempts:
            logs[status.config.name] = status.config.log_path.rpartition("/")[0]
            if status.state != "exited":
                layers[status.config.name] = self._kit.runtime.writable_layer(status.config.id)
        return Paths(logs, layers, self._kit.volumes.disk_paths(driver.pod))

    # Images

    async def _collect_images(self, reclaim: int) -> None:
        """`reclaim` bytes at least, or down to the lower mark when the disk is above the upper one."""
        if self._stored is None:
            return
        in_use = {name for driver in self._manager.drivers.values() for name in _images_of(driver)}
        try:
            await self._stored.collect()
            freed = await self.garbage.collect(self._stored, in_use, self._clock.now(), reclaim)
        except OSError as error:
            log.warning("image garbage collection: %s", error)
            return
        if freed:
            log.info("%d bytes of unused images removed", freed)
            self._kit.images_changed()

    # For the stats endpoint

    async def node_stats(self, stamp: str) -> Object:
        """`fs`, `runtime.imageFs` and `rlimit` of the node's summary; {} for nodes without files."""
        if not self._config.root:
            return {}
        seen = self._seen or await asyncio.to_thread(self._observe, self._config.root, self._images)
        pids = seen["pid.available"]
        return {
            "fs": _fs(seen, "nodefs", stamp),
            "runtime": {"imageFs": _fs(seen, "imagefs", stamp), "containerFs": _fs(seen, "nodefs", stamp)},
            "rlimit": {"time": stamp, "maxpid": pids.capacity, "curproc": pids.capacity - pids.available},
        }


def _fs(seen: Mapping[str, Observation], name: str, stamp: str) -> Object:
    return _figures(seen[f"{name}.available"], seen[f"{name}.inodesFree"], stamp)


def file_system(path: str, stamp: str) -> Object:
    """FsStats of the file system that holds `path`. Raises OSError."""
    return _figures(*disk.space(path), stamp)


def _figures(space: Observation, inodes: Observation, stamp: str) -> Object:
    return {
        "time": stamp,
        "availableBytes": space.available,
        "capacityBytes": space.capacity,
        "usedBytes": space.capacity - space.available,
        "inodesFree": inodes.available,
        "inodes": inodes.capacity,
        "inodesUsed": inodes.capacity - inodes.available,
    }


def _images_of(driver: PodDriver) -> set[str]:
    names = {c.get("image", "") for c in all_containers(driver.pod)}
    for status in driver.world.containers.values():
        names |= {status.config.image.ref, status.config.image.id}
        names |= {mount.image for mount in status.config.mounts if mount.image}
    return names


class Paths:
    """Where a pod's local storage lies on the node: by container (logs, writable layer) and by emptyDir volume."""

    def __init__(
        self, logs: Mapping[str, str], layers: Mapping[str, str], volumes: Mapping[str, str]
    ) -> None:
        self.logs, self.layers, self.volumes = logs, layers, volumes


def _measure_disk(subject: Subject, paths: Paths) -> None:
    """Blocking."""
    own = {name: disk.usage([paths.logs[name], paths.layers.get(name, "")]) for name in paths.logs}
    parts = [*own.values(), disk.usage(paths.volumes.values())]
    subject.disks = {name: size for name, (size, _) in own.items()}
    subject.disk, subject.inodes = (sum(column) for column in zip(*parts, strict=True))


def _is_limited(pod: Object) -> bool:
    if any((v.get("emptyDir") or {}).get("sizeLimit") for v in pod["spec"].get("volumes") or ()):
        return True
    return any(_limit(c) is not None for c in mains(pod))


def _limit(container: Object) -> str | None:
    return ((container.get("resources") or {}).get("limits") or {}).get("ephemeral-storage")


def exceeded(pod: Object, paths: Paths) -> str:
    """Which limit of local storage the pod passed, "" when none. Blocking. "Local ephemeral storage"."""
    for volume in pod["spec"].get("volumes") or ():
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        path = paths.volumes.get(volume["name"])
        if limit and path and disk.usage([path])[0] > quantity.value(limit):
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{limit}". '
    containers = [*mains(pod), *sidecars(pod)]
    limits = [_limit(c) for c in containers]
    own = {
        c["name"]: disk.usage([paths.logs.get(c["name"], ""), paths.layers.get(c["name"], "")])[0]
        for c in containers
    }
    if all(limits):
        total = sum((quantity.parse(limit) for limit in limits if limit), quantity.parse("0"))
        if sum(own.values()) + disk.usage(paths.volumes.values())[0] > total.value():
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
    for container, limit in zip(containers, limits, strict=True):
        if limit and own[container["name"]] > quantity.value(limit):
            return f'Container {container["name"]} exceeded its local ephemeral storage limit "{limit}". '
    return ""
