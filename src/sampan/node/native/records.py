"""What a node's directory says about its sandboxes and containers: the state that outlives the agent.

sandboxes/ID/sandbox.json and containers/ID/{config,state,exit}.json are written by the zygote's forks; here they are read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields, replace
from typing import Any

from sampan.node.machine import read_text
from sampan.node.native import syscalls
from sampan.node.runtime import (
    ContainerConfig,
    ContainerStatus,
    Image,
    Limits,
    Mount,
    PortMapping,
    SandboxConfig,
    SandboxStatus,
)

_LOST_CODE = 255  # an exit nobody saw, as other runtimes report it


def encode(config: SandboxConfig | ContainerConfig) -> dict[str, Any]:
    """A config as plain JSON values."""
    return asdict(config)


def decode_sandbox(data: dict[str, Any]) -> SandboxConfig:
    """The inverse of encode(); fields of a newer version are ignored."""
    known = _known(SandboxConfig, data)
    known["limits"] = Limits(**_known(Limits, known["limits"]))
    known["ports"] = [PortMapping(**_known(PortMapping, one)) for one in known.get("ports", ())]
    return SandboxConfig(**known)


def decode_container(data: dict[str, Any]) -> ContainerConfig:
    """The inverse of encode()."""
    known = _known(ContainerConfig, data)
    known["image"] = Image(**_known(Image, known["image"]))
    known["limits"] = Limits(**_known(Limits, known["limits"]))
    known["mounts"] = [Mount(**_known(Mount, one)) for one in known["mounts"]]
    return ContainerConfig(**known)


def _known(kind: Any, data: dict[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def read_json(path: str) -> dict[str, Any] | None:
    """A record, or None when it is absent or was cut short."""
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def sandboxes_in(directory: str) -> list[SandboxConfig]:
    """What a runtime's `directory` says of sandboxes, before the runtime starts."""
    try:
        names = sorted(os.listdir(f"{directory}/sandboxes"))
    except FileNotFoundError:
        return []
    found = [read_json(f"{directory}/sandboxes/{name}/sandbox.json") for name in names]
    return [decode_sandbox(record["config"]) for record in found if record]


class Container:
    """One container as the agent knows it; `spec` is what the shim was given."""

    def __init__(self, directory: str, spec: dict[str, Any], config: ContainerConfig) -> None:
        self.directory = directory
        self.spec = spec
        self.config = config
        self.state: dict[str, Any] = {}
        self.exit: dict[str, Any] | None = None

    @classmethod
    def load(cls, directory: str) -> Container | None:
        """Read one from disk; None when not even its config was written."""
        spec = read_json(f"{directory}/config.json")
        if spec is None:
            return None
        record = cls(directory, spec, decode_container(spec["config"]))
        record.exit = read_json(f"{directory}/exit.json")
        # On a full disk the end was written over the state, and says both.
        record.state = read_json(f"{directory}/state.json") or {**spec["state"], **(record.exit or {})}
        return record

    def shim_alive(self, boot: str) -> bool:
        """Whether the recorded shim is that same process."""
        pid = self.state.get("shim") or 0
        if not pid or self.state.get("boot") != boot:
            return False
        return syscalls.start_ticks(pid) == self.state["shim_start"]

    def settle(self) -> None:
        """The shim is gone: take its record of the end, or note that nobody saw it."""
        self.state = read_json(f"{self.directory}/state.json") or self.state
        self.exit = read_json(f"{self.directory}/exit.json") or {
            "code": _LOST_CODE,
            "signal": 0,
            "reason": "Unknown",
            "message": "the container ended while nothing watched it (a crash or a reboot)",
            "finished_at": self.state.get("started_at") or self.state.get("created_at") or 0.0,
        }

    def status(self) -> ContainerStatus:
        """What the files say of it, for the runtime's callers."""
        created = self.state.get("created_at") or 0.0
        started = self.state.get("started_at") or 0.0
        if self.exit is None:
            state = "running" if started else "created"
            return ContainerStatus(self.config, state, created, started, pid=self.state.get("pid") or 0)
        return ContainerStatus(
            config=self.config,
            state="exited",
            created_at=created,
            started_at=started,
            finished_at=self.exit["finished_at"],
            exit_code=self.exit["code"],
            signal=self.exit["signal"],
            reason=self.exit["reason"],
            message=self.exit["message"],
        )


class Sandbox:
    """One sandbox as the agent knows it."""

    def __init__(self, directory: str, config: SandboxConfig, created_at: float, own: list[str]) -> None:
        self.directory = directory
        self.config = config
        self.created_at = created_at
        self.own = own
        self.ready = True
        self.record: dict[str, Any] = {}

    @classmethod
    def load(cls, directory: str, boot: str) -> Sandbox | None:
        """Read one from disk; it is ready if its namespaces are still mounted (they end with the node)."""
        record = read_json(f"{directory}/sandbox.json")
        if record is None:
            return None
        config = replace(decode_sandbox(record["config"]), ip=read_text(f"{directory}/ip"))
        sandbox = cls(directory, config, record["created_at"], own_namespaces(config))
        sandbox.record = record
        mounted = all(is_mounted(f"{directory}/{name}") for name in sandbox.own)
        init = record.get("init") or 0
        living = not init or (
            record.get("boot") == boot and syscalls.start_ticks(init) == record.get("init_start")
        )
        sandbox.ready = mounted and living and is_mounted(f"{directory}/shm")
        return sandbox

    def save(self) -> None:
        """Put a changed config on disk."""
        record = read_json(f"{self.directory}/sandbox.json")
        if record is not None:
            record["config"] = encode(self.config)
            syscalls.write_atomic(f"{self.directory}/sandbox.json", json.dumps(record).encode())

    def status(self) -> SandboxStatus:
        return SandboxStatus(self.config, self.ready, self.created_at)


def own_namespaces(config: SandboxConfig) -> list[str]:
    """The namespaces a pod does not share with its node."""
    wanted = [
        ("net", not config.host_network),
        ("uts", not config.host_network),
        ("ipc", not config.host_ipc),
        ("pid", config.share_processes and not config.host_pid),
        ("user", bool(config.user_base)),
    ]
    return [name for name, own in wanted if own]


def is_mounted(path: str) -> bool:
    """Whether something is mounted on `path`."""
    try:
        return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    except OSError:
        return False
