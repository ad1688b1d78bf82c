"""Security contexts of pods and containers. Source: API reference, PodSecurityContext and SecurityContext."""

from __future__ import annotations

import re

from sampan.api.validate.base import (
    NONE,
    Errors,
    duplicate,
    forbidden_field,
    id_range,
    invalid_value,
    not_supported,
    one_of,
    required,
)
from sampan.api.validate.volumes import local_path
from sampan.base.objects import Object

_SYSCTL = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?([\\./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*"
_is_sysctl = re.compile(_SYSCTL).fullmatch
_SYSCTL_LIMIT = 253


def pod_context(errors: Errors, context: Object | None, path: str) -> None:
    """What holds for all containers of a pod. `path` is that of the pod's spec."""
    if not context:
        return
    at = f"{path}.securityContext"
    id_range(errors, f"{at}.fsGroup", context.get("fsGroup"))
    id_range(errors, f"{at}.runAsUser", context.get("runAsUser"))
    id_range(errors, f"{at}.runAsGroup", context.get("runAsGroup"))
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        id_range(errors, f"{at}.supplementalGroups[{index}]", group)
    if "sysctls" in context:
        _sysctls(errors, context["sysctls"] or [], f"{at}.sysctls")
    policy = context.get("fsGroupChangePolicy")
    if policy is not None:
        one_of(errors, f"{at}.fsGroupChangePolicy", policy, ("Always", "OnRootMismatch"))
    _profile(errors, context.get("seccompProfile"), f"{at}.seccompProfile", "seccomp")
    _windows(errors, context.get("windowsOptions"), f"{at}.windowsOptions")
    _profile(errors, context.get("appArmorProfile"), f"{at}.appArmorProfile", "AppArmor")
    policy = context.get("supplementalGroupsPolicy")
    if policy is not None:
        one_of(errors, f"{at}.supplementalGroupsPolicy", policy, ("Merge", "Strict"))
    policy = context.get("seLinuxChangePolicy")
    if policy is not None:
        one_of(errors, f"{at}.seLinuxChangePolicy", policy, ("MountOption", "Recursive"))


def host_sharing(errors: Errors, spec: Object, path: str) -> None:
    """Namespaces of the host and of the pod exclude each other."""
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid_value(f"{path}.shareProcessNamespace", True, detail))
    if spec.get("hostUsers") is False:
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                what = "when `hostUsers` is false"
                errors.append(forbidden_field(f"{path}.{field}", f"may not be set {what}"))


def _sysctls(errors: Errors, given: list[Object], path: str) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(given):
        name, at = sysctl.get("name", ""), f"{path}[{index}].name"
        if not name:
            errors.append(required(at))
        elif len(name) > _SYSCTL_LIMIT or not _is_sysctl(name):
            detail = f"must have at most {_SYSCTL_LIMIT} characters and match regex ^{_SYSCTL}$"
            errors.append(invalid_value(at, name, detail))
        elif name in seen:
            errors.append(duplicate(at, name))
        seen.add(name)


_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")


def _profile(errors: Errors, profile: Object | None, path: str, what: str) -> None:
    """A seccomp or AppArmor profile: a file is named when, and only when, it is on the host."""
    if profile is None:
        return
    kind, file = profile.get("type", ""), profile.get("localhostProfile")
    at = f"{path}.localhostProfile"
    if kind not in _PROFILES:
        if not kind:
            errors.append(required(f"{path}.type", f"type is required when {what.lower()}Profile is set"))
        else:
            errors.append(not_supported(f"{path}.type", kind, _PROFILES))
    if kind == "Localhost":
        if not file:
            detail = f"must be set when {what} type is Localhost"
            errors.append(required(at, detail))
        elif what == "seccomp":
            local_path(errors, at, file, descending=True)
        elif file.strip() != file:
            errors.append(invalid_value(at, file, "must not be padded with whitespace"))
    elif file is not None:
        detail = f"can only be set when {what} type is Localhost"
        errors.append(invalid_value(at, file, detail))


def _windows(errors: Errors, options: Object | None, path: str) -> None:
    if not options:
        return
    for field in ("gmsaCredentialSpecName", "gmsaCredentialSpec", "runAsUserName"):
        if options.get(field) == "":
            errors.append(invalid_value(f"{path}.{field}", "", f"{field} cannot be an empty string"))


def container_context(errors: Errors, context: Object | None, path: str, *, host_users: bool = True) -> None:
    """What holds for one container."""
    if not context:
        return
    id_range(errors, f"{path}.runAsUser", context.get("runAsUser"))
    id_range(errors, f"{path}.runAsGroup", context.get("runAsGroup"))
    mount = context.get("procMount")
    if mount is not None:
        one_of(errors, f"{path}.procMount", mount, ("Default", "Unmasked"))
        if mount == "Unmasked" and host_users:
            detail = "`hostUsers` must be false to use `Unmasked`"
            errors.append(invalid_value(f"{path}.procMount", mount, detail))
    _profile(errors, context.get("seccompProfile"), f"{path}.seccompProfile", "seccomp")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            errors.append(invalid_value(path, context, detail))
        for capability in (context.get("capabilities") or NONE).get("add") or ():
            if capability == "CAP_SYS_ADMIN":
                detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
                errors.append(invalid_value(path, context, detail))
    _windows(errors, context.get("windowsOptions"), f"{path}.windowsOptions")
    _profile(errors, context.get("appArmorProfile"), f"{path}.appArmorProfile", "AppArmor")
