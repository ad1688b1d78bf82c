"""Resources that are changed in place: what a pod wants, what its node has granted, and what is still to be applied.

A driver works on the pod as granted: the API's, with its containers' resources of before while a change is not granted.
Source: KEP-1287.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from sampan.api import pod_resources
from sampan.base.objects import Object
from sampan.node import qos
from sampan.node.pods import admission
from sampan.node.pods.podspec import inits, mains
from sampan.node.runtime import ContainerStatus, Limits, SandboxStatus

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
CONDITIONS = (PENDING, IN_PROGRESS)
_WHOLE = ""
_CLASSES = ("Guaranteed", "Burstable", "BestEffort")


def resources(pod: Object) -> dict[str, Object]:
    """Container name -> its resources; "" -> those of the pod as a whole."""
    found = {c["name"]: c.get("resources") or {} for c in (*inits(pod), *mains(pod))}
    return found | {_WHOLE: pod["spec"].get("resources") or {}}


def with_resources(pod: Object, granted: Mapping[str, Object]) -> Object:
    """The pod with other resources of its containers, and of the whole."""
    spec = dict(pod["spec"])
    if granted.get(_WHOLE):
        spec["resources"] = granted[_WHOLE]
    for part in ("containers", "initContainers"):
        if spec.get(part):
            spec[part] = [{**c, "resources": granted.get(c["name"], c.get("resources"))} for c in spec[part]]
    return {**pod, "spec": spec}


def as_reported(pod: Object) -> Object:
    """The pod with the resources its containers were last said to run with (an agent takes it over)."""
    status = pod.get("status", {})
    known = {
        entry["name"]: entry["resources"]
        for part in ("initContainerStatuses", "containerStatuses")
        for entry in status.get(part) or ()
        if entry.get("resources")
    } | ({_WHOLE: status["resources"]} if status.get("resources") else {})
    return with_resources(pod, known) if known else pod


def begun_anew(before: Object, after: Object) -> list[str]:
    """Containers whose image or resources are other ones: crashes of before do not delay their next start."""

    def made_of(pod: Object) -> dict[str, tuple[Any, Object]]:
        return {c["name"]: (c.get("image"), c.get("resources") or {}) for c in (*inits(pod), *mains(pod))}

    old = made_of(before)
    return [name for name, made in made_of(after).items() if name in old and old[name] != made]


def judge(pod: Object, node: Object, others: Sequence[admission.Holder]) -> tuple[str, str] | None:
    """(reason, message) of PodResizePending: never possible here, or not now. None: granted."""
    has = node.get("status", {}).get("allocatable")
    if has is None:
        return None
    for name, asked in pod_resources.requests(pod["spec"]).items():
        capacity = pod_resources.count(name, has.get(name, "0"))
        if name in ("cpu", "memory") and asked > capacity:
            text = f"Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"
            return "Infeasible", text
    short = admission.resources(pod, node, others)
    return ("Deferred", short[1]) if short else None


def turn(pod: Object) -> tuple[int, int, str]:
    """Whose resize comes first when room is free: by priority, class of service, then how long it has waited."""
    conditions = pod.get("status", {}).get("conditions") or ()
    since = next((c.get("lastTransitionTime", "") for c in conditions if c["type"] == PENDING), "")
    return -(pod["spec"].get("priority") or 0), _CLASSES.index(qos.qos_class(pod)), since


def message(what: str, pod: Object, error: str = "") -> str:
    """The text of an event about a resize: the resources of all containers and what went wrong, as compact JSON."""
    summary: Object = {}
    for part, containers in (("initContainers", inits(pod)), ("containers", mains(pod))):
        if containers:
            summary[part] = [{"name": c["name"], "resources": _sorted(c)} for c in containers]
    summary["generation"] = pod["metadata"].get("generation", 0)
    if error:
        summary["error"] = error
    return f"Pod resize {what}: {orjson.dumps(summary).decode()}"


def _sorted(container: Object) -> Object:
    has = container.get("resources") or {}
    return {part: dict(sorted(has[part].items())) for part in ("limits", "requests") if has.get(part)}


def changed(pod: Object, container: Object, status: ContainerStatus) -> list[str]:
    """Which of cpu and memory a running container has not yet as its spec says."""
    wanted, has = qos.container_limits(pod, container), status.config.limits
    found = []
    if (wanted.cpu_shares, wanted.cpu_quota) != (has.cpu_shares, has.cpu_quota):
        found.append("cpu")
    if (wanted.memory, wanted.memory_request) != (has.memory, has.memory_request):
        found.append("memory")
    return found


def whole_changed(pod: Object, sandbox: SandboxStatus | None) -> bool:
    """Whether a pod that has resources as a whole (KEP-5419) does not have them as its spec says yet."""
    if sandbox is None or not pod["spec"].get("resources"):
        return False
    wanted, has = qos.pod_limits(pod), sandbox.config.limits
    return (wanted.cpu_shares, wanted.cpu_quota, wanted.memory) != (has.cpu_shares, has.cpu_quota, has.memory)


def wider(a: Limits, b: Limits) -> Limits:
    """What allows as much as both: a pod's group while its containers go from one to the other."""
    return Limits(
        cpu_shares=max(a.cpu_shares or 0, b.cpu_shares or 0) or None,
        cpu_quota=max(a.cpu_quota, b.cpu_quota) if a.cpu_quota and b.cpu_quota else None,
        memory=max(a.memory, b.memory) if a.memory and b.memory else None,
        pids=b.pids,
    )


def needs_restart(container: Object, parts: Sequence[str]) -> bool:
    """Whether its resizePolicy wants a restart for one of these."""
    policies = {p["resourceName"]: p.get("restartPolicy") for p in container.get("resizePolicy") or ()}
    return any(policies.get(part) == "RestartContainer" for part in parts)
