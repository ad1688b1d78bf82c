"""/stats/summary: what the node and its pods use, in kubelet's form (stats.k8s.io v1alpha1 of `k8s.io/kubelet`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.node import disk
from sampan.node.agent import Agent
from sampan.node.housekeeping import file_system
from sampan.node.meter import Measured
from sampan.node.pods.driver import PodDriver

Counters = tuple[int, int, int, int]


async def summary(agent: Agent, now: float, only_cpu_and_memory: bool = False) -> Object:
    """The Summary. Rates are over `windowSeconds`, an addition of ours. Disk and network cost most of the work."""
    drivers = list(agent.manager.drivers.values())
    used = await measured(agent)
    stamp = rfc3339(now)
    everything, own = list(used.values()), agent.meter.own()
    begun = {"startTime": rfc3339(agent.started_at)}
    node: Object = {"nodeName": agent.name, **begun, **_usage([*everything, own], stamp)}
    node["systemContainers"] = [
        {"name": "kubelet", **begun, **_usage([own], stamp)},
        {"name": "pods", **begun, **_usage(everything, stamp)},
    ]
    pods = [_pod(driver, used, stamp) for driver in drivers]
    if not only_cpu_and_memory:
        node |= await agent.housekeeping.node_stats(stamp)
        ids = {d.uid: d.world.sandbox.config.id for d in drivers if d.world.sandbox is not None}
        traffic = await asyncio.to_thread(agent.hooks.traffic, ids.values())
        node |= _network(traffic.get(""), stamp)
        for pod, driver in zip(pods, drivers, strict=True):
            pod |= _network(traffic.get(ids.get(driver.uid, "?")), stamp)
            if agent.config.root:
                await asyncio.to_thread(_add_storage, agent, driver, pod, stamp)
    return {"node": node, "pods": pods}


async def measured(agent: Agent) -> Mapping[str, Measured]:
    """What each running container uses, by id."""
    drivers = agent.manager.drivers.values()
    started = {s.config.id: s.started_at for d in drivers for s in d.world.running()}
    return await agent.meter.measure(started)


def _pod(driver: PodDriver, used: Mapping[str, Measured], stamp: str) -> Object:
    meta = driver.pod["metadata"]
    found = [(s, used[s.config.id]) for s in driver.world.running() if s.config.id in used]
    containers = [
        {
            "name": s.config.name,
            "startTime": rfc3339(s.started_at),
            **_usage([one], stamp, s.config.limits.memory),
        }
        for s, one in found
    ]
    sandbox = driver.world.sandbox
    limit = sandbox.config.limits.memory if sandbox is not None else None
    return {
        "podRef": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
        "startTime": rfc3339(driver.world.first_seen),
        "containers": containers,
        **_usage([one for _, one in found], stamp, limit),
        "process_stats": {"process_count": sum(one.processes for _, one in found)},
    }


def _usage(parts: Iterable[Measured], stamp: str, limit: int | None = None) -> Object:
    """cpu and memory of several together; `limit` in bytes tells how much memory is left."""
    parts = list(parts)
    working = sum(p.working_set for p in parts)
    memory = {
        "time": stamp,
        "usageBytes": sum(p.usage for p in parts),
        "workingSetBytes": working,
        "rssBytes": sum(p.rss for p in parts),
        "pageFaults": sum(p.page_faults for p in parts),
        "majorPageFaults": sum(p.major_page_faults for p in parts),
    }
    if limit:
        memory["availableBytes"] = max(limit - working, 0)
    return {
        "cpu": {
            "time": stamp,
            "usageNanoCores": int(sum(p.cores for p in parts) * 1e9),
            "usageCoreNanoSeconds": int(sum(p.cpu_seconds for p in parts) * 1e9),
            "windowSeconds": round(min((p.window for p in parts), default=0.0), 3),
        },
        "memory": memory,
    }


def _network(counters: Counters | None, stamp: str) -> Object:
    if counters is None:
        return {}
    names = ("rxBytes", "rxErrors", "txBytes", "txErrors")
    interface = {"name": "eth0", **dict(zip(names, counters, strict=True))}
    return {"network": {"time": stamp, **interface, "interfaces": [interface]}}


def _add_storage(agent: Agent, driver: PodDriver, pod: Object, stamp: str) -> None:
    """rootfs and logs of containers, volumes, and the sum of what counts as ephemeral storage. Blocking."""
    paths = agent.housekeeping.paths(driver)
    root = file_system(agent.config.root, stamp)
    total = [0, 0]

    def used(path: str, base: Object = root) -> Object:
        size, inodes = disk.usage([path])
        total[0] += size
        total[1] += inodes
        return base | {"usedBytes": size, "inodesUsed": inodes}

    for container in pod["containers"]:
        container["rootfs"] = used(paths.layers.get(container["name"], ""))
        container["logs"] = used(paths.logs.get(container["name"], ""))
    pod["volume"] = []
    claims = {
        v["name"]: claim for v in driver.pod["spec"].get("volumes") or () if (claim := _claim(driver, v))
    }
    for name, path in agent.kit.volumes.measured_paths(driver.pod).items():
        try:
            base = file_system(path, stamp)
        except OSError:
            continue  # it went with its pod
        if name in claims:
            reference = {"name": claims[name], "namespace": pod["podRef"]["namespace"]}
            pod["volume"].append({"name": name, "pvcRef": reference, **base})
            continue
        if name in paths.volumes:
            pod["volume"].append({"name": name, **used(path, base)})
            continue
        size, inodes = disk.usage([path])
        pod["volume"].append({"name": name, **base, "usedBytes": size, "inodesUsed": inodes})
    pod["ephemeral-storage"] = root | {"usedBytes": total[0], "inodesUsed": total[1]}


def _claim(driver: PodDriver, volume: Object) -> str:
    """The PersistentVolumeClaim behind a volume, "" for others."""
    if "ephemeral" in volume:
        return f"{driver.pod['metadata']['name']}-{volume['name']}"
    return (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
