"""How long `up` takes, a pod needs to run, a hundred pods at once need, and what an idle cluster costs.

    python bench/pods.py            as root, or as an ordinary user

`create_to_running_ms` is what a user sees, kubectl's own 60-110 ms included; `post_to_running_ms` is the cluster's part,
from sending the request to the watch event that says Running.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import time
from collections.abc import Iterator

from machine import Cluster, busy, cpu_seconds, pss_megabytes, report

from sampan.cluster import config as configs
from sampan.cluster.paths import Paths
from sampan.cluster.up import admin_client

_WATCH = ["kubectl", "get", "pods", "--watch", "-o", 'jsonpath={.metadata.name} {.status.phase}{"\\n"}']


def pod(name: str) -> dict[str, object]:
    container = {"name": "main", "image": "localhost/host:v1", "command": ["sleep", "600"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def running(watch: subprocess.Popen[str]) -> Iterator[str]:
    """Names of pods as kubectl reports them Running (a name may come more than once)."""
    assert watch.stdout is not None
    for line in watch.stdout:
        name, _, phase = line.strip().partition(" ")
        if phase == "Running":
            yield name


def single(cluster: Cluster, count: int) -> list[float]:
    """Seconds from starting `kubectl create` to the pod's status saying Running, one pod after the other."""
    with subprocess.Popen(_WATCH, env=cluster.environment, stdout=subprocess.PIPE, text=True) as watch:
        times = []
        seen = running(watch)
        for i in range(count):
            started = time.perf_counter()
            cluster.kubectl("create", "-f", "-", input=json.dumps(pod(f"single-{i}")))
            next(name for name in seen if name == f"single-{i}")
            times.append(time.perf_counter() - started)
        watch.kill()
    return times


def many(cluster: Cluster, count: int) -> list[float]:
    """Seconds from one create of `count` pods to each of them Running."""
    items = {"apiVersion": "v1", "kind": "List", "items": [pod(f"many-{i}") for i in range(count)]}
    seen: dict[str, float] = {}
    with subprocess.Popen(_WATCH, env=cluster.environment, stdout=subprocess.PIPE, text=True) as watch:
        started = time.perf_counter()
        cluster.kubectl("create", "--validate=false", "-f", "-", input=json.dumps(items))
        for name in running(watch):
            if name.startswith("many-"):
                seen.setdefault(name, time.perf_counter() - started)
            if len(seen) == count:
                break
        watch.kill()
    return sorted(seen.values())


async def posted(cluster: Cluster, count: int) -> list[float]:
    """Seconds from sending a pod to the watch event that says Running: the cluster's own part."""
    paths = Paths.of(cluster.name, cluster.directory / "data")
    config = configs.load(paths.config)
    writer, watcher = admin_client(config, paths), admin_client(config, paths)
    seen: asyncio.Queue[tuple[float, str]] = asyncio.Queue()

    async def watch() -> None:
        async for line in watcher.watch("pods", namespace="default", initial=True):
            found = json.loads(line)["object"]
            if found.get("status", {}).get("phase") == "Running":
                seen.put_nowait((time.perf_counter(), found["metadata"]["name"]))

    task = asyncio.create_task(watch())
    await asyncio.sleep(0.5)
    times = []
    for i in range(count):
        started = time.perf_counter()
        await writer.create("pods", pod(f"posted-{i}"), "default")
        at, name = await seen.get()
        while name != f"posted-{i}":
            at, name = await seen.get()
        times.append(at - started)
        await asyncio.sleep(0.2)
    task.cancel()
    return times


def clear(cluster: Cluster) -> None:
    """A node takes 110 pods: what was measured makes room."""
    cluster.kubectl("delete", "pods", "--all", "--wait=true")


def memory(cluster: Cluster) -> dict[str, float]:
    """Proportional set size of every process of the cluster, MB."""
    sizes: dict[str, float] = {}
    for pid, name in cluster.pids().items():
        sizes[name] = round(sizes.get(name, 0) + pss_megabytes(pid), 1)
    return {**sizes, "total": round(sum(sizes.values()), 1)}


def processor(cluster: Cluster, seconds: float) -> float:
    """Percent of one core that all processes of the idle cluster use."""
    pids = cluster.pids()
    before = sum(map(cpu_seconds, pids))
    time.sleep(seconds)
    return round((sum(map(cpu_seconds, pids)) - before) / seconds * 100, 2)


def milliseconds(times: list[float]) -> dict[str, int]:
    return {"p50": round(statistics.median(times) * 1000), "max": round(max(times) * 1000)}


def main() -> None:
    before = busy()
    with Cluster(nodes=1) as cluster:
        time.sleep(5)
        idle = {"pss_mb": memory(cluster), "cpu_percent": processor(cluster, 20)}
        cluster.kubectl("create", "-f", "-", input=json.dumps(pod("warm")))
        cluster.kubectl("wait", "--for=condition=Ready", "pod/warm")
        results = {"up_seconds": round(cluster.up_seconds, 2), "idle": idle}
        results["create_to_running_ms"] = milliseconds(single(cluster, 20))
        results["post_to_running_ms"] = milliseconds(asyncio.run(posted(cluster, 20)))
        clear(cluster)
        crowd = many(cluster, 100)
        results["hundred_pods_seconds"] = {"p50": round(crowd[49], 2), "p99": round(crowd[98], 2)}
    report("pods", results, before)


if __name__ == "__main__":
    main()
