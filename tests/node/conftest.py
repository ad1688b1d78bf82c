"""A simulated node against the small API, with virtual time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mini_api import MiniApi

from sampan.base.clock import VirtualClock
from sampan.base.ids import Ids
from sampan.node.simulated_node import SimulatedNode


class World:
    """`api`, `node` and `clock` of one test; `pod()` creates a pod that is bound to the node."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.api = MiniApi(self.clock)
        self.node = SimulatedNode(self.api.client(), "n1", self.clock, Ids(7), lease_period=1000.0)

    def pod(self, name: str = "p", annotations: dict | None = None, **spec) -> dict:
        spec = {
            "nodeName": "n1",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "c", "image": "nginx:1"}],
        } | spec
        meta = {"name": name, "namespace": "default", "annotations": annotations or {}}
        return self.api.create(
            "pods", {"kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Pending"}}
        )

    def status(self, name: str = "p") -> dict:
        return self.api.get("pods", name)["status"]

    def container(self, name: str = "c", pod: str = "p") -> dict:
        status = self.status(pod)
        both = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        return next(c for c in both if c["name"] == name)

    def condition(self, kind: str, pod: str = "p") -> dict:
        return next(c for c in self.status(pod)["conditions"] if c["type"] == kind)


@pytest.fixture
async def world():
    world = World()
    await world.node.start()
    yield world
    await world.node.stop()
