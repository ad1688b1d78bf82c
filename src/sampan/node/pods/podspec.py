"""Small questions about a pod's spec that several parts of a node ask. Objects are plain JSON values."""

from __future__ import annotations

from collections.abc import Iterator

from sampan.base.objects import Object
from sampan.node.pods import restart_all
from sampan.node.runtime import ContainerStatus


def pod_text(pod: Object) -> str:
    """`name_namespace(uid)`, as kubelet names a pod in messages."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta['namespace']}({meta['uid']})"


def is_sidecar(container: Object) -> bool:
    """A restartable init container (KEP-753)."""
    return container.get("restartPolicy") == "Always"


def inits(pod: Object) -> list[Object]:
    return pod["spec"].get("initContainers") or []


def mains(pod: Object) -> list[Object]:
    return pod["spec"]["containers"]


def ephemerals(pod: Object) -> list[Object]:
    return pod["spec"].get("ephemeralContainers") or []


def sidecars(pod: Object) -> list[Object]:
    return [c for c in inits(pod) if is_sidecar(c)]


def all_containers(pod: Object) -> Iterator[Object]:
    """Init, main, then ephemeral containers."""
    yield from inits(pod)
    yield from mains(pod)
    yield from ephemerals(pod)


def find_container(pod: Object, name: str) -> Object | None:
    return next((c for c in all_containers(pod) if c["name"] == name), None)


def field_path(pod: Object, name: str) -> str:
    """`involvedObject.fieldPath` of a container's events."""
    for part in ("initContainers", "ephemeralContainers"):
        if any(c["name"] == name for c in pod["spec"].get(part) or ()):
            return f"spec.{part}{{{name}}}"
    return f"spec.containers{{{name}}}"


def deleting(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def grace_period(pod: Object) -> float:
    """Seconds a pod has to end: what its deletion says, else its spec."""
    grace = pod["metadata"].get("deletionGracePeriodSeconds")
    if grace is None:
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return float(grace)


def should_restart(pod: Object, container: Object, status: ContainerStatus, is_init: bool = False) -> bool:
    """Whether an exited container starts again (pod lifecycle, "Container restarts"; KEP-5307 for its own rules)."""
    if restart_all.action(container, status.exit_code) in ("Restart", restart_all.ACTION):
        return True
    policy = container.get("restartPolicy") or pod["spec"].get("restartPolicy", "Always")
    if policy == "Never":
        return False
    if policy == "OnFailure" or (is_init and not is_sidecar(container)):
        return status.exit_code != 0
    return True
