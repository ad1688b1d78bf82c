"""What only the API's status still knows of a pod when a new agent takes it over: containers that are lost, probes' verdicts."""

from __future__ import annotations

from sampan.base.clock import rfc3339_parse
from sampan.base.objects import Object
from sampan.node.pods.world import World
from sampan.node.runtime import ContainerConfig, ContainerStatus, Image


def lost_containers(world: World, pod: Object) -> None:
    """Attempts that only the API's status still knows (the machine was restarted) count as ended."""
    status = pod.get("status", {})
    for part in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(part) or ():
            container_id = str(entry.get("containerID", "")).rpartition("//")[2]
            if container_id and world.latest(entry["name"]) is None:
                world.containers[container_id] = _lost(entry, container_id)


def _lost(entry: Object, container_id: str) -> ContainerStatus:
    """The status of a container that was not found, from what was last reported of it."""
    state, last = entry.get("state") or {}, entry.get("lastState") or {}
    ended = state.get("terminated") or (last.get("terminated") if "waiting" in state else None)
    image = Image(entry.get("image", ""), entry.get("imageID", ""), "", (), {})
    config = ContainerConfig(
        container_id, "", entry["name"], entry.get("restartCount", 0), image, (), {}, "", ""
    )
    if ended:
        begun, finished = _seconds(ended.get("startedAt")), _seconds(ended.get("finishedAt"))
        code, reason, message = ended.get("exitCode", 0), ended.get("reason", ""), ended.get("message", "")
    else:
        begun = finished = _seconds((state.get("running") or {}).get("startedAt"))
        code, reason = 137, "ContainerStatusUnknown"
        message = "The container could not be located when the pod was taken over"
    return ContainerStatus(
        config, "exited", begun, begun, finished, exit_code=code, reason=reason, message=message
    )


def _seconds(text: str | None) -> float:
    return rfc3339_parse(text) if text else 0.0


def probe_results(world: World, pod: Object) -> None:
    """A container that was ready before the agent restarted stays ready until a probe says otherwise."""
    status = pod.get("status", {})
    for part in ("initContainerStatuses", "containerStatuses"):
        for entry in status.get(part) or ():
            latest = world.latest(entry["name"])
            if latest and str(entry.get("containerID", "")).endswith("//" + latest.config.id):
                probes = world.of(entry["name"]).probes
                if entry.get("started"):
                    probes["startup"] = True
                if entry.get("ready"):
                    probes["readiness"] = True
