"""Places of machines that join: no two have one, whatever happens to their Nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.cluster import places
from sampan.cluster.config import ClusterConfig
from sampan.testing import Cluster

CONFIG = ClusterConfig("x", fabric="10.89.7.0/24", machine="192.0.2.1", first_machine="192.0.2.1")
A, B, C = "192.0.2.11", "192.0.2.12", "192.0.2.13"


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(nodes=0, rules=[places.rule(CONFIG.pod_ranges)]) as cluster:
        yield cluster


def node(name: str, machine: str = "", index: int = 0) -> Object:
    ranges = CONFIG.pod_ranges(index) if index else []
    notes = {"sampan.dev/machine-address": machine} if machine else {}
    spec = {"podCIDR": ranges[0], "podCIDRs": ranges} if ranges else {}
    return {"metadata": {"name": name, "annotations": notes}, "spec": spec}


async def joins(cluster: Cluster, name: str, machine: str) -> str:
    """The third number of the pod range a Node gets, "" for none."""
    await cluster.client.create("nodes", node(name, machine))
    await cluster.settle()
    found = await cluster.client.get("nodes", name)
    return found["spec"].get("podCIDR", "..").split(".")[2]


async def test_machines_get_places_that_nobody_has(cluster: Cluster) -> None:
    await cluster.client.create("nodes", node("first", index=1))
    await cluster.client.create("nodes", node("taken", A, index=100))
    for name, machine in (("b", B), ("c", C)):
        await cluster.client.create("nodes", node(name, machine))
    await cluster.settle()
    found = [(await cluster.client.get("nodes", name))["spec"]["podCIDR"] for name in "bc"]
    assert sorted(found) == ["10.244.102.0/24", "10.244.104.0/24"]
    assert await joins(cluster, "local", "") == ""


async def test_a_place_outlives_the_node(cluster: Cluster) -> None:
    """Its machine may be running: nobody else gets it, and it comes back to it."""
    assert await joins(cluster, "a", A) == "100"
    await cluster.client.delete("nodes", "a")
    assert await joins(cluster, "b", B) == "102"
    assert await joins(cluster, "again", A) == "100"


async def test_also_of_a_node_that_registered_with_it(cluster: Cluster) -> None:
    await cluster.client.create("nodes", node("a", A, index=100))
    await cluster.settle()
    await cluster.client.delete("nodes", "a")
    assert await joins(cluster, "b", B) == "102"


async def test_a_machine_that_leaves_frees_its_place(cluster: Cluster) -> None:
    assert await joins(cluster, "a", A) == "100"
    leaves = {"metadata": {"annotations": {places.LEAVES: "true"}}}
    await cluster.client.patch("nodes", "a", leaves)
    await cluster.settle()
    with pytest.raises(ApiError, match="not found"):
        await cluster.client.get("nodes", "a")
    assert await joins(cluster, "b", B) == "100"


async def test_a_machine_under_another_name_while_its_old_node_is_there(cluster: Cluster) -> None:
    assert await joins(cluster, "a", A) == "100"
    assert await joins(cluster, "other", A) == "102"


async def test_all_places_are_taken(cluster: Cluster) -> None:
    for index in range(100, 252, 2):
        await cluster.client.create("nodes", node(f"n{index}", f"198.51.100.{index}", index))
    assert await joins(cluster, "late", A) == ""
