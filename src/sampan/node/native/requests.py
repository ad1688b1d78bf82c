"""What the agent asks the zygote for, as the values that its forks read: a pod's surroundings, a container, a command in it.

Pure; what becomes of the answers is in `runtime`. The readers are `sandbox`, `starter` and `execute`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sampan.node.native import cgroups
from sampan.node.native.records import Container, Sandbox, encode
from sampan.node.runtime import ContainerConfig, Limits, SandboxConfig

Request = dict[str, Any]


def sandbox(
    directory: str, config: SandboxConfig, own: Sequence[str], cgroup: str | None, created: float
) -> Request:
    """`own`: the namespaces that the pod does not share with the node; `created`: seconds since the epoch."""
    return {
        "dir": directory,
        "hostname": config.hostname,
        "own": own,
        "user_base": config.user_base,
        "sysctls": dict(config.sysctls),
        "cgroup": cgroup,
        "limits": asdict(config.limits),
        "config": encode(config),
        "created_at": created,
    }


def container(
    directory: str, config: ContainerConfig, sandbox: Sandbox, cgroup: str | None, pid: str
) -> Request:
    """`cgroup`: the pod's. `pid`: whose processes it sees: `host`, `own`, or the path of a namespace."""
    pod = sandbox.config
    surroundings = {name: f"{sandbox.directory}/{name}" for name in sandbox.own}
    return {
        "id": config.id,
        "dir": directory,
        "args": list(config.args),
        "env": dict(config.env),
        "cwd": config.cwd or "/",
        "uid": config.uid,
        "gid": config.gid,
        "groups": list(config.groups),
        "layers": list(config.image.layers),
        "trees": [list(one) for one in config.image.trees],
        "mounts": [asdict(one) | {"devices": config.privileged} for one in config.mounts],
        "net": surroundings.get("net"),
        "ipc": surroundings.get("ipc"),
        "uts": surroundings.get("uts"),
        "user": surroundings.get("user"),
        "user_base": pod.user_base,
        "pid": pid,
        "shm": None if pod.host_ipc else f"{sandbox.directory}/shm",
        "cgroup": f"{cgroup}/{config.id}" if cgroup else None,
        "limits": asdict(config.limits) | {"controllers": cgroups.needed(asdict(pod.limits))},
        "capabilities": None if config.capabilities is None else list(config.capabilities),
        "privileged": config.privileged,
        "no_new_privileges": config.no_new_privileges,
        "readonly_root": config.readonly_root,
        "image_volumes": sorted(config.image.config.get("Volumes") or ()),
        "seccomp": config.seccomp,
        "masked": config.masked_paths,
        "devices": list(config.devices),
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
        "log": config.log_path,
        "config": encode(config),
    }


def execution(record: Container, args: Sequence[str], *, tty: bool, stdin: bool) -> Request:
    """One more process in a running container."""
    group = record.spec.get("cgroup")
    return {
        "pid": record.state["pid"],
        "pid_start": record.state["pid_start"],
        "spec": {**record.spec, "config": None, "mounts": [], "layers": []},
        "procs": cgroups.procs(group, record.spec["limits"]) if group else [],
        "args": list(args),
        "tty": tty,
        "stdin": stdin,
    }


def limits(changed: Limits) -> Request:
    """Settings of a control group: what has no limit any more loses the one it had."""
    return {**asdict(changed), "cpu_quota": changed.cpu_quota or -1, "memory": changed.memory or -1}
