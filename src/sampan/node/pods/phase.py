"""What a pod's status says: phase, conditions and container statuses, computed from facts.

Reasons and messages are those kubelet reports, since clients and people match on them
(pod lifecycle; KEP-3085 for PodReadyToStartContainers, KEP-5067 for observedGeneration).
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api import duration
from sampan.base.clock import rfc3339, rfc3339_parse
from sampan.base.objects import Object
from sampan.node.pods import resize, restart_all
from sampan.node.pods.podspec import (
    deleting,
    ephemerals,
    inits,
    is_sidecar,
    mains,
    pod_text,
    should_restart,
    sidecars,
)
from sampan.node.pods.world import RESTART_RESET, Facts, Problem, World
from sampan.node.runtime import ContainerConfig, ContainerStatus

DEADLINE = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
_SETTLES = 1.0
_KILLED = 137


def start_time(pod: Object, world: World) -> float:
    """When this node first saw the pod (status.startTime)."""
    text = pod.get("status", {}).get("startTime")
    return rfc3339_parse(text) if text else world.first_seen


def verdict(pod: Object, world: World, now: float) -> tuple[str, str] | None:
    """(reason, message) why the pod must end although nobody deleted it."""
    if world.verdict:
        return world.verdict
    seconds = pod["spec"].get("activeDeadlineSeconds")
    if seconds is not None and now >= start_time(pod, world) + seconds:
        return DEADLINE
    return None


def back_off_until(facts: Facts, exited: ContainerStatus) -> float:
    """When an exited container may start again."""
    if not facts.restart_delay or exited.finished_at - exited.started_at > RESTART_RESET:
        return 0.0
    return exited.finished_at + facts.restart_delay


def _runs(status: ContainerStatus, facts: Facts) -> bool:
    """Also one that was stopped only to be replaced: what became of it is told when the next attempt has started, or
    could not. So kubelet does it, and who changes an image does not see the pod fail in between."""
    return status.state != "exited" or (facts.replaced == status.config.id and facts.problem is None)


def is_started(container: Object, world: World) -> bool:
    """`started` of a container status: running, postStart done, startup probe passed if there is one."""
    latest, facts = world.latest(container["name"]), world.of(container["name"])
    if latest is None or not _runs(latest, facts):
        return False
    if container.get("startupProbe"):
        return facts.hooked and facts.probes.get("startup") is True
    return facts.hooked


def is_ready(container: Object, world: World) -> bool:
    """`ready` of a container status."""
    if not is_started(container, world):
        return False
    if container.get("readinessProbe"):
        return world.of(container["name"]).probes.get("readiness") is True
    return True


def pod_status(pod: Object, world: World, now: float) -> tuple[Object, bool]:
    """The status fields a node owns, and whether the pod is over by itself (all containers done, none restarts)."""
    why = verdict(pod, world, now)
    if world.rejected and why:
        return _rejected(pod, why, now), False
    over = _over(pod, world)
    finished = (over or why is not None or deleting(pod)) and not world.running()
    phase = _phase(pod, world, over, why is not None, finished)
    status: Object = {"phase": phase}
    generation = pod["metadata"].get("generation")
    if generation:
        status["observedGeneration"] = generation
    if why:
        status["reason"], status["message"] = why
    status["containerStatuses"] = [_container(pod, c, world, now, False, finished) for c in mains(pod)]
    if inits(pod):
        status["initContainerStatuses"] = [_container(pod, c, world, now, True, finished) for c in inits(pod)]
    if ephemerals(pod):
        status["ephemeralContainerStatuses"] = [
            {**_container(pod, c, world, now, False, finished), "ready": False} for c in ephemerals(pod)
        ]
    status["conditions"] = _conditions(pod, world, phase, status, now)
    if world.host_ip:
        status["hostIP"] = world.host_ip
        status["hostIPs"] = [{"ip": ip} for ip in world.host_ips or [world.host_ip]]
    if world.ips:
        status["podIP"] = world.ips[0]
        status["podIPs"] = [{"ip": ip} for ip in world.ips]
    status["startTime"] = rfc3339(start_time(pod, world))
    if pod["spec"].get("resources"):
        status |= _whole(pod, world)
    if "qosClass" in pod.get("status", {}):
        status["qosClass"] = pod["status"]["qosClass"]
    return status, over


def _whole(pod: Object, world: World) -> Object:
    """What the pod has as a whole, and what it was granted."""
    granted, had = pod["spec"]["resources"], pod.get("status", {}).get("resources")
    now = had if had and resize.whole_changed(pod, world.sandbox) else granted
    return {"resources": now, "allocatedResources": granted.get("requests") or {}}


def _rejected(pod: Object, why: tuple[str, str], now: float) -> Object:
    """Of a pod the node did not take there is nothing else to say."""
    status: Object = {"phase": "Failed", "reason": why[0], "message": why[1], "conditions": []}
    status["startTime"] = pod.get("status", {}).get("startTime") or rfc3339(now)
    if pod["metadata"].get("generation"):
        status["observedGeneration"] = pod["metadata"]["generation"]
    return status


def _restarts(pod: Object, container: Object, world: World, exited: ContainerStatus, init: bool) -> bool:
    return world.starts_anew(exited) or should_restart(pod, container, exited, is_init=init)


def _over(pod: Object, world: World) -> bool:
    if world.restarting:
        return False
    for container in inits(pod):
        if not is_sidecar(container):
            latest = world.latest(container["name"])
            failed = latest is not None and latest.state == "exited" and latest.exit_code != 0
            if latest and failed and not _restarts(pod, container, world, latest, init=True):
                return not any(world.latest(c["name"]) for c in mains(pod))
    for container in mains(pod):
        latest = world.latest(container["name"])
        if latest is None or latest.state != "exited" or _restarts(pod, container, world, latest, init=False):
            return False
    return True


def _phase(pod: Object, world: World, over: bool, doomed: bool, finished: bool) -> str:
    statuses = [world.latest(c["name"]) for c in mains(pod)]
    exited = [s for s in statuses if s and s.state == "exited"]
    if finished:
        if doomed:
            return "Failed"
        if over or len(exited) == len(statuses):
            clean = len(exited) == len(statuses) and all(s.exit_code == 0 for s in exited)
            return "Succeeded" if clean else "Failed"
        if exited or any(world.latest(c["name"]) for c in inits(pod)):
            return "Failed"
    return "Pending" if any(s is None for s in statuses) else "Running"


# Conditions


def _conditions(pod: Object, world: World, phase: str, status: Object, now: float) -> list[Object]:
    sandbox = world.sandbox is not None and world.sandbox.ready and not world.cleaned
    generation = pod["metadata"].get("generation")
    containers_ready = _containers_ready(pod, phase, status)
    wanted = [
        ("PodReadyToStartContainers", sandbox, "", ""),
        ("Initialized", *((True, "", "") if world.before else _initialized(pod, phase, status))),
        ("Ready", *_ready(pod, containers_ready)),
        ("ContainersReady", *containers_ready),
        ("PodScheduled", True, "", ""),
    ]
    wanted += _resizing(pod, world)
    if restart_all.possible(pod):
        wanted.append((restart_all.CONDITION, *_restarting(world, phase)))
    if world.disruption and world.verdict:
        wanted.append(("DisruptionTarget", True, "TerminationByKubelet", world.verdict[1]))
    old = {c["type"]: c for c in pod.get("status", {}).get("conditions") or ()}
    result = []
    for kind, value, reason, message in wanted:
        text = "True" if value else "False"
        before = old.get(kind) or {}
        since = before.get("lastTransitionTime") if before.get("status") == text else None
        condition: Object = {
            "type": kind,
            "status": text,
            "lastTransitionTime": since or rfc3339(now),
        }
        if generation:
            condition["observedGeneration"] = generation
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        result.append(condition)
    return result


def _resizing(pod: Object, world: World) -> list[tuple[str, bool, str, str]]:
    """KEP-1287: a change of resources that is not granted, and one that is not applied yet."""
    found = []
    if world.resize_pending:
        found.append((resize.PENDING, True, *world.resize_pending))
    if resizes_containers(pod, world) or resize.whole_changed(pod, world.sandbox):
        found.append((resize.IN_PROGRESS, True, "Error" if world.resize_error else "", world.resize_error))
    return found


def resized(pod: Object, world: World) -> bool:
    """Whether all whose turn it is run with the resources of the pod, those that had to restart for it included."""
    running = list(_resizable(pod, world))
    names = {c["name"] for c, _ in running}
    initializing = any(c["name"] in names for c in inits(pod) if not is_sidecar(c))
    whole = initializing or all(c["name"] in names for c in (*mains(pod), *sidecars(pod)))
    done = not any(resize.changed(pod, c, s) for c, s in running)
    return whole and done and not resize.whole_changed(pod, world.sandbox)


def resizes_containers(pod: Object, world: World) -> bool:
    """Whether some container does not have its resources yet."""
    return any(resize.changed(pod, c, s) for c, s in _resizable(pod, world))


def _resizable(pod: Object, world: World) -> Iterator[tuple[Object, ContainerStatus]]:
    for container in (*mains(pod), *inits(pod)):
        latest = world.latest(container["name"])
        if latest is not None and latest.state != "exited":
            yield container, latest


def _completed(phase: str) -> tuple[bool, str, str] | None:
    if phase == "Succeeded":
        return False, "PodCompleted", ""
    if phase == "Failed":
        return False, "PodFailed", ""
    return None


def _restarting(world: World, phase: str) -> tuple[bool, str, str]:
    """KEP-5532: while all containers are being killed."""
    done = _completed(phase)
    if done:
        return done
    if world.restarting:
        return True, "RestartAllContainersStarted", "container exited with restart policy rule"
    return False, "", ""


def _initialized(pod: Object, phase: str, status: Object) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return True, "PodCompleted", ""
    incomplete = []
    for container, state in zip(inits(pod), status.get("initContainerStatuses", ()), strict=False):
        done = state["started"] if is_sidecar(container) else state["ready"]
        if not done:
            incomplete.append(container["name"])
    begun = any("running" in s["state"] or "terminated" in s["state"] for s in status["containerStatuses"])
    if not incomplete or begun:
        return True, "", ""
    return False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]"


def _containers_ready(pod: Object, phase: str, status: Object) -> tuple[bool, str, str]:
    done = _completed(phase)
    if done:
        return done
    waiting = [
        s["name"]
        for c, s in zip(inits(pod), status.get("initContainerStatuses", ()), strict=False)
        if is_sidecar(c) and not s["ready"]
    ]
    waiting += [s["name"] for s in status["containerStatuses"] if not s["ready"]]
    if waiting:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(waiting)}]"
    return True, "", ""


def _ready(pod: Object, containers_ready: tuple[bool, str, str]) -> tuple[bool, str, str]:
    if not containers_ready[0]:
        return containers_ready
    present = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions") or ()}
    problems = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in present:
            problems.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif present[kind] != "True":
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {present[kind]}')
    if problems:
        text = problems[0] if len(problems) == 1 else "[" + ", ".join(problems) + "]"
        return False, "ReadinessGatesNotReady", text
    return True, "", ""


# Container statuses


def _container(
    pod: Object, container: Object, world: World, now: float, init: bool, finished: bool
) -> Object:
    name = container["name"]
    facts = world.of(name)
    attempts = world.attempts(name)
    latest = attempts[-1] if attempts else None
    before = attempts[-2] if len(attempts) > 1 else None
    last = _terminated(before, facts, world) if before else None
    restarts = latest.config.attempt if latest else 0
    status: Object = {"name": name}
    if latest is None:
        status["state"] = {"waiting": _waiting(pod, container, world, now)}
    elif _runs(latest, facts):
        status["state"] = {"running": {"startedAt": rfc3339(latest.started_at)}}
    else:
        dead = _terminated(latest, facts, world)
        waiting = None if finished else _waits_to_restart(pod, container, world, latest, now, init)
        if waiting:
            status["state"], last = {"waiting": waiting}, dead
        else:
            status["state"] = {"terminated": dead}
    status["lastState"] = {"terminated": last} if last else {}
    if init and not is_sidecar(container):
        status["ready"] = bool(latest and latest.state == "exited" and latest.exit_code == 0)
    else:
        status["ready"] = is_ready(container, world)
    status["restartCount"] = restarts
    image = latest.config.image if latest else None
    status["image"] = (image.ref if image else "") or container.get("image", "")
    status["imageID"] = (image.digest or image.id) if image else ""
    if latest:
        status["containerID"] = f"{world.runtime}://{latest.config.id}"
        status |= _made_with(container, latest.config)
    status["started"] = is_started(container, world)
    resources = container.get("resources") or {}
    if latest:
        status["resources"] = resources
        if resources.get("requests"):
            status["allocatedResources"] = resources["requests"]
        had = _reported(pod, name).get("resources") if latest.state != "exited" else None
        if had and had != resources and resize.changed(pod, container, latest):
            status["resources"] = had
    return status


def _made_with(container: Object, config: ContainerConfig) -> Object:
    """The user a container has (KEP-3619), its mounts with what read-only means (KEP-3857), its stop signal."""
    found: Object = {}
    if config.sandbox:  # else it is only remembered from the API
        groups = sorted({config.gid, *config.groups})
        found["user"] = {"linux": {"uid": config.uid, "gid": config.gid, "supplementalGroups": groups}}
    if container.get("volumeMounts"):
        found["volumeMounts"] = [_mount(mount) for mount in container["volumeMounts"]]
    if (container.get("lifecycle") or {}).get("stopSignal"):
        found["stopSignal"] = config.stop_signal
    return found


def _mount(mount: Object) -> Object:
    result = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        whole = mount.get("recursiveReadOnly") in ("Enabled", "IfPossible")
        result |= {"readOnly": True, "recursiveReadOnly": "Enabled" if whole else "Disabled"}
    return result


def _reported(pod: Object, name: str) -> Object:
    """What was last said of a container."""
    status = pod.get("status", {})
    parts = (status.get("containerStatuses") or (), status.get("initContainerStatuses") or ())
    return next((entry for part in parts for entry in part if entry["name"] == name), {})


def _terminated(status: ContainerStatus, facts: Facts, world: World) -> Object:
    result: Object = {"exitCode": status.exit_code}
    reason = status.reason or ("Completed" if status.exit_code == 0 else "Error")
    message = facts.messages.get(status.config.id) or status.message
    if status.config.id in world.before:
        result["exitCode"], reason, message = _KILLED, restart_all.REASON, restart_all.MESSAGE
    result["reason"] = reason
    if message:
        result["message"] = message
    result["startedAt"] = rfc3339(status.started_at or status.created_at)
    result["finishedAt"] = rfc3339(status.finished_at)
    result["containerID"] = f"{world.runtime}://{status.config.id}"
    return result


def _waiting(pod: Object, container: Object, world: World, now: float) -> Object:
    """Why a container that never ran does not."""
    problem = world.of(container["name"]).problem
    if problem:
        return _problem(container, problem, now)
    return {"reason": "PodInitializing" if inits(pod) else "ContainerCreating"}


def _problem(container: Object, problem: Problem, now: float) -> Object:
    if problem.reason == "ErrImagePull" and now >= problem.at + _SETTLES:
        image = problem.image or container.get("image", "")
        text = f'Back-off pulling image "{image}": ErrImagePull: {problem.message}'
        return {"reason": "ImagePullBackOff", "message": text}
    return {"reason": problem.reason, "message": problem.message}


def _waits_to_restart(
    pod: Object, container: Object, world: World, latest: ContainerStatus, now: float, init: bool
) -> Object | None:
    """The waiting state that covers an exited container which will start again."""
    if not _restarts(pod, container, world, latest, init):
        return None
    facts = world.of(container["name"])
    if facts.problem:
        return _problem(container, facts.problem, now)
    until = back_off_until(facts, latest)
    if until > now:
        delay = duration.of_seconds(facts.restart_delay)
        text = f"back-off {delay} restarting failed container={container['name']} pod={pod_text(pod)}"
        return {"reason": "CrashLoopBackOff", "message": text}
    if latest.reason == "StartError":
        return {"reason": "RunContainerError", "message": latest.message}
    if latest.config.id in world.before:
        return {"reason": restart_all.REASON, "message": restart_all.MESSAGE}
    return None
