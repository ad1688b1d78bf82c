"""What pods and node use, in kubelet's forms: /stats/summary and the pages below /metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sampan.base.clock import rfc3339
from sampan.node.agent import Agent
from sampan.node.meter import Measured
from sampan.node.pods.driver import PodDriver

_STATES = ("created", "exited", "running")

Object = dict[str, Any]


async def summary(agent: Agent, now: float) -> Object:
    """The stats/v1alpha1 Summary. Rates are over `windowSeconds`, an addition of ours."""
    drivers = list(agent.manager.drivers.values())
    started = {s.config.id: s.started_at for d in drivers for s in d.world.running()}
    used = await agent.meter.measure(started)
    stamp = rfc3339(now)
    everything = list(used.values())
    own = agent.meter.own()
    node: Object = {
        "nodeName": agent.name,
        "startTime": rfc3339(agent.started_at),
        **_usage([*everything, own], stamp),
        **await agent.housekeeping.node_stats(stamp),
    }
    system = [
        {"name": "kubelet", "startTime": rfc3339(agent.started_at), **_usage([own], stamp)},
        {"name": "pods", "startTime": rfc3339(agent.started_at), **_usage(everything, stamp)},
    ]
    return {
        "node": node | {"systemContainers": system},
        "pods": [_pod(driver, used, stamp) for driver in drivers],
    }


def _pod(driver: PodDriver, used: Mapping[str, Measured], stamp: str) -> Object:
    meta = driver.pod["metadata"]
    found = [(s, used[s.config.id]) for s in driver.world.running() if s.config.id in used]
    containers = [
        {"name": s.config.name, "startTime": rfc3339(s.started_at), **_usage([one], stamp)}
        for s, one in found
    ]
    return {
        "podRef": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
        "startTime": rfc3339(driver.world.first_seen),
        "containers": containers,
        **_usage([one for _, one in found], stamp),
        "process_stats": {"process_count": sum(one.processes for _, one in found)},
    }


def _usage(parts: Iterable[Measured], stamp: str) -> Object:
    """cpu and memory of several together."""
    parts = list(parts)
    return {
        "cpu": {
            "time": stamp,
            "usageNanoCores": int(sum(p.cores for p in parts) * 1e9),
            "usageCoreNanoSeconds": int(sum(p.cpu_seconds for p in parts) * 1e9),
            "windowSeconds": round(min((p.window for p in parts), default=0.0), 3),
        },
        "memory": {
            "time": stamp,
            "usageBytes": sum(p.usage for p in parts),
            "workingSetBytes": sum(p.working_set for p in parts),
            "rssBytes": sum(p.rss for p in parts),
        },
    }


async def resource_metrics(agent: Agent, now: float) -> bytes:
    """/metrics/resource: CPU seconds and working sets, by container, pod and node."""
    data = await summary(agent, now)
    cpu, memory, pod_cpu, pod_memory = [], [], [], []
    for pod in data["pods"]:
        ref = pod["podRef"]
        whole = f'namespace="{ref["namespace"]}",pod="{ref["name"]}"'
        pod_cpu.append(f"pod_cpu_usage_seconds_total{{{whole}}} {_seconds(pod)}")
        pod_memory.append(f"pod_memory_working_set_bytes{{{whole}}} {_bytes(pod)}")
        for container in pod["containers"]:
            labels = f'container="{container["name"]}",namespace="{ref["namespace"]}",pod="{ref["name"]}"'
            cpu.append(f"container_cpu_usage_seconds_total{{{labels}}} {_seconds(container)}")
            memory.append(f"container_memory_working_set_bytes{{{labels}}} {_bytes(container)}")
    lines = [
        "# TYPE container_cpu_usage_seconds_total counter",
        *cpu,
        "# TYPE container_memory_working_set_bytes gauge",
        *memory,
        "# TYPE pod_cpu_usage_seconds_total counter",
        *pod_cpu,
        "# TYPE pod_memory_working_set_bytes gauge",
        *pod_memory,
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
    worlds = [driver.world for driver in agent.manager.drivers.values()]
    states = Counter(one.state for world in worlds for one in world.containers.values())
    running = sum(1 for world in worlds if world.sandbox is not None and world.sandbox.ready)
    lines = [
        "# TYPE kubelet_node_name gauge",
        f'kubelet_node_name{{node="{agent.name}"}} 1',
        "# TYPE kubelet_active_pods gauge",
        f"kubelet_active_pods {len(worlds)}",
        "# TYPE kubelet_running_pods gauge",
        f"kubelet_running_pods {running}",
        "# TYPE kubelet_running_containers gauge",
        *(f'kubelet_running_containers{{container_state="{state}"}} {states[state]}' for state in _STATES),
    ]
    return ("\n".join(lines) + "\n").encode()


def probe_metrics(agent: Agent) -> bytes:
    """/metrics/probes: how often each probe of a container that is here had which result."""
    lines = ["# TYPE prober_probe_total counter"]
    for looks in agent.kit.prober.looks():
        meta = looks.metadata
        of = f'namespace="{meta["namespace"]}",pod="{meta["name"]}",pod_uid="{meta["uid"]}"'
        for (container, kind, result), count in sorted(looks.results.items()):
            labels = f'container="{container}",{of},probe_type="{kind}",result="{result}"'
            lines.append(f"prober_probe_total{{{labels}}} {count}")
    return ("\n".join(lines) + "\n").encode()


async def container_metrics(agent: Agent, now: float) -> bytes:
    """/metrics/cadvisor: the counters of containers under the names dashboards ask for."""
    drivers = list(agent.manager.drivers.values())
    started = {s.config.id: s.started_at for d in drivers for s in d.world.running()}
    used = await agent.meter.measure(started)
    families: dict[str, list[str]] = {name: [] for name in _CADVISOR}
    for driver in drivers:
        meta = driver.pod["metadata"]
        for status in driver.world.running():
            one = used.get(status.config.id)
            if one is None:
                continue
            labels = (
                f'container="{status.config.name}",id="/{status.config.id}",image="{status.config.image.ref}",'
                f'name="{status.config.id}",namespace="{meta["namespace"]}",pod="{meta["name"]}"'
            )
            for name, (_, value) in _CADVISOR.items():
                families[name].append(f"{name}{{{labels}}} {value(one)}")
            families["container_start_time_seconds"][-1] = (
                f"container_start_time_seconds{{{labels}}} {status.started_at}"
            )
    lines = [f"# TYPE {name} {_CADVISOR[name][0]}\n" + "\n".join(rows) for name, rows in families.items()]
    return ("\n".join(lines) + "\n").encode()


_CADVISOR: Mapping[str, tuple[str, Callable[[Measured], float]]] = {
    "container_cpu_usage_seconds_total": ("counter", lambda m: m.cpu_seconds),
    "container_memory_usage_bytes": ("gauge", lambda m: m.usage),
    "container_memory_working_set_bytes": ("gauge", lambda m: m.working_set),
    "container_memory_rss": ("gauge", lambda m: m.rss),
    "container_processes": ("gauge", lambda m: m.processes),
    "container_start_time_seconds": ("gauge", lambda m: 0.0),
}
