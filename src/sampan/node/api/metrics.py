"""A node's pages for Prometheus: /metrics, /metrics/resource, /metrics/cadvisor and /metrics/probes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from sampan.api import quantity
from sampan.base.objects import Object
from sampan.node.agent import Agent
from sampan.node.api.stats import measured, summary
from sampan.node.meter import Measured

_STATES = ("created", "exited", "running")


def _page(families: Iterable[tuple[str, str, Iterable[str]]]) -> bytes:
    """Of (name, type, lines)."""
    lines = [line for name, kind, rows in families for line in (f"# TYPE {name} {kind}", *rows)]
    return ("\n".join(lines) + "\n").encode()


async def resources(agent: Agent, now: float) -> bytes:
    """/metrics/resource: CPU seconds and working sets, by container, pod and node, as metrics-server reads them."""
    data = await summary(agent, now, only_cpu_and_memory=True)
    started = {
        (d.uid, s.config.name): s.started_at
        for d in agent.manager.drivers.values()
        for s in d.world.running()
    }
    millis = int(now * 1000)
    cpu, memory, starts, pod_cpu, pod_memory = [], [], [], [], []
    for pod in data["pods"]:
        ref = pod["podRef"]
        whole = f'namespace="{ref["namespace"]}",pod="{ref["name"]}"'
        pod_cpu.append(f"pod_cpu_usage_seconds_total{{{whole}}} {_seconds(pod)} {millis}")
        pod_memory.append(f"pod_memory_working_set_bytes{{{whole}}} {_bytes(pod)} {millis}")
        for container in pod["containers"]:
            labels = f'container="{container["name"]}",{whole}'
            cpu.append(f"container_cpu_usage_seconds_total{{{labels}}} {_seconds(container)} {millis}")
            memory.append(f"container_memory_working_set_bytes{{{labels}}} {_bytes(container)} {millis}")
            since = started.get((ref["uid"], container["name"]), 0.0)
            starts.append(f"container_start_time_seconds{{{labels}}} {since}")
    node = data["node"]
    return _page(
        [
            ("container_cpu_usage_seconds_total", "counter", cpu),
            ("container_memory_working_set_bytes", "gauge", memory),
            ("container_start_time_seconds", "gauge", starts),
            ("pod_cpu_usage_seconds_total", "counter", pod_cpu),
            ("pod_memory_working_set_bytes", "gauge", pod_memory),
            (
                "node_cpu_usage_seconds_total",
                "counter",
                [f"node_cpu_usage_seconds_total {_seconds(node)} {millis}"],
            ),
            (
                "node_memory_working_set_bytes",
                "gauge",
                [f"node_memory_working_set_bytes {_bytes(node)} {millis}"],
            ),
            ("resource_scrape_error", "gauge", ["resource_scrape_error 0"]),
        ]
    )


def _seconds(entry: Object) -> float:
    return entry["cpu"]["usageCoreNanoSeconds"] / 1e9


def _bytes(entry: Object) -> int:
    return entry["memory"]["workingSetBytes"]


async def own(agent: Agent, now: float) -> bytes:
    """/metrics: how many pods and containers this node carries, and how full their claims are."""
    worlds = [driver.world for driver in agent.manager.drivers.values()]
    states = Counter(one.state for world in worlds for one in world.containers.values())
    running = sum(1 for world in worlds if world.sandbox is not None and world.sandbox.ready)
    counts = [f'kubelet_running_containers{{container_state="{state}"}} {states[state]}' for state in _STATES]
    return _page(
        [
            ("kubelet_node_name", "gauge", [f'kubelet_node_name{{node="{agent.name}"}} 1']),
            ("kubelet_active_pods", "gauge", [f"kubelet_active_pods {len(worlds)}"]),
            ("kubelet_running_pods", "gauge", [f"kubelet_running_pods {running}"]),
            ("kubelet_running_containers", "gauge", counts),
            *await _volumes(agent, now),
        ]
    )


_VOLUME = {
    "available_bytes": "availableBytes",
    "capacity_bytes": "capacityBytes",
    "used_bytes": "usedBytes",
    "inodes": "inodes",
    "inodes_free": "inodesFree",
    "inodes_used": "inodesUsed",
}


async def _volumes(agent: Agent, now: float) -> list[tuple[str, str, list[str]]]:
    """kubelet_volume_stats_*, once for each PersistentVolumeClaim."""
    if not any(
        "persistentVolumeClaim" in volume or "ephemeral" in volume
        for driver in agent.manager.drivers.values()
        for volume in driver.pod["spec"].get("volumes") or ()
    ):
        return []
    pods = (await summary(agent, now))["pods"]
    claims = {
        (one["pvcRef"]["namespace"], one["pvcRef"]["name"]): one
        for pod in pods
        for one in pod.get("volume", ())
        if "pvcRef" in one
    }
    return [
        (
            f"kubelet_volume_stats_{name}",
            "gauge",
            [
                f'kubelet_volume_stats_{name}{{namespace="{space}",persistentvolumeclaim="{claim}"}} {one[key]}'
                for (space, claim), one in claims.items()
            ],
        )
        for name, key in _VOLUME.items()
    ]


def probes(agent: Agent) -> bytes:
    """/metrics/probes: how often each probe of a container that is here had which result, and how long it took."""
    total: list[str] = []
    durations: list[str] = []
    for looks in agent.kit.prober.looks():
        meta = looks.metadata
        of = f'namespace="{meta["namespace"]}",pod="{meta["name"]}"'
        for (container, kind, result), count in sorted(looks.results.items()):
            labels = (
                f'container="{container}",{of},pod_uid="{meta["uid"]}",probe_type="{kind}",result="{result}"'
            )
            total.append(f"prober_probe_total{{{labels}}} {count}")
        for (container, kind), histogram in sorted(looks.durations.items()):
            labels = f'container="{container}",{of},probe_type="{kind}"'
            durations += histogram.lines("prober_probe_duration_seconds", labels)
    return _page(
        [("prober_probe_total", "counter", total), ("prober_probe_duration_seconds", "histogram", durations)]
    )


async def containers(agent: Agent) -> bytes:
    """/metrics/cadvisor: the counters of containers under the names dashboards ask for."""
    drivers = list(agent.manager.drivers.values())
    used = await measured(agent)
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
            start = f"container_start_time_seconds{{{labels}}} {status.started_at}"
            families["container_start_time_seconds"][-1] = start
            limit = f"container_spec_memory_limit_bytes{{{labels}}} {status.config.limits.memory or 0}"
            families["container_spec_memory_limit_bytes"][-1] = limit
    capacity = agent.heartbeat.node.get("status", {}).get("capacity", {})
    return _page(
        [
            *((name, kind, families[name]) for name, (kind, _) in _CADVISOR.items()),
            *_traffic(agent),
            *_machine(capacity),
        ]
    )


def _traffic(agent: Agent) -> list[tuple[str, str, list[str]]]:
    """container_network_*, of pods as a whole."""
    sandboxes = [
        (d.pod["metadata"], s.config.id) for d in agent.manager.drivers.values() if (s := d.world.sandbox)
    ]
    seen = agent.hooks.traffic([sandbox for _, sandbox in sandboxes])
    names = ("receive_bytes", "receive_errors", "transmit_bytes", "transmit_errors")
    rows: dict[str, list[str]] = {name: [] for name in names}
    for meta, sandbox in sandboxes:
        for name, count in zip(names, seen.get(sandbox, ()), strict=False):
            labels = f'interface="eth0",namespace="{meta["namespace"]}",pod="{meta["name"]}"'
            rows[name].append(f"container_network_{name}_total{{{labels}}} {count}")
    return [(f"container_network_{name}_total", "counter", rows[name]) for name in names]


def _machine(capacity: Mapping[str, str]) -> list[tuple[str, str, list[str]]]:
    return [
        (name, "gauge", [f"{name} {quantity.value(capacity[resource])}"])
        for name, resource in (("machine_cpu_cores", "cpu"), ("machine_memory_bytes", "memory"))
        if resource in capacity
    ]


_CADVISOR: Mapping[str, tuple[str, Callable[[Measured], float]]] = {
    "container_cpu_usage_seconds_total": ("counter", lambda m: m.cpu_seconds),
    "container_memory_usage_bytes": ("gauge", lambda m: m.usage),
    "container_memory_working_set_bytes": ("gauge", lambda m: m.working_set),
    "container_memory_rss": ("gauge", lambda m: m.rss),
    "container_processes": ("gauge", lambda m: m.processes),
    "container_spec_memory_limit_bytes": ("gauge", lambda m: 0.0),
    "container_start_time_seconds": ("gauge", lambda m: 0.0),
}
