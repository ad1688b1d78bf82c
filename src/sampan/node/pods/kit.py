"""What every pod driver of a node shares: the runtime, the image store, the client, and the node's own services."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.node.histogram import Histogram
from sampan.node.runtime import Image, Images, Mount, Runtime

if TYPE_CHECKING:
    from sampan.node.config import AgentConfig, NodeHooks
    from sampan.node.pods.driver import PodDriver


class Volumes(Protocol):
    """The files of pods: their volumes, /etc/hosts and the like. All calls may be repeated."""

    async def mount(self, pod: Object) -> None:
        """Set up all volumes and keep them current until `unmount`. Raises VolumeError."""
        ...

    async def mounts(
        self,
        pod: Object,
        container: Object,
        env: Mapping[str, str],
        ips: Sequence[str],
        images: Mapping[str, Image],
    ) -> list[Mount]:
        """The mounts of one container; `images` are those of its image volumes, by name. Raises VolumeError."""
        ...

    async def read(self, pod: Object, volume: str, path: str, most: int) -> bytes | None:
        """A file of a volume that is set up; None if there is none. Raises VolumeError, also for more than `most` bytes."""
        ...

    async def unmount(self, pod_uid: str) -> None: ...

    def know(self, pod: Object) -> None:
        """A new version of a pod whose volumes are set up."""
        ...

    def disk_paths(self, pod: Object) -> Mapping[str, str]:
        """Where the pod's emptyDir volumes on disk lie, by name."""
        ...

    def measured_paths(self, pod: Object) -> Mapping[str, str]:
        """Where the pod's volumes lie whose use can be told, by name."""
        ...

    async def remove_logs(self, pod: Object) -> None: ...

    async def sweep(self, present: Set[str]) -> None:
        """Remove what is left of pods other than these (uids)."""
        ...

    async def close(self) -> None: ...

    def log_path(self, pod: Object, name: str, attempt: int) -> str: ...

    async def termination_message(
        self, pod: Object, container: Object, attempt: int, failed: bool
    ) -> str: ...


@dataclass(slots=True)
class ProbeLooks:
    """What the probes of one pod, whose metadata this is, have seen.

    results: how often, by (container, probe type, result); durations: seconds of the successful looks, by (container, type).
    """

    metadata: Object
    results: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    durations: dict[tuple[str, str], Histogram] = field(default_factory=dict)

    def add(self, container: str, kind: str, ok: bool, seconds: float) -> None:
        self.results[container, kind, "successful" if ok else "failed"] += 1
        if ok:
            self.durations.setdefault((container, kind), Histogram()).observe(seconds)


class Prober(Protocol):
    """Runs probes and reports to drivers: `driver.probed(name, container_id, kind, ok)`."""

    def sync(self, driver: PodDriver, containers: Mapping[str, str], ending: bool) -> None:
        """Probe exactly these containers (name -> id) of the driver's pod."""
        ...

    def stop(self, driver: PodDriver) -> None: ...

    def looks(self) -> Sequence[ProbeLooks]:
        """What the probes of each pod that has any have seen."""
        ...


class Recorder(Protocol):
    """Writes Events. `container` names the one concerned."""

    def record(
        self, regarding: Object, type: str, reason: str, message: str, container: str = ""
    ) -> None: ...


class Statuses(Protocol):
    """Where a pod's latest status goes; only the newest is sent."""

    def know(self, pod: Object) -> None:
        """What the API already has, so that taking a pod over writes nothing."""
        ...

    def seen(self, pod: Object) -> None:
        """A newer version of a pod, which somebody else may have written."""
        ...

    def put(self, pod: Object, status: Object) -> None: ...

    async def flush(self, uid: str) -> None:
        """Returns when the pod's newest status has been sent (or can no longer be)."""
        ...

    def forget(self, uid: str) -> None: ...


@dataclass(slots=True)
class Kit:
    """Shared by all drivers of a node. `lookup` gets an object that a pod names (None: not found)."""

    client: Client
    runtime: Runtime
    images: Images
    clock: Clock
    ids: Ids
    config: AgentConfig
    hooks: NodeHooks
    volumes: Volumes
    prober: Prober
    events: Recorder
    statuses: Statuses
    lookup: Callable[[str, str, str], Awaitable[Object | None]]
    node: Callable[[], Object] = dict
    run_hook: Callable[..., Awaitable[tuple[bool, str]]] | None = None
    images_changed: Callable[[], None] = lambda: None
    host_ips: Sequence[str] = field(default_factory=list)
