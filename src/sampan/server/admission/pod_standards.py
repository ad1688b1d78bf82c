"""The Pod Security Standards as pure functions: what in a pod a level forbids, and where.

Source: Kubernetes documentation, "Pod Security Standards".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sampan.base.objects import Object


class Violation(NamedTuple):
    """`reason` is the rule in a few words, `detail` the fields that break it."""

    reason: str
    detail: str


class Pod:
    """A pod as the checks look at it."""

    def __init__(self, metadata: Object, spec: Object) -> None:
        self.metadata = metadata
        self.spec = spec
        self.security = spec.get("securityContext") or {}
        self.containers = [
            c for f in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(f) or ()
        ]
        self.windows = (spec.get("os") or {}).get("name") == "windows"

    def bad(self, test: Callable[[Object], bool]) -> list[str]:
        """Names of the containers whose securityContext fails, in order."""
        return [c.get("name", "") for c in self.containers if test(c.get("securityContext") or {})]


Check = Callable[[Pod], Iterator[Violation]]

_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )
)
_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    )
)
_SELINUX_TYPES = frozenset(("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"))
_VOLUMES = frozenset(
    (
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
)
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def _quoted(names: list[str] | set[str] | tuple[str, ...]) -> str:
    return ", ".join(f'"{n}"' for n in names)


def _many(word: str, names: list[str]) -> str:
    return f"{word}{'s' if len(names) > 1 else ''} {_quoted(names)}"


# Baseline


def _host_namespaces(pod: Pod) -> Iterator[Violation]:
    set_ = [f"{f}=true" for f in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(f)]
    if set_:
        yield Violation("host namespaces", ", ".join(set_))


def _privileged(pod: Pod) -> Iterator[Violation]:
    if bad := pod.bad(lambda s: s.get("privileged") is True):
        yield Violation(
            "privileged", f"{_many('container', bad)} must not set securityContext.privileged=true"
        )


def _capabilities(pod: Pod) -> Iterator[Violation]:
    extra: set[str] = set()
    bad = []
    for container in pod.containers:
        added = set((_security(container).get("capabilities") or {}).get("add") or ()) - _CAPABILITIES
        if added:
            bad.append(container.get("name", ""))
            extra |= added
    if bad:
        text = f"{_many('container', bad)} must not include {_quoted(sorted(extra))} in securityContext.capabilities.add"
        yield Violation("non-default capabilities", text)


def _security(container: Object) -> Object:
    return container.get("securityContext") or {}


def _host_path(pod: Pod) -> Iterator[Violation]:
    if bad := [v.get("name", "") for v in pod.spec.get("volumes") or () if v.get("hostPath") is not None]:
        yield Violation("hostPath volumes", _many("volume", bad))


def _host_ports(pod: Pod) -> Iterator[Violation]:
    bad, ports = [], set()
    for container in pod.containers:
        used = {p["hostPort"] for p in container.get("ports") or () if p.get("hostPort")}
        if used:
            bad.append(container.get("name", ""))
            ports |= used
    if bad:
        word = "uses hostPort" if len(bad) == 1 else "use hostPort"
        more = "s" if len(ports) > 1 else ""
        yield Violation(
            "hostPort", f"{_many('container', bad)} {word}{more} {', '.join(map(str, sorted(ports)))}"
        )


def _apparmor(pod: Pod) -> Iterator[Violation]:
    bad = []
    for key, value in sorted((pod.metadata.get("annotations") or {}).items()):
        if (
            key.startswith(_APPARMOR)
            and value not in ("", "runtime/default")
            and not value.startswith("localhost/")
        ):
            bad.append(f'annotation "{key}"="{value}"')
    contexts = [("pod", pod.security)] + [
        (f'container "{c.get("name", "")}"', _security(c)) for c in pod.containers
    ]
    for where, context in contexts:
        kind = (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault")
        if kind not in ("RuntimeDefault", "Localhost"):
            bad.append(f'{where} must not set securityContext.appArmorProfile.type to "{kind}"')
    if bad:
        yield Violation("forbidden AppArmor profile" + ("s" if len(bad) > 1 else ""), ", ".join(bad))


def _selinux(pod: Pod) -> Iterator[Violation]:
    bad = []
    contexts = [("pod", pod.security)] + [
        (f'container "{c.get("name", "")}"', _security(c)) for c in pod.containers
    ]
    for where, context in contexts:
        options = context.get("seLinuxOptions") or {}
        if options.get("type", "") not in _SELINUX_TYPES:
            bad.append(f'{where} set forbidden securityContext.seLinuxOptions: type "{options["type"]}"')
        if options.get("user") or options.get("role"):
            which = ", ".join(f"{f} may not be set" for f in ("user", "role") if options.get(f))
            bad.append(f"{where} set forbidden securityContext.seLinuxOptions: {which}")
    if bad:
        yield Violation("seLinuxOptions", "; ".join(bad))


def _proc_mount(pod: Pod) -> Iterator[Violation]:
    if pod.spec.get("hostUsers") is False:
        return
    if bad := pod.bad(lambda s: s.get("procMount") not in (None, "", "Default")):
        kinds = {
            _security(c)["procMount"]
            for c in pod.containers
            if _security(c).get("procMount") not in (None, "", "Default")
        }
        text = f"{_many('container', bad)} must not set securityContext.procMount to {_quoted(sorted(kinds))}"
        yield Violation("procMount", text)


def _seccomp_type(context: Object) -> str | None:
    return (context.get("seccompProfile") or {}).get("type")


def _seccomp_baseline(pod: Pod) -> Iterator[Violation]:
    bad = []
    if _seccomp_type(pod.security) == "Unconfined":
        bad.append('pod must not set securityContext.seccompProfile.type to "Unconfined"')
    if names := pod.bad(lambda s: _seccomp_type(s) == "Unconfined"):
        bad.append(
            f'{_many("container", names)} must not set securityContext.seccompProfile.type to "Unconfined"'
        )
    if bad:
        yield Violation("seccompProfile", "; ".join(bad))


def _sysctls(pod: Pod) -> Iterator[Violation]:
    bad = [s.get("name", "") for s in pod.security.get("sysctls") or () if s.get("name") not in _SYSCTLS]
    if bad:
        yield Violation("forbidden sysctls", ", ".join(bad))


def _host_process(pod: Pod) -> Iterator[Violation]:
    def test(context: Object) -> bool:
        return bool((context.get("windowsOptions") or {}).get("hostProcess"))

    bad = ["pod"] if test(pod.security) else []
    if names := pod.bad(test):
        bad.append(_many("container", names))
    if bad:
        text = f"{' and '.join(bad)} must not set securityContext.windowsOptions.hostProcess=true"
        yield Violation("hostProcess", text)


def _host_probes(pod: Pod) -> Iterator[Violation]:
    """Probes and hooks must not be sent to another host (from 1.34)."""
    bad = []
    for container in pod.containers:
        handlers = [container.get(p) or {} for p in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [h or {} for h in (container.get("lifecycle") or {}).values() if isinstance(h, dict)]
        if any((h.get(k) or {}).get("host") for h in handlers for k in ("httpGet", "tcpSocket")):
            bad.append(container.get("name", ""))
    if bad:
        yield Violation("probe or lifecycle host", f"{_many('container', bad)} uses probe or lifecycle host")


# Restricted


def _volume_types(pod: Pod) -> Iterator[Violation]:
    bad, kinds = [], set()
    for volume in pod.spec.get("volumes") or ():
        forbidden = {k for k, v in volume.items() if k != "name" and v is not None} - _VOLUMES
        if forbidden:
            bad.append(volume.get("name", ""))
            kinds |= forbidden
    if bad:
        word = "use restricted volume type" if len(bad) > 1 else "uses restricted volume type"
        more = "s" if len(kinds) > 1 else ""
        yield Violation(
            "restricted volume types", f"{_many('volume', bad)} {word}{more} {_quoted(sorted(kinds))}"
        )


def _escalation(pod: Pod) -> Iterator[Violation]:
    if pod.windows:
        return
    if bad := pod.bad(lambda s: s.get("allowPrivilegeEscalation") is not False):
        text = f"{_many('container', bad)} must set securityContext.allowPrivilegeEscalation=false"
        yield Violation("allowPrivilegeEscalation != false", text)


def _non_root(pod: Pod) -> Iterator[Violation]:
    if pod.spec.get("hostUsers") is False:
        return
    whole = pod.security.get("runAsNonRoot")
    explicit = pod.bad(lambda s: s.get("runAsNonRoot") is False)
    bad = []
    if whole is False:
        bad.append("pod must not set securityContext.runAsNonRoot=false")
    if explicit:
        bad.append(f"{_many('container', explicit)} must not set securityContext.runAsNonRoot=false")
    if not bad and whole is not True and (names := pod.bad(lambda s: s.get("runAsNonRoot") is not True)):
        bad.append(f"pod or {_many('container', names)} must set securityContext.runAsNonRoot=true")
    if bad:
        yield Violation("runAsNonRoot != true", "; ".join(bad))


def _user_zero(pod: Pod) -> Iterator[Violation]:
    if pod.spec.get("hostUsers") is False:
        return
    bad = ["pod"] if pod.security.get("runAsUser") == 0 else []
    if names := pod.bad(lambda s: s.get("runAsUser") == 0):
        bad.append(_many("container", names))
    if bad:
        yield Violation("runAsUser=0", f"{' and '.join(bad)} must not set runAsUser=0")


def _seccomp_restricted(pod: Pod) -> Iterator[Violation]:
    if pod.windows:
        return
    good = ("RuntimeDefault", "Localhost")
    whole = _seccomp_type(pod.security)
    if whole is not None and whole not in good:
        yield Violation(
            "seccompProfile", f'pod must not set securityContext.seccompProfile.type to "{whole}"'
        )
        return
    wrong = pod.bad(lambda s: _seccomp_type(s) not in (None, *good))
    if wrong:
        text = f'{_many("container", wrong)} must not set securityContext.seccompProfile.type to "Unconfined"'
        yield Violation("seccompProfile", text)
        return
    if whole is None and (names := pod.bad(lambda s: _seccomp_type(s) is None)):
        which = f"pod or {_many('container', names)} must set securityContext.seccompProfile.type"
        yield Violation("seccompProfile", f'{which} to "RuntimeDefault" or "Localhost"')


def _drop_all(pod: Pod) -> Iterator[Violation]:
    if pod.windows:
        return
    keep, extra_names, extra = [], [], set()
    for container in pod.containers:
        capabilities = _security(container).get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            keep.append(container.get("name", ""))
        added = set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}
        if added:
            extra_names.append(container.get("name", ""))
            extra |= added
    bad = []
    if keep:
        bad.append(f'{_many("container", keep)} must set securityContext.capabilities.drop=["ALL"]')
    if extra_names:
        text = f"must not include {_quoted(sorted(extra))} in securityContext.capabilities.add"
        bad.append(f"{_many('container', extra_names)} {text}")
    if bad:
        yield Violation("unrestricted capabilities", "; ".join(bad))


BASELINE: tuple[Check, ...] = (
    _apparmor,
    _capabilities,
    _host_namespaces,
    _host_path,
    _host_ports,
    _host_probes,
    _privileged,
    _proc_mount,
    _seccomp_baseline,
    _selinux,
    _sysctls,
    _host_process,
)
# A stricter check replaces its laxer sister.
RESTRICTED: tuple[Check, ...] = (
    *(c for c in BASELINE if c not in (_capabilities, _seccomp_baseline)),
    _volume_types,
    _escalation,
    _drop_all,
    _non_root,
    _user_zero,
    _seccomp_restricted,
)
LEVELS: dict[str, tuple[Check, ...]] = {"privileged": (), "baseline": BASELINE, "restricted": RESTRICTED}


def violations(level: str, metadata: Object, spec: Object) -> list[Violation]:
    """What a pod of this metadata and spec breaks at `level` (privileged, baseline, restricted)."""
    pod = Pod(metadata, spec)
    return [v for check in LEVELS[level] for v in check(pod)]
