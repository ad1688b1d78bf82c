"""What a node itself needs: to start pods and commands in them, for each pod it carries, and to unpack an image.

    python bench/node.py            as root

Pods are bound when they are made, so that no scheduler is in the way: `seen_to_running_ms` goes from the watch event that
shows a pod to its node to the one that says Running. `exec_ms` is POST .../run of `true`, through the server.
`*_cpu_ms` is processor time of all of the cluster's processes, which tells more on a machine that does other things, too.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import random
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from machine import Cluster, busy, cpu_seconds, pss_megabytes, report
from pods import pod

from sampan.client.client import Client
from sampan.client.messages import Response
from sampan.cluster import config as configs
from sampan.cluster.paths import Paths
from sampan.cluster.up import admin_client
from sampan.node.images.unpack import unpack

_FILES, _BYTES = 2_900, 71 << 20


def bound(name: str) -> dict[str, object]:
    made = pod(name)
    made["spec"]["nodeName"] = "node-1"  # type: ignore[index]
    return made


class Watched:
    """When the API showed each pod, and when as Running."""

    def __init__(self, client: Client) -> None:
        self.seen: dict[str, float] = {}
        self.running: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._watch(client))

    async def _watch(self, client: Client) -> None:
        async for line in client.watch("pods", namespace="default", initial=True):
            now, found = time.perf_counter(), json.loads(line)["object"]
            name = found["metadata"].get("name", "")
            self.seen.setdefault(name, now)
            if found.get("status", {}).get("phase") == "Running" and name not in self.running:
                self.running[name] = now
                self._changed.set()

    async def until_running(self, names: list[str]) -> None:
        while any(name not in self.running for name in names):
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        self._task.cancel()


async def starts(cluster: Cluster, writer: Client, watcher: Client) -> dict[str, object]:
    """One pod after the other, `true` in the last, then a hundred at once."""
    watched, results = Watched(watcher), {}
    await asyncio.sleep(0.5)
    cpu = processor(cluster)
    names = [f"one-{i}" for i in range(30)]
    for name in names:
        await writer.create("pods", bound(name), "default")
        await watched.until_running([name])
        await asyncio.sleep(0.1)
    times = [watched.running[name] - watched.seen[name] for name in names]
    results["seen_to_running_ms"] = milliseconds(times)
    results["pod_cpu_ms"] = round((processor(cluster) - cpu) * 1000 / len(names), 1)
    results["exec_ms"], results["exec_cpu_ms"] = await executions(cluster, writer, names[-1])
    for name in names:
        await writer.delete("pods", name, "default", grace=0)
    await asyncio.sleep(3)
    alone = memory(cluster)
    names = [f"many-{i}" for i in range(100)]
    cpu, begun = processor(cluster), time.perf_counter()
    await asyncio.gather(*(writer.create("pods", bound(name), "default") for name in names))
    await watched.until_running(names)
    results["hundred_pods_seconds"] = round(max(watched.running[n] for n in names) - begun, 2)
    results["hundred_pods_cpu_seconds"] = round(processor(cluster) - cpu, 2)
    await asyncio.sleep(5)
    results["pss_mb_per_pod"] = round((memory(cluster) - alone) / len(names), 2)
    watched.close()
    return results


async def executions(cluster: Cluster, client: Client, name: str) -> tuple[dict[str, float], float]:
    path, times = f"/api/v1/nodes/node-1/proxy/run/default/{name}/main", []
    cpu = processor(cluster)
    for _ in range(30):
        begun = time.perf_counter()
        answer: Response = await client.request("POST", path, {"cmd": "true"})
        times.append(time.perf_counter() - begun)
        assert answer.status == 200, answer
    return milliseconds(times), round((processor(cluster) - cpu) * 1000 / len(times), 1)


def processor(cluster: Cluster) -> float:
    """Processor time of the cluster's own processes so far, those that ended and were waited for included."""
    total = 0.0
    for pid in node_processes(cluster):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def node_processes(cluster: Cluster) -> list[int]:
    """The supervisor and everything below it: agents, zygotes, shims, workloads."""
    parents: dict[int, int] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = set(cluster.pids())
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found)


def memory(cluster: Cluster) -> float:
    """Proportional set size of all of the cluster's processes, MB."""
    total = 0.0
    for pid in node_processes(cluster):
        try:
            total += pss_megabytes(pid)
        except (OSError, StopIteration):
            continue
    return total


def idle(cluster: Cluster, seconds: float = 20) -> dict[str, float]:
    """The agent with a hundred pods that do nothing."""
    agent = next(pid for pid, name in cluster.pids().items() if name == "agent")
    before = cpu_seconds(agent)
    time.sleep(seconds)
    percent = (cpu_seconds(agent) - before) / seconds * 100
    return {"agent_pss_mb": round(pss_megabytes(agent), 1), "agent_cpu_percent": round(percent, 2)}


def layer() -> bytes:
    """An image layer of the size of a small Python: 71 MB in 2,900 files, gzip."""
    chance, buffer = random.Random(1), io.BytesIO()
    words = [chance.randbytes(chance.randint(2, 12)) for _ in range(4_000)]
    often = [1 / rank for rank in range(1, len(words) + 1)]  # as in texts, so that it shrinks to a half
    length = sum(len(word) * weight for word, weight in zip(words, often, strict=True)) / sum(often)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(_FILES):
            data = b"".join(chance.choices(words, often, k=round(_BYTES / _FILES / length)))
            info = tarfile.TarInfo(f"usr/lib/d{number % 97}/f{number}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 6)


def unpacked() -> dict[str, float]:
    data, times, cpu = layer(), [], []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as target:
            begun, used = time.perf_counter(), time.process_time()
            _, size = unpack(io.BytesIO(data), target)
            times.append(time.perf_counter() - begun)
            cpu.append(time.process_time() - used)
    return {
        "mb": round(size / 2**20, 1),
        "files": _FILES,
        "seconds": round(min(times), 2),
        "cpu_seconds": round(min(cpu), 2),
    }


def milliseconds(times: list[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(times) * 1000, 1), "max": round(max(times) * 1000, 1)}


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("control groups and their limits need root: run it as root")
    before = busy()
    results: dict[str, object] = {"unpack": unpacked()}
    with Cluster(nodes=1) as cluster:
        paths = Paths.of(cluster.name, cluster.directory / "data")
        config = configs.load(paths.config)

        async def run() -> dict[str, object]:
            return await starts(cluster, admin_client(config, paths), admin_client(config, paths))

        results |= asyncio.run(run())
        results |= idle(cluster)
    report("node", results, before)


if __name__ == "__main__":
    main()
