"""What an agent needs of a container runtime. Implementations: `node.native` (Linux namespaces), `node.simulated`.

A sandbox is a pod's shared surroundings (network, IPC, UTS namespaces; its cgroup); containers live in one. State
outlives the agent: `sandboxes()` and `containers()` tell what is there after a restart. Modelled on the CRI v1 service,
so that a CRI implementation can follow.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that is present: `layers` are read-only directories, top first; `config` as in the OCI image spec."""

    ref: str  # canonical name, e.g. docker.io/library/busybox:latest
    id: str  # sha256:... of the config
    digest: str  # repo@sha256:... of the manifest, "" when loaded from an archive
    layers: Sequence[str]
    config: Mapping[str, Any]  # Entrypoint, Cmd, Env, WorkingDir, User, StopSignal, ...
    size: int = 0
    trees: Sequence[tuple[str, str]] = ()  # (node directory, path): laid over the layers there, copy-on-write


class ImageError(Exception):
    """`reason` is what kubelet reports: ErrImagePull, ErrImageNeverPull, InvalidImageName, ..."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Images(Protocol):
    """The machine's image store."""

    async def find(self, ref: str) -> Image | None: ...

    async def pull(self, ref: str, credentials: Sequence[Mapping[str, Any]] = ()) -> Image:
        """Raises ImageError with the real cause."""
        ...

    async def allows(self, image: Image, ref: str, credentials: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Whether a pod with these credentials may use an image that is present without pulling it."""
        ...

    async def list(self) -> list[Image]: ...

    async def remove(self, ref: str) -> None: ...


@runtime_checkable
class ImagesOnDisk(Images, Protocol):
    """An image store whose disk can fill."""

    @property
    def directory(self) -> str: ...

    async def usage(self) -> tuple[int, int]:
        """(used, capacity) in bytes of the images' file system."""
        ...

    async def in_use(self, image: Image) -> bool:
        """Whether a container of any node of this machine runs from it."""
        ...

    async def collect(self) -> int:
        """Remove layers nothing needs; returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount of a node's path into a container; with an `image`, of a path in that."""

    source: str
    target: str
    readonly: bool = False
    recursive_readonly: bool = False
    propagation: str = "None"  # None | HostToContainer | Bidirectional
    image: str = ""  # its id, for an image volume; `layers` and `trees` are as in Image
    layers: Sequence[str] = ()
    trees: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """cgroup settings; None leaves one unset. `cpu_quota` in microseconds per 100 ms period, memory in bytes.

    `memory_request` in bytes sets nothing, but a container is asked whether it was started with another one.
    """

    cpu_shares: int | None = None
    cpu_quota: int | None = None
    memory: int | None = None
    pids: int | None = None
    oom_score_adj: int = 0
    memory_request: int | None = None


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the node that leads into the sandbox (hostPort). `host_ip` "" is every address of the node."""

    protocol: str  # TCP, UDP or SCTP
    host_port: int
    container_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """One pod's surroundings. `ip` is given by the node's address pool; "" with host_network."""

    id: str  # unique for each attempt: pod uid plus attempt
    pod_uid: str
    pod_name: str
    namespace: str
    attempt: int
    hostname: str
    ip: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_processes: bool = False
    user_base: int = 0  # first of 65536 ids of the node that are the pod's; 0: the pod has the node's users
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cgroup: str = ""  # e.g. "burstable/pod<uid>"
    limits: Limits = Limits()
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[PortMapping] = ()


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """One container of a sandbox. Everything is resolved: no image defaults or pod fields are left to look up."""

    id: str
    sandbox: str
    name: str
    attempt: int  # restart count
    image: Image
    args: Sequence[str]  # entrypoint and command, $(VAR) expanded
    env: Mapping[str, str]
    cwd: str
    log_path: str  # CRI log format
    uid: int = 0
    gid: int = 0
    groups: Sequence[int] = ()
    mounts: Sequence[Mount] = ()
    limits: Limits = Limits()
    privileged: bool = False
    capabilities: Sequence[str] | None = None  # None: the default set; names without CAP_
    no_new_privileges: bool = False
    readonly_root: bool = False
    seccomp: str = "RuntimeDefault"  # RuntimeDefault | Unconfined | path of a profile
    masked_paths: bool = True  # False: procMount Unmasked
    devices: Sequence[str] = ()
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    stop_signal: str = "SIGTERM"
    target: str = ""  # id of the container whose processes it sees, where the pod shares none
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """`ready`: containers can be started in it. `created_at`: seconds since the epoch."""

    config: SandboxConfig
    ready: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """`state` is created, running or exited; `reason` Completed, Error, OOMKilled, ContainerCannotRun."""

    config: ContainerConfig
    state: str
    created_at: float
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0


class RuntimeFailure(Exception):
    """A sandbox or container could not be made. `reason` as in a waiting container: CreateContainerError,
    RunContainerError, CreatePodSandboxError; `message` names the cause."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Exec(Protocol):
    """A process started in a running container. Output ends with b"" on each stream."""

    async def read_stdout(self) -> bytes: ...

    async def read_stderr(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        """The exit code (128 + signal when killed)."""
        ...

    def kill(self) -> None: ...

    def close(self) -> None:
        """Let go of the process without killing it."""
        ...


class Runtime(Protocol):
    """All calls are idempotent: stopping or removing what is gone succeeds."""

    name: str  # for node.status.nodeInfo.containerRuntimeVersion, e.g. "sampan://0.1.0"
    handlers: Sequence[str]  # what a RuntimeClass may name; "" is for pods without one

    async def start(self, on_exit: Callable[[str], None]) -> None:
        """Connect; `on_exit(container_id)` is called on the loop whenever a container ended."""
        ...

    async def close(self) -> None:
        """Disconnect; containers go on."""
        ...

    async def run_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        """Raises RuntimeFailure."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kills what is left in it and takes its network away."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None: ...

    async def start_container(self, config: ContainerConfig) -> ContainerStatus:
        """Create and start. Raises RuntimeFailure."""
        ...

    async def stop_container(self, container_id: str, grace: float) -> None:
        """The stop signal, then SIGKILL after `grace` seconds; returns when it is dead."""
        ...

    async def remove_container(self, container_id: str) -> None: ...

    async def sandboxes(self) -> list[SandboxStatus]: ...

    async def containers(self) -> list[ContainerStatus]: ...

    async def status(self, container_id: str) -> ContainerStatus | None: ...

    async def exec(
        self, container_id: str, args: Sequence[str], *, tty: bool = False, stdin: bool = False
    ) -> Exec: ...

    async def attach(self, container_id: str) -> Exec: ...

    async def connect(self, sandbox_id: str, port: int) -> socket.socket:
        """A connected TCP socket to 127.0.0.1:port inside the sandbox (port-forward)."""
        ...

    async def update_limits(self, container_id: str, limits: Limits) -> None:
        """Change a running container's limits. Raises RuntimeFailure."""
        ...

    async def update_sandbox(self, sandbox_id: str, limits: Limits) -> None:
        """Change the limits of a pod as a whole. Raises RuntimeFailure."""
        ...

    async def stats(self) -> Mapping[str, Mapping[str, float]]:
        """container id -> {"cpu_seconds", "memory_working_set", "memory_rss", ...}"""
        ...

    def writable_layer(self, container_id: str) -> str:
        """The directory of what the container has written outside its volumes, "" when there is none."""
        ...

    async def reclaim(self) -> None:
        """Delete what dead containers wrote outside their volumes."""
        ...

    async def reopen_log(self, container_id: str) -> None:
        """Go on in a new file at the same path: the old one was renamed away."""
        ...

    def logs(self, path: str) -> AsyncIterator[bytes]: ...
