"""What pods and node use, in kubelet's forms: /stats/summary, /metrics/resource, /metrics."""

from __future__ import annotations

from typing import Any

from sampan.base.clock import rfc3339
from sampan.node.agent import Agent
from sampan.node.pods.driver import PodDriver

Object = dict[str, Any]


async def summary(agent: Agent, now: float) -> Object:
    """The stats/v1alpha1 Summary."""
    used = await agent.runtime.stats()
    stamp = rfc3339(now)
    pods = [_pod(driver, used, stamp) for driver in agent.manager.drivers.values()]
    return {
        "node": {
            "nodeName": agent.name,
            "startTime": stamp,
            **_usage(
                sum(p["cpu"]["usageCoreNanoSeconds"] for p in pods) / 1e9,
                sum(p["memory"]["workingSetBytes"] for p in pods),
                sum(p["memory"]["rssBytes"] for p in pods),
                stamp,
            ),
        },
        "pods": pods,
    }


def _pod(driver: PodDriver, used: Any, stamp: str) -> Object:
    meta = driver.pod["metadata"]
    containers = []
    for status in driver.world.running():
        one = used.get(status.config.id)
        if one is not None:
            usage = _usage(
                one.get("cpu_seconds", 0), one.get("memory_working_set", 0), one.get("memory_rss", 0), stamp
            )
            containers.append({"name": status.config.name, "startTime": rfc3339(status.started_at), **usage})
    cpu = sum(c["cpu"]["usageCoreNanoSeconds"] for c in containers) / 1e9
    working = sum(c["memory"]["workingSetBytes"] for c in containers)
    rss = sum(c["memory"]["rssBytes"] for c in containers)
    return {
        "podRef": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
        "startTime": rfc3339(driver.world.first_seen),
        "containers": containers,
        **_usage(cpu, working, rss, stamp),
    }


def _usage(cpu: float, working: float, rss: float, stamp: str) -> Object:
    return {
        "cpu": {"time": stamp, "usageCoreNanoSeconds": int(cpu * 1e9)},
        "memory": {
            "time": stamp,
            "workingSetBytes": int(working),
            "usageBytes": int(working),
            "rssBytes": int(rss),
        },
    }


async def resource_metrics(agent: Agent, now: float) -> bytes:
    """/metrics/resource: CPU seconds and working sets, by container, pod and node."""
    data = await summary(agent, now)
    cpu, memory = [], []
    for pod in data["pods"]:
        ref = pod["podRef"]
        for container in pod["containers"]:
            labels = f'container="{container["name"]}",namespace="{ref["namespace"]}",pod="{ref["name"]}"'
            cpu.append(f"container_cpu_usage_seconds_total{{{labels}}} {_seconds(container)}")
            memory.append(f"container_memory_working_set_bytes{{{labels}}} {_bytes(container)}")
    lines = [
        "# TYPE container_cpu_usage_seconds_total counter",
        *cpu,
        "# TYPE container_memory_working_set_bytes gauge",
        *memory,
        "# TYPE node_cpu_usage_seconds_total counter",
        f"node_cpu_usage_seconds_total {_seconds(data['node'])}",
        "# TYPE node_memory_working_set_bytes gauge",
        f"node_memory_working_set_bytes {_bytes(data['node'])}",
    ]
    return ("\n".join(lines) + "\n").encode()


def _seconds(entry: Object) -> float:
    return entry["cpu"]["usageCoreNanoSeconds"] / 1e9


def _bytes(entry: Object) -> int:
    return entry["memory"]["workingSetBytes"]


def metrics(agent: Agent) -> bytes:
    """/metrics: how many pods and containers this node carries."""
    drivers = list(agent.manager.drivers.values())
    running = sum(len(d.world.running()) for d in drivers)
    lines = [
        "# TYPE kubelet_active_pods gauge",
        f"kubelet_active_pods {len(drivers)}",
        "# TYPE kubelet_running_containers gauge",
        f'kubelet_running_containers{{container_state="running"}} {running}',
    ]
    return ("\n".join(lines) + "\n").encode()
