"""What controllers and the scheduler need: the table of the mind, in memory and on a real cluster.

    python bench/mind.py            all of it
    python bench/mind.py memory     what needs no cluster

`memory` rows run in this process on the memory fidelity: their seconds are processor time, the server's share and the
simulated nodes' included. `real` rows run against `sampan up --nodes 0`: seconds a client waits, and processor time of the
control plane.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from machine import Cluster, busy, cpu_seconds, report

import scheduler
from sampan.client.client import Client
from sampan.cluster import config as configs
from sampan.cluster import garbage
from sampan.cluster.paths import Paths
from sampan.cluster.up import admin_client
from sampan.testing import Cluster as MemoryCluster

ROOMY = {"cpu": "64", "memory": "256Gi", "pods": "500"}
Row = dict[str, Any]


def deployment(name: str, replicas: int, image: str = "img:1") -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "c", "image": image, "resources": {"requests": {"cpu": "10m"}}}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name}, "spec": spec}


def config_map(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"key": "value"}}


# In memory


@asynccontextmanager
async def work(row: Row) -> AsyncIterator[None]:
    began = time.process_time()
    yield
    row["cpu_seconds"] = round(time.process_time() - began, 2)


async def rollout(nodes: int, replicas: int) -> dict[str, Row]:
    """A Deployment of simulated pods: created, and updated with the default strategy."""
    first: Row = {}
    second: Row = {}
    async with MemoryCluster(nodes=0) as cluster:
        for _ in range(nodes):
            await cluster.add_node(capacity=ROOMY)
        async with work(first):
            await cluster.client.create("deployments.apps", deployment("web", replicas), "default")
            await cluster.advance(10)
        assert (await cluster.get("deployments", "web"))["status"]["availableReplicas"] == replicas
        async with work(second):
            patch = {"spec": {"template": deployment("web", replicas, "img:2")["spec"]["template"]}}
            await cluster.client.patch("deployments.apps", "web", patch, "default", kind="strategic")
            await cluster.advance(120)
        status = (await cluster.get("deployments", "web"))["status"]
        assert status["updatedReplicas"] == status["availableReplicas"] == status["replicas"] == replicas
    return {
        f"{replicas} simulated pods run on {nodes} nodes": first,
        f"rolling update of {replicas} simulated pods": second,
    }


async def many_deployments(count: int, replicas: int, nodes: int) -> dict[str, Row]:
    row: Row = {}
    async with MemoryCluster(nodes=0) as cluster:
        for _ in range(nodes):
            await cluster.add_node(capacity=ROOMY)
        async with work(row):
            for number in range(count):
                obj = deployment(f"d{number}", replicas)
                await cluster.client.create("deployments.apps", obj, "default")
            await cluster.advance(10)
        found = await cluster.list("deployments")
        assert all(d["status"].get("updatedReplicas") == replicas for d in found)
    return {f"{count} Deployments of {replicas} settle, {nodes} nodes": row}


# On a real cluster without nodes


async def until(client: Client, resource: str, namespace: str, done: Callable[[int], bool]) -> None:
    """Returns as soon as a watch has shown a number of objects that is enough."""
    names: set[str] = set()
    async for batch in client.events(resource, namespace, initial=True):
        for event in batch:
            if event.kind == "BOOKMARK":
                continue
            name = json.loads(event.value)["metadata"]["name"]
            names.discard(name) if event.kind == "DELETED" else names.add(name)
        if done(len(names)):
            return


async def each(count: int, one: Callable[[int], Awaitable[Any]]) -> None:
    """64 at a time."""
    slots = asyncio.Semaphore(64)

    async def limited(number: int) -> None:
        async with slots:
            await one(number)

    await asyncio.gather(*(limited(number) for number in range(count)))


async def measured(cluster: Cluster, doing: Awaitable[Any]) -> Row:
    pid = cluster.control_plane()
    began, cpu = time.perf_counter(), cpu_seconds(pid)
    await doing
    waited = time.perf_counter() - began
    return {"seconds": round(waited, 2), "cpu_seconds": round(cpu_seconds(pid) - cpu, 2)}


async def one_large(client: Client) -> None:
    await client.create("deployments.apps", deployment("large", 500), "default")
    await until(client, "pods", "default", lambda n: n >= 500)


async def a_thousand(client: Client) -> None:
    async def one(number: int) -> None:
        await client.create("deployments.apps", deployment(f"d{number}", 10), "many")

    done = asyncio.create_task(until(client, "pods", "many", lambda n: n >= 10_000))
    await each(1000, one)
    await done


async def fill(client: Client, namespace: str) -> None:
    await client.create("namespaces", {"metadata": {"name": namespace}})
    await client.create("deployments.apps", deployment("web", 1000), namespace)
    await each(2500, lambda n: client.create("configmaps", config_map(f"c{n}"), namespace))
    secret = {"data": {"key": "dmFsdWU="}}
    await each(1500, lambda n: client.create("secrets", secret | {"metadata": {"name": f"s{n}"}}, namespace))
    await until(client, "pods", namespace, lambda n: n >= 1000)


async def delete_namespace(client: Client, name: str) -> None:
    await client.delete("namespaces", name)
    async for batch in client.events("namespaces", "", fields=f"metadata.name={name}", initial=True):
        if any(event.kind == "DELETED" for event in batch):
            return


async def real(cluster: Cluster) -> dict[str, Row]:
    paths = Paths.of(cluster.name, cluster.directory / "data")
    client = admin_client(configs.load(paths.config), paths)
    rows: dict[str, Row] = {}
    rows["Deployment of 500: its pods exist"] = await measured(cluster, one_large(client))
    await fill(client, "full")
    rows["namespace of 5,000 objects deleted"] = await measured(cluster, delete_namespace(client, "full"))
    await client.create("namespaces", {"metadata": {"name": "many"}})
    rows["1,000 Deployments of 10: their pods exist"] = await measured(cluster, a_thousand(client))
    rows["until they are at rest"] = await measured(cluster, at_rest(cluster))
    rows["10,500 pods, idle for 10 s"] = await measured(cluster, asyncio.sleep(10))
    return rows


async def at_rest(cluster: Cluster) -> None:
    """Until the control plane has used no processor time for a second."""
    pid, before = cluster.control_plane(), -1.0
    while (now := cpu_seconds(pid)) > before + 0.02:
        before = now
        await asyncio.sleep(1)


def schedulers() -> dict[str, Row]:
    rows = {}
    for nodes in (1000, 5000):
        for kind in ("plain", "spread", "anti-affinity"):
            rows[f"scheduler, {nodes} nodes, {kind}"] = {
                "pods_per_second": round(scheduler.run(nodes, 3000, kind))
            }
    return rows


def main() -> None:
    before = busy()
    garbage.settle()  # as the control plane's own process does
    rows = schedulers()
    rows |= asyncio.run(rollout(10, 1000))
    rows |= asyncio.run(many_deployments(1000, 10, 0))
    rows |= asyncio.run(many_deployments(200, 10, 10))
    if "memory" not in sys.argv[1:]:
        with Cluster(0) as cluster:
            rows |= asyncio.run(real(cluster))
    for name, row in rows.items():
        print(f"{name:50} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    report("mind", rows, before)


if __name__ == "__main__":
    main()
