"""What a node does about pressure, full volumes and unused images: the real agent over simulated containers."""

from __future__ import annotations

import asyncio

import pytest

from sampan.node import disk, housekeeping, imagegc
from sampan.node.housekeeping import Paths
from sampan.node.pressure import Observation
from sampan.node.runtime import Image

GI, MI = 1 << 30, 1 << 20


class Machine:
    """Figures a test sets."""

    def __init__(self) -> None:
        self.memory = self.disk = 8 * GI
        self.pids = 1000

    def __call__(self, root: str, images: str) -> dict[str, Observation]:
        plenty = Observation(1000, 1000)
        return {
            "memory.available": Observation(self.memory, 8 * GI),
            "pid.available": Observation(self.pids, 1000),
            "nodefs.available": Observation(self.disk, 8 * GI),
            "nodefs.inodesFree": plenty,
            "imagefs.available": Observation(self.disk, 8 * GI),
            "imagefs.inodesFree": plenty,
        }


@pytest.fixture
async def short(world):
    """(world, machine, look): the node's housekeeping is called by the test."""
    machine = Machine()
    keeper = world.node.agent.housekeeping
    keeper._observe = machine

    async def look():
        task = asyncio.ensure_future(keeper.look())
        await world.clock.advance(3)
        return await task

    return world, machine, look


def node_condition(world, kind: str) -> dict:
    conditions = world.api.get("nodes", "n1", "")["status"]["conditions"]
    return next(c for c in conditions if c["type"] == kind)


async def test_the_pod_that_uses_most_is_evicted_when_memory_is_short(short):
    world, machine, look = short
    world.pod("small", {"sampan.dev/simulate": "memory=10Mi"})
    world.pod("large", {"sampan.dev/simulate": "memory=3Gi"})
    await world.clock.advance(1)
    assert await look() is False and node_condition(world, "MemoryPressure")["status"] == "False"
    machine.memory = 50 * MI
    assert await look() is True
    await world.clock.advance(2)
    assert node_condition(world, "MemoryPressure")["reason"] == "KubeletHasInsufficientMemory"
    status = world.status("large")
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"].startswith(
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi."
    )
    target = world.condition("DisruptionTarget", "large")
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    assert world.status("small")["phase"] == "Running"
    assert "Evicted" in [r for r, _ in world.api.events("large")]
    machine.memory = 4 * GI
    assert await look() is False and world.status("small")["phase"] == "Running"
    assert node_condition(world, "MemoryPressure")["status"] == "True", "it does not flap"
    await world.clock.advance(300)
    await look()
    await world.clock.advance(1)
    assert node_condition(world, "MemoryPressure")["reason"] == "KubeletHasSufficientMemory"
    told = world.api.events("n1")
    assert ("NodeHasInsufficientMemory", "Node n1 status is now: NodeHasInsufficientMemory") in told
    assert ("EvictionThresholdMet", "Attempting to reclaim memory") in told


@pytest.mark.parametrize(
    ("change", "kind", "reason", "event", "message"),
    [
        (
            {"disk": GI // 2},
            "DiskPressure",
            "KubeletHasDiskPressure",
            "NodeHasDiskPressure",
            "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 512Mi. ",
        ),
        (
            {"pids": 20},
            "PIDPressure",
            "KubeletHasInsufficientPID",
            "NodeHasInsufficientPID",
            "The node was low on resource: pids. Threshold quantity: 50, available: 20. ",
        ),
    ],
)
async def test_other_shortages(short, change, kind, reason, event, message):
    world, machine, look = short
    world.pod("p")
    world.pod("critical", priority=2_000_001_000)
    await world.clock.advance(1)
    vars(machine).update(change)
    assert await look() is True
    await world.clock.advance(2)
    assert (node_condition(world, kind)["status"], node_condition(world, kind)["reason"]) == ("True", reason)
    assert (world.status("p")["reason"], world.status("p")["message"]) == ("Evicted", message)
    assert (event, f"Node n1 status is now: {event}") in world.api.events("n1")
    assert world.status("critical")["phase"] == "Running"
    world.pod("late", {"sampan.dev/simulate": "memory=1Mi"})
    await world.clock.advance(1)
    assert world.status("late")["message"] == f"Pod was rejected: The node had condition: [{kind}]. "


def test_limits_of_local_storage(tmp_path):
    for name, size in (("volume", 3 * MI), ("log", MI), ("layer", 2 * MI)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * size)
    paths = Paths(
        {"c": str(tmp_path / "log")}, {"c": str(tmp_path / "layer")}, {"v": str(tmp_path / "volume")}
    )

    def pod(volume_limit: str = "", limit: str = "") -> dict:
        source = {"sizeLimit": volume_limit} if volume_limit else {}
        container = {"name": "c", "resources": {"limits": {"ephemeral-storage": limit} if limit else {}}}
        return {"spec": {"volumes": [{"name": "v", "emptyDir": source}], "containers": [container]}}

    assert (
        housekeeping.exceeded(pod("2Mi"), paths) == 'Usage of EmptyDir volume "v" exceeds the limit "2Mi". '
    )
    assert housekeeping.exceeded(pod("4Mi"), paths) == ""
    total = "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. "
    assert housekeeping.exceeded(pod(limit="5Mi"), paths) == total
    assert housekeeping.exceeded(pod(limit="8Mi"), paths) == ""


def test_disk_use_counts_a_hard_link_once(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * MI)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert MI <= disk.usage([str(tmp_path)])[0] < 2 * MI
    assert disk.usage([str(tmp_path / "none")]) == (0, 0)


class Service:
    def __init__(self, *images: Image) -> None:
        self.images = list(images)

    async def list(self) -> list[Image]:
        return list(self.images)

    async def usage(self) -> tuple[int, int]:
        return sum(i.size for i in self.images), 100

    async def in_use(self, image: Image) -> bool:
        return image.ref == "elsewhere"

    async def remove(self, ref: str) -> None:
        self.images = [i for i in self.images if i.ref != ref]


def image(name: str, size: int, pulled: bool = True) -> Image:
    return Image(name, f"sha256:{name}", f"{name}@sha256:0" if pulled else "", (), {}, size)


async def test_unused_images_go_when_the_disk_fills_those_unused_for_longest_first():
    service = Service(
        *(image(n, 20) for n in ("old", "recent", "used", "elsewhere")), image("loaded", 10, False)
    )
    garbage = imagegc.ImageGarbage(high=85, low=60, age=120)
    garbage.choose(service.images, {"used", "old", "recent"}, now=0)
    garbage.choose(service.images, {"used", "recent"}, now=200)
    freed = await garbage.collect(service, {"used"}, now=400)
    assert freed == 40  # elsewhere is used by another node, loaded could not come back
    assert [i.ref for i in service.images] == ["used", "elsewhere", "loaded"]
