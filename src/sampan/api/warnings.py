"""What the server says besides its answer: nothing that is wrong, but that will surprise. Clients print it.

Source: Kubernetes documentation, "Warning mechanism" (KEP-1693); API reference of the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sampan.api import meta, quantity
from sampan.api.names import dns1123_label
from sampan.api.registry import Resource
from sampan.api.validate.meta import qualified
from sampan.base.objects import Object

# Where each kind has its pod template.
_TEMPLATES = {
    "podtemplates": ("template",),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "replicasets.apps": ("spec", "template"),
    "replicationcontrollers": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
}
_SURPRISE = "which can result in surprising behavior; a DNS label is recommended"
_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


def warnings_of(row: Resource, obj: Object, old: Object | None) -> list[str]:
    """The warnings of a write that is allowed; `old` is None for a create."""
    if row.custom:
        return list(_finalizers(obj, old))
    if row.store_key == "pods":
        if old is not None:  # few people change pods by hand
            return []
        return [*_name(obj, "the Pod's hostname"), *_pod("spec", obj.get("spec") or {})]
    place = _TEMPLATES.get(row.store_key)
    if place is None or (old is not None and _generation(old) == _generation(obj)):
        return []
    template: Any = obj
    for step in place:
        template = template.get(step) or {}
    named = _name(obj, "Pod names and hostnames") if old is None else ()
    return [*named, *_pod(".".join((*place, "spec")), template.get("spec") or {})]


def _generation(obj: Object) -> int:
    return int(obj["metadata"].get("generation", 0))


def _finalizers(obj: Object, old: Object | None) -> Iterator[str]:
    known = meta.finalizers(old or {})
    for name in meta.finalizers(obj):
        if name not in known and not qualified(name):
            yield (
                f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name including a path (/) '
                "to avoid accidental conflicts with other finalizer writers"
            )


def _name(obj: Object, use: str) -> Iterator[str]:
    if problems := dns1123_label(meta.name(obj)):
        yield f"metadata.name: this is used in {use}, {_SURPRISE}: [{' '.join(problems)}]"


def _pod(at: str, spec: Object) -> Iterator[str]:
    yield from _placement(at, spec)
    for i, volume in enumerate(spec.get("volumes") or ()):
        for source in volume.keys() & _VOLUMES.keys():
            yield f"{at}.volumes[{i}].{source}: {_VOLUMES[source]}"
    yield from _twice(f"{at}.hostAliases", spec.get("hostAliases") or (), "ip")
    secrets = spec.get("imagePullSecrets") or ()
    yield from _twice(f"{at}.imagePullSecrets", secrets, "name")
    for i, secret in enumerate(secrets):
        if not secret.get("name"):
            yield f'{at}.imagePullSecrets[{i}].name: invalid empty name ""'
    ports: dict[tuple[int, str], list[tuple[str, Object]]] = {}
    for field in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(field) or ()):
            yield from _container(f"{at}.{field}[{i}]", container)
            yield from _ports(f"{at}.{field}[{i}]", container, ports)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        yield f"{at}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"


def _placement(at: str, spec: Object) -> Iterator[str]:
    """Labels of nodes that have another name today, and selectors of nothing."""
    for label in spec.get("nodeSelector") or ():
        if label in _LABELS:
            yield f"{at}.nodeSelector[{label}]: {_LABELS[label]}"
    for i, spread in enumerate(spec.get("topologySpreadConstraints") or ()):
        here, label = f"{at}.topologySpreadConstraints[{i}]", spread.get("topologyKey", "")
        if label in _LABELS:
            yield f"{here}.topologyKey: {label} is {_LABELS[label]}"
        if spread.get("labelSelector") is None:
            yield f"{here}.labelSelector: a null labelSelector results in matching no pod"


def _twice(at: str, items: Any, key: str) -> Iterator[str]:
    seen: set[str] = set()
    for i, item in enumerate(items):
        value = item.get(key, "")
        if value in seen:
            yield f'{at}[{i}].{key}: duplicate {key} "{value}"'
        seen.add(value)


def _container(at: str, container: Object) -> Iterator[str]:
    resources = container.get("resources") or {}
    for part in ("limits", "requests"):
        given = resources.get(part) or {}
        for name in ("memory", "ephemeral-storage"):
            if name in given and quantity.milli(given[name]) % 1000:
                yield f'{at}.resources.{part}[{name}]: fractional byte value "{given[name]}" is invalid, must be an integer'
    env = container.get("env") or ()
    if len(env) > 1:
        seen: set[str] = set()
        for i, variable in enumerate(env):
            name, value = variable["name"], variable.get("value", "")
            reference = f"$({name})"
            if name in seen and (variable.get("valueFrom") or value == reference or reference not in value):
                yield f'{at}.env[{i}]: hides previous definition of "{name}", which may be dropped when using apply'
            seen.add(name)


def _ports(
    at: str, container: Object, known: dict[tuple[int, str], list[tuple[str, Object]]]
) -> Iterator[str]:
    """Ports that a pod names more than once; `known` gathers those of its containers."""
    for i, port in enumerate(container.get("ports") or ()):
        here = f"{at}.ports[{i}]"
        others = known.setdefault((port["containerPort"], port.get("protocol", "TCP")), [])
        ip, number = port.get("hostIP", ""), port.get("hostPort", 0)
        for where, other in others:
            other_ip, other_number = other.get("hostIP", ""), other.get("hostPort", 0)
            if (ip, number) == (other_ip, other_number):
                yield f"{here}: duplicate port definition with {where}"
            elif not number or not other_number:
                yield f"{here}: overlapping port definition with {where}"
            elif number == other_number and bool(ip) != bool(other_ip):
                yield f"{here}: dangerously ambiguous port definition with {where}"
        others.append((here, port))
