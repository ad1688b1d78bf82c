"""Security contexts: a container's over its pod's over its image's, as the runtime needs them.

Rules: "Configure a Security Context", Pod v1 reference. Pure apart from the image's passwd, which is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sampan.base.objects import Object
from sampan.node.pods.podspec import pod_text
from sampan.node.pods.problems import ConfigProblem
from sampan.node.pods.users import Identity

DEFAULT_CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
ALL_CAPABILITIES = tuple(
    [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ]
)


@dataclass(frozen=True, slots=True)
class Security:
    """The merged outcome, in the words of `runtime.ContainerConfig`."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    privileged: bool
    capabilities: tuple[str, ...] | None
    no_new_privileges: bool
    readonly_root: bool
    seccomp: str
    masked_paths: bool


def wanted_user(pod: Object, container: Object, image_user: str) -> str:
    """The `user[:group]` to look up in the image: numbers of the spec before names of the image."""
    user = _merged(pod, container, "runAsUser")
    return str(user) if user is not None else image_user


def merge(pod: Object, container: Object, identity: Identity, image_user: str, seccomp_root: str) -> Security:
    """Raises ConfigProblem when runAsNonRoot is not kept."""
    own = container.get("securityContext") or {}
    shared = pod["spec"].get("securityContext") or {}
    _check_non_root(pod, container, identity, image_user)
    group = _merged(pod, container, "runAsGroup")
    gid = int(group) if group is not None else identity.gid
    groups = list(shared.get("supplementalGroups") or ())
    if shared.get("fsGroup") is not None:
        groups.append(shared["fsGroup"])
    if shared.get("supplementalGroupsPolicy", "Merge") == "Merge":
        groups += identity.groups
    privileged = bool(own.get("privileged"))
    return Security(
        uid=identity.uid,
        gid=gid,
        groups=tuple(sorted(set(groups))),
        privileged=privileged,
        capabilities=_capabilities(own.get("capabilities") or {}),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        readonly_root=bool(own.get("readOnlyRootFilesystem")),
        seccomp=_seccomp(own.get("seccompProfile") or shared.get("seccompProfile"), privileged, seccomp_root),
        masked_paths=not privileged and own.get("procMount", "Default") != "Unmasked",
    )


def _merged(pod: Object, container: Object, name: str) -> Any:
    own = (container.get("securityContext") or {}).get(name)
    return own if own is not None else (pod["spec"].get("securityContext") or {}).get(name)


def _check_non_root(pod: Object, container: Object, identity: Identity, image_user: str) -> None:
    if not _merged(pod, container, "runAsNonRoot"):
        return
    where = f'(pod: "{pod_text(pod)}", container: {container["name"]})'
    if _merged(pod, container, "runAsUser") is not None:
        if identity.uid == 0:
            raise ConfigProblem(f"container's runAsUser breaks non-root policy {where}")
        return
    name = image_user.partition(":")[0]
    if name and not name.isdigit():
        raise ConfigProblem(
            f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {where}"
        )
    if identity.uid == 0:
        raise ConfigProblem(f"container has runAsNonRoot and image will run as root {where}")


def _capabilities(wanted: Object) -> tuple[str, ...] | None:
    added = [_bare(c) for c in wanted.get("add") or ()]
    dropped = {_bare(c) for c in wanted.get("drop") or ()}
    if not added and not dropped:
        return None
    base = [] if "ALL" in dropped else [c for c in DEFAULT_CAPABILITIES if c not in dropped]
    if "ALL" in added:
        return tuple(c for c in ALL_CAPABILITIES if c not in dropped)
    return tuple(dict.fromkeys([*base, *(c for c in added if c not in dropped or "ALL" in dropped)]))


def _bare(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _seccomp(profile: Object | None, privileged: bool, root: str) -> str:
    """Without a profile the default is RuntimeDefault here (kubelet's --seccomp-default)."""
    if privileged:
        return "Unconfined"
    profile = profile or {}
    kind: str = profile.get("type", "RuntimeDefault")
    return f"{root}/{profile.get('localhostProfile', '')}" if kind == "Localhost" else kind
