"""Labels of a namespace say how careful its pods must be; a controller's template gets a warning already.

Source: Kubernetes documentation, "Pod Security Admission".
"""

from __future__ import annotations

import re
from typing import Any

from sampan.api.status import invalid, invalid_value
from sampan.base.objects import Object
from sampan.server.admission import pod_standards
from sampan.server.admission.attrs import CREATE, UPDATE, Attrs, Context, Plugin, only

_LABEL = "pod-security.kubernetes.io/"
_VERSION = re.compile(r"^v1\.(0|[1-9][0-9]*)$")
# Where the pod template of each kind is.
_TEMPLATES = {
    "podtemplates": ("template",),
    "replicationcontrollers": ("spec", "template"),
    "replicasets.apps": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}


def validate(attrs: Attrs, ctx: Context) -> None:
    """Raises 403 for a pod beyond what the namespace enforces; adds warnings, and notes for the audit log, where it says so.

    Without labels on the namespace nothing is asked. A template only gets warnings: its pods are refused when they are made.
    """
    if attrs.row.name == "namespaces":
        _check_namespace(attrs, ctx)
        return
    namespace = ctx.lookup.get("namespaces", attrs.namespace) or {}
    labels = (namespace.get("metadata") or {}).get("labels") or {}
    if not any(k.startswith(_LABEL) for k in labels):
        return
    if attrs.row.name != "pods":
        _warn_about_template(attrs, labels)
    elif attrs.op == CREATE or _changed(attrs):
        _check_pod(attrs, labels)


def _changed(attrs: Attrs) -> bool:
    """An update that leaves alone what the standards look at is not judged again."""
    new, old = (dict((o or {}).get("spec") or {}) for o in (attrs.obj, attrs.old))
    for spec in (new, old):
        for field in (
            "tolerations",
            "activeDeadlineSeconds",
            "terminationGracePeriodSeconds",
            "schedulingGates",
        ):
            spec.pop(field, None)
        for containers in ("containers", "initContainers", "ephemeralContainers"):
            if containers in spec:
                spec[containers] = [{k: v for k, v in c.items() if k != "image"} for c in spec[containers]]
    return new != old


def _policy(labels: dict[str, str], mode: str) -> tuple[str, str]:
    """(level, version) of a mode; an unknown level counts as the strictest, as the original has it."""
    level = labels.get(_LABEL + mode, "privileged")
    version = labels.get(f"{_LABEL}{mode}-version", "latest")
    return (level if level in pod_standards.LEVELS else "restricted"), version


def _found(labels: dict[str, str], mode: str, metadata: Object, spec: Object) -> str:
    """`"restricted:latest": reason (detail), ...`, or "" when all is well."""
    level, version = _policy(labels, mode)
    broken = pod_standards.violations(level, metadata, spec)
    return f'"{level}:{version}": ' + ", ".join(f"{v.reason} ({v.detail})" for v in broken) if broken else ""


def _check_pod(attrs: Attrs, labels: dict[str, str]) -> None:
    pod = attrs.obj or {}
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    if text := _found(labels, "audit", metadata, spec):
        attrs.annotations["pod-security.kubernetes.io/audit-violations"] = f"would violate PodSecurity {text}"
    if text := _found(labels, "enforce", metadata, spec):
        raise attrs.forbidden(f"violates PodSecurity {text}")
    if text := _found(labels, "warn", metadata, spec):
        attrs.warnings.append(f"would violate PodSecurity {text}")


def _warn_about_template(attrs: Attrs, labels: dict[str, str]) -> None:
    template: Any = attrs.obj or {}
    for step in _TEMPLATES[attrs.row.name]:
        template = template.get(step) or {}
    if not template:
        return
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    if text := _found(labels, "audit", metadata, spec):
        attrs.annotations["pod-security.kubernetes.io/audit-violations"] = f"would violate PodSecurity {text}"
    if text := _found(labels, "warn", metadata, spec):
        attrs.warnings.append(f"would violate PodSecurity {text}")


def _check_namespace(attrs: Attrs, ctx: Context) -> None:
    """Bad labels are refused; pods that a stricter label would not let in again are named in a warning."""
    new, old = (((o or {}).get("metadata") or {}).get("labels") or {} for o in (attrs.obj, attrs.old))
    for mode in ("enforce", "audit", "warn"):
        _check_label(attrs, new, old, mode)
    level, version = _policy(new, "enforce")
    if attrs.op != UPDATE or level == "privileged" or (level, version) == _policy(old, "enforce"):
        return
    broken: dict[str, list[str]] = {}
    for pod in ctx.lookup.list("pods", f"{attrs.name}/"):
        found = pod_standards.violations(level, pod["metadata"], pod.get("spec") or {})
        if found:
            broken.setdefault(", ".join(v.reason for v in found), []).append(pod["metadata"]["name"])
    if broken:
        head = f'existing pods in namespace "{attrs.name}" violate the new PodSecurity enforce level "{level}:{version}"'
        attrs.warnings.append(head)
        for reasons, names in sorted(broken.items(), key=lambda entry: entry[1]):
            more = (
                f" (and {len(names) - 1} other pod{'s' if len(names) > 2 else ''})" if len(names) > 1 else ""
            )
            attrs.warnings.append(f"{names[0]}{more}: {reasons}")


def _check_label(attrs: Attrs, new: dict[str, str], old: dict[str, str], mode: str) -> None:
    level, version = new.get(_LABEL + mode), new.get(f"{_LABEL}{mode}-version")
    problems = []
    if level is not None and level not in pod_standards.LEVELS:
        problems.append((_LABEL + mode, level, "must be one of privileged, baseline, restricted"))
    if version is not None and version != "latest" and not _VERSION.match(version):
        problems.append((f"{_LABEL}{mode}-version", version, 'must be "latest" or "v1.x"'))
    errors = [invalid_value(f"metadata.labels[{k}]", v, why) for k, v, why in problems if old.get(k) != v]
    if errors:
        raise invalid("", "Namespace", attrs.shown_name(), errors)


PLUGIN = Plugin(
    "PodSecurity",
    only("namespaces", "pods", *_TEMPLATES),
    only(CREATE, UPDATE),
    validate=validate,
    subresources=only("", "ephemeralcontainers"),
    reads=("namespaces",),
)
