"""What an agent is told when it is made: settings as data, and hooks to the parts of a node it does not own.

The hooks are how the agent meets the network (addresses, the proxy's view) without importing it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sampan.base.objects import Object
from sampan.node.pods.addresses import AddressPool

KUBELET_VERSION = "v1.37.0"


class Addresses(Protocol):
    """The node's pool of pod addresses. A pod keeps its address until `release`; all calls are idempotent."""

    def take(self, pod_uid: str, address: str) -> None:
        """Mark an address that a running pod already has."""
        ...

    async def allocate(self, pod: Object) -> str: ...

    async def release(self, pod_uid: str) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Seconds, bytes and paths. `capacity` overrides what the machine has (simulated nodes must give it)."""

    root: str = ""  # directory of pods, logs and volumes; "" for nodes without files (simulated)
    log: str = ""  # file this node's processes write their log to
    address: str = "127.0.0.1"  # InternalIP of the node
    addresses: Sequence[str] = ()  # all InternalIPs, when dual-stack
    hostname: str = ""
    port: int = 10250  # of the kubelet API
    pod_cidr: str = ""  # written to spec.podCIDR at registration, when set
    pod_cidrs: Sequence[str] = ()  # all of them, when dual-stack
    capacity: Mapping[str, str] = field(default_factory=dict)
    reserved: Mapping[str, str] = field(
        default_factory=dict
    )  # for the system: capacity minus this is allocatable
    kube_reserved: Mapping[str, str] = field(default_factory=dict)  # for the node's own processes, likewise
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    node_info: Mapping[str, str] = field(default_factory=dict)  # overrides of status.nodeInfo
    lease_period: float = 10.0
    lease_duration: int = 40
    status_period: float = 300.0
    cluster_dns: Sequence[str] = ("10.96.0.10",)
    cluster_domain: str = "cluster.local"
    resolv_conf: str = "/etc/resolv.conf"
    static_pods: str = ""  # directory of static pod manifests
    unsafe_sysctls: Sequence[str] = ()  # allowed beyond the safe ones; "net.core.*" for all below
    events: bool = True
    max_pods: int = 110
    pod_pids_limit: int = -1  # processes of a pod, -1: any number
    housekeeping: float = 10.0  # seconds between two looks at resources
    # Kubelet's own 10 and 15 percent of a disk are much where somebody tries a cluster on a well filled machine.
    eviction_hard: str = (
        "memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<5%,"
        "imagefs.available<1Gi,imagefs.inodesFree<5%,pid.available<5%"
    )
    eviction_soft: str = ""
    eviction_soft_grace: str = ""
    eviction_max_pod_grace: float = 0.0
    pressure_transition: float = 300.0
    image_gc_high: float = 85.0  # percent of the images' file system; unused images go until `low` is reached
    image_gc_low: float = 80.0
    image_gc_age: float = 120.0  # an unused image stays as long as this after it was first seen
    log_max_size: str = "10Mi"  # of a container's log, then it is rotated; negative: never
    log_max_files: int = 5
    conditions: Sequence[Mapping[str, str]] = ()  # further node conditions, e.g. what rootless costs
    drain: float = 0.5  # seconds between an endpoint's withdrawal and SIGTERM
    watch_node: bool = True  # follow the own Node object


@dataclass(slots=True)
class NodeHooks:
    """Supplied by the composition root. The defaults suit simulated nodes.

    addresses: gives pods their addresses; None when the runtime does so while it makes a sandbox.
    sandbox_addresses(sandbox_id): all addresses of a sandbox, the primary first (dual-stack; else one is known).
    pod_ranges(cidrs): told the node's pod ranges as soon as the control plane has assigned them.
    isolate(pod, addresses): returns once the network policies of a pod that has just got its addresses are in force
        (before its first container starts); with no addresses: it has them no longer. Raises OSError.
    withdrawn(pod): returns once this node's proxy no longer sends new traffic to the pod.
    traffic(sandbox_ids): received bytes and errors, sent bytes and errors of each, and of the node as "". May block.
    services(namespace): Service objects visible there, for the `*_SERVICE_HOST` variables.
    """

    addresses: Addresses | None = field(default_factory=AddressPool)
    sandbox_addresses: Callable[[str], Sequence[str]] | None = None
    pod_ranges: Callable[[Sequence[str]], Any] | None = None
    isolate: Callable[[Object, Sequence[str]], Awaitable[Any]] | None = None
    withdrawn: Callable[[Object], Awaitable[Any]] | None = None
    traffic: Callable[[Iterable[str]], Mapping[str, tuple[int, int, int, int]]] = lambda sandbox_ids: {}
    services: Callable[[str], Iterable[Object]] = lambda namespace: ()
