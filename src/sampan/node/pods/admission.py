"""Whether a node takes a pod that was assigned to it. Pure.

The scheduler has looked already, but it may have been passed over (spec.nodeName) or have seen an older node. Reasons and
texts are kubelet's. Sources: "Node-pressure Eviction", "Using sysctls", "Scheduler: node resources fit".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sampan.api import placement, pod_resources, quantity
from sampan.base.objects import Object
from sampan.node import pressure, qos
from sampan.node.pods.podspec import all_containers

SAFE_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    )
)
Refusal = tuple[str, str]  # reason, message
Holder = tuple[Object, Mapping[str, int]]  # a pod that holds resources, and its pod_resources.requests()


def judge(
    pod: Object,
    node: Object,
    others: Sequence[Holder],
    *,
    pressures: Sequence[str] = (),
    unsafe_sysctls: Sequence[str] = (),
) -> Refusal | None:
    """Why the node refuses the pod; None when it takes it. `others`: pods that hold its resources now.

    `unsafe_sysctls`: names beyond the safe ones, also as a prefix with `*` ("net.core.*").
    """
    if pressures:
        short = pressure.admits(pod, qos.qos_class(pod), pressures)
        if short:
            return "Evicted", short
    for entry in (pod["spec"].get("securityContext") or {}).get("sysctls") or ():
        if not _allowed(entry["name"].replace("/", "."), unsafe_sysctls):
            return "SysctlForbidden", f'forbidden sysctl: "{entry["name"]}" not allowlisted'
    if (pod["spec"].get("os") or {}).get("name", "linux") != "linux":
        text = "Failed to admit pod as the OS field doesn't match node OS"
        return "PodOSNotSupported", text
    if not placement.fits(pod["spec"], node):
        text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        return "NodeAffinity", text
    wanted = _host_ports(pod)
    if wanted and any(_clash(wanted, _host_ports(other)) for other, _ in others):
        return (
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        )
    return resources(pod, node, others)


def _allowed(name: str, unsafe: Sequence[str]) -> bool:
    if name in SAFE_SYSCTLS or name in unsafe:
        return True
    return any(pattern.endswith("*") and name.startswith(pattern[:-1]) for pattern in unsafe)


def _host_ports(pod: Object) -> set[tuple[str, int, str]]:
    return {
        (port.get("protocol") or "TCP", port["hostPort"], port.get("hostIP") or "0.0.0.0")
        for container in all_containers(pod)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }


def _clash(mine: set[tuple[str, int, str]], theirs: set[tuple[str, int, str]]) -> bool:
    return any(a[:2] == b[:2] and (a[2] == b[2] or "0.0.0.0" in (a[2], b[2])) for a in mine for b in theirs)


def resources(pod: Object, node: Object, others: Sequence[Holder]) -> Refusal | None:
    """What of the pod's requests the node has not left."""
    has = node.get("status", {}).get("allocatable") or {}
    if "pods" in has and len(others) + 1 > quantity.value(has["pods"]):
        return _out_of("pods", 1, len(others), quantity.value(has["pods"]))
    for name, asked in pod_resources.requests(pod["spec"]).items():
        if not asked:
            continue
        capacity = pod_resources.count(name, has.get(name, "0"))
        used = sum(held.get(name, 0) for _, held in others)
        if used + asked > capacity:
            return _out_of(name, asked, used, capacity)
    return None


def _out_of(name: str, asked: int, used: int, capacity: int) -> Refusal:
    text = f"Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
    return f"OutOf{name}", text
