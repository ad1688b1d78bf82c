"""Quality of service: a pod's class, and the kernel settings that follow from its requests and limits.

Rules: "Pod Quality of Service Classes" and "Node Allocatable" of the Kubernetes documentation.
"""

from __future__ import annotations

from typing import Any

from sampan.api import pod_resources, quantity
from sampan.api import qos as api_qos
from sampan.base.objects import Object
from sampan.node.pods.podspec import mains, sidecars
from sampan.node.runtime import Limits

_SHARES_PER_CPU = 1024
_PERIOD = 100_000  # microseconds


def qos_class(pod: Object) -> str:
    """As the API server said, or, of a static pod, as it would say."""
    return pod.get("status", {}).get("qosClass") or api_qos.qos_class(pod["spec"])


def _milli(text: Any) -> int:
    return quantity.milli(text) if text is not None else 0


def shares(milli: int) -> int:
    """cpu.shares of a request in thousandths of a core; 2 is the kernel's least."""
    return max(2, milli * _SHARES_PER_CPU // 1000)


def quota(milli: int) -> int:
    """CFS quota in microseconds per 100 ms; 1 ms is the kernel's least."""
    return max(1000, milli * _PERIOD // 1000)


def container_limits(pod: Object, container: Object, node_memory: int = 0) -> Limits:
    """The cgroup settings of one container; a limit it does not have is that of the whole pod (KEP-2837)."""
    resources = container.get("resources") or {}
    whole = (pod["spec"].get("resources") or {}).get("limits") or {}
    limits, requests = whole | (resources.get("limits") or {}), resources.get("requests") or {}
    cpu_request = _milli(requests.get("cpu", limits.get("cpu")))
    cpu_limit = _milli(limits.get("cpu"))
    memory, memory_request = limits.get("memory"), requests.get("memory")
    return Limits(
        cpu_shares=shares(cpu_request),
        cpu_quota=quota(cpu_limit) if cpu_limit else None,
        memory=quantity.value(memory) if memory is not None else None,
        oom_score_adj=oom_score_adj(pod, container, node_memory),
        memory_request=quantity.value(memory_request) if memory_request is not None else None,
    )


def oom_score_adj(pod: Object, container: Object, node_memory: int) -> int:
    """Guaranteed -997, BestEffort 1000; Burstable in between, less the more memory it requested."""
    if pod["spec"].get("priorityClassName") == "system-node-critical":
        return -997
    qos = qos_class(pod)
    if qos == "Guaranteed":
        return -997
    if qos == "BestEffort":
        return 1000
    resources = container.get("resources") or {}
    request = (resources.get("requests") or {}).get("memory", (resources.get("limits") or {}).get("memory"))
    if not node_memory:
        return 999
    asked = (quantity.value(request) if request is not None else 0) + _share(pod)
    return min(max(1000 - 1000 * asked // node_memory, 3), 999)


def _share(pod: Object) -> int:
    """Bytes that the whole pod requested beyond its containers' requests, for each of them."""
    whole = ((pod["spec"].get("resources") or {}).get("requests") or {}).get("memory")
    if whole is None:
        return 0
    containers = [*mains(pod), *sidecars(pod)]
    own = (((c.get("resources") or {}).get("requests") or {}).get("memory", "0") for c in containers)
    return max(quantity.value(whole) - sum(map(quantity.value, own)), 0) // len(containers)


def pod_limits(pod: Object) -> Limits:
    """The group of the whole pod; a limit only where every container has one, or the pod itself."""
    asked, most = pod_resources.requests(pod["spec"]), pod_resources.limits(pod["spec"])
    return Limits(
        cpu_shares=shares(asked.get("cpu", most.get("cpu", 0))),
        cpu_quota=quota(most["cpu"]) if "cpu" in most else None,
        memory=most.get("memory"),
    )


def cgroup(pod: Object) -> str:
    """The pod's cgroup below the node's: `besteffort/pod<uid>`; guaranteed pods lie at the top."""
    qos = qos_class(pod)
    prefix = "" if qos == "Guaranteed" else qos.lower() + "/"
    return f"{prefix}pod{pod['metadata']['uid']}"
