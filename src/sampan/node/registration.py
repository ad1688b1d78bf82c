"""The Node object an agent registers, as a pure function of its settings and its machine.

Labels, conditions and their texts are those kubelet writes ("Nodes" of the Kubernetes documentation; KEP-1143 labels).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sampan.api import quantity
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.node import pressure
from sampan.node.config import KUBELET_VERSION, AgentConfig


def node_object(
    name: str,
    config: AgentConfig,
    capacity: Mapping[str, str],
    info: Mapping[str, str],
    runtime: str,
    now: float,
    handlers: Sequence[str] = ("",),
) -> Object:
    """A whole Node with status, ready to be created.

    `capacity`: quantities by resource. `info`: what the machine says of itself (status.nodeInfo). `runtime`: name and
    version of the container runtime; `handlers`: what a RuntimeClass may name. `now`: seconds since the epoch.
    """
    architecture, system = info.get("architecture", "amd64"), info.get("operatingSystem", "linux")
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true", **config.annotations}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": _labels(config.hostname or name, architecture, system) | dict(config.labels),
            "annotations": annotations,
        },
        "spec": _spec(config),
        "status": {
            "capacity": dict(capacity),
            "allocatable": allocatable(capacity, _withheld(config, capacity)),
            "conditions": conditions(config, {}, now),
            "addresses": addresses(name, config),
            "features": {"supplementalGroupsPolicy": True},
            "runtimeHandlers": [
                {"name": one, "features": {"recursiveReadOnlyMounts": True, "userNamespaces": True}}
                for one in handlers
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
            "nodeInfo": _node_info(
                config, {"operatingSystem": system, "architecture": architecture, **info}, runtime
            ),
        },
    }


def _node_info(config: AgentConfig, info: Mapping[str, str], runtime: str) -> dict[str, str]:
    """All of its fields are required; what the configuration says goes before what the machine says."""
    return {
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
        "kernelVersion": "",
        "osImage": "",
        **info,
        "containerRuntimeVersion": runtime,
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        **config.node_info,
    }


def _labels(hostname: str, architecture: str, system: str) -> dict[str, str]:
    return {
        "beta.kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": system,
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": hostname,
        "kubernetes.io/os": system,
    }


def _spec(config: AgentConfig) -> Object:
    spec: Object = {}
    ranges = list(config.pod_cidrs) or ([config.pod_cidr] if config.pod_cidr else [])
    if ranges:
        spec = {"podCIDR": ranges[0], "podCIDRs": ranges}
    if config.taints:
        spec["taints"] = [dict(t) for t in config.taints]
    return spec


def _withheld(config: AgentConfig, capacity: Mapping[str, str]) -> list[tuple[str, str]]:
    """(resource, amount) of what pods do not get: both reservations, and what hard eviction keeps free."""
    kept = [*config.reserved.items(), *config.kube_reserved.items()]
    if config.root:
        for one in pressure.parse(config.eviction_hard):
            name = {"memory.available": "memory", "nodefs.available": "ephemeral-storage"}.get(one.signal, "")
            if name in capacity:
                kept.append((name, str(one.least(quantity.value(capacity[name])))))
    return kept


def allocatable(capacity: Mapping[str, str], withheld: Iterable[tuple[str, str]]) -> Object:
    """Capacity less what is withheld, never negative ("Reserve Compute Resources for System Daemons")."""
    result = dict(capacity)
    for name, amount in withheld:
        if name in result:
            left = quantity.parse(result[name]) - quantity.parse(amount)
            result[name] = str(left) if left.nano > 0 else "0"
    return result


def addresses(name: str, config: AgentConfig) -> list[Object]:
    """status.addresses."""
    ips: Sequence[str] = config.addresses or (config.address,)
    return [
        *({"type": "InternalIP", "address": ip} for ip in ips),
        {"type": "Hostname", "address": config.hostname or name},
    ]


_CONDITIONS = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)
_PRESSURES = {
    "MemoryPressure": ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    "DiskPressure": ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    "PIDPressure": ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
}


def conditions(
    config: AgentConfig,
    old: Mapping[str, Object],
    now: float,
    *,
    problem: str = "",
    pressures: Sequence[str] = (),
) -> list[Object]:
    """The node's conditions. `problem` says why it is not ready; `old` keeps the times of transitions."""
    wanted: list[tuple[str, str, str, str]] = []
    for kind, reason, message in _CONDITIONS:
        if kind in pressures:
            wanted.append((kind, "True", *_PRESSURES[kind]))
        else:
            wanted.append((kind, "False", reason, message))
    if problem:
        wanted.append(("Ready", "False", "KubeletNotReady", problem))
    else:
        wanted.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    wanted += [(c["type"], c["status"], c.get("reason", ""), c.get("message", "")) for c in config.conditions]
    stamp = rfc3339(now)
    result = []
    for kind, status, reason, message in wanted:
        before = old.get(kind, {})
        since = before.get("lastTransitionTime", stamp) if before.get("status") == status else stamp
        result.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": since,
                "reason": reason,
                "message": message,
            }
        )
    return result
