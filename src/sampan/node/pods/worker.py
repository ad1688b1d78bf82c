"""The pod worker: what to do next for one pod, as a pure function of its spec and of what is known about it.

`step(pod, world, now)` never waits and touches nothing. It may be called at any time, any number of times: actions
that are under way are in `world.busy` and are not asked for again. Rules: Kubernetes' pod lifecycle, KEP-753
(sidecars), KEP-2238 (liveness grace).
"""

from __future__ import annotations

import dataclasses

from sampan.base.objects import Object
from sampan.node import qos
from sampan.node.pods import phase, resize, restart_all
from sampan.node.pods.actions import (
    Cleanup,
    MountVolumes,
    Note,
    RemoveContainer,
    ResizeContainer,
    ResizePod,
    RestartAll,
    RunSandbox,
    StartContainer,
    Step,
    StopContainer,
    Withdraw,
)
from sampan.node.pods.podspec import (
    all_containers,
    deleting,
    ephemerals,
    find_container,
    grace_period,
    inits,
    is_sidecar,
    mains,
    pod_text,
    should_restart,
    sidecars,
)
from sampan.node.pods.world import RESTART_RESET, World
from sampan.node.runtime import ContainerStatus

MINIMUM_GRACE = 2.0  # a container always gets this long once its turn to stop came
KEPT_ATTEMPTS = 2  # of each container: the latest, and the one before for `logs --previous`
PULL_SETTLES = 1.0  # seconds until ErrImagePull turns into ImagePullBackOff


def step(pod: Object, world: World, now: float) -> Step:
    """The actions to begin now, the status to report, and when to look again."""
    out = Step()
    if world.terminal:
        over = True
    else:
        out.status, over = phase.pod_status(pod, world, now)
    out.ending = over or deleting(pod) or phase.verdict(pod, world, now) is not None
    if out.ending:
        _end(pod, world, now, out)
    else:
        _advance(pod, world, now, out)
        _deadline(pod, world, out)
    _collect_garbage(pod, world, out)
    out.probes = _to_probe(pod, world)
    out.actions = [a for a in out.actions if a.key not in world.busy]
    return out


# Forward: volumes, sandbox, init containers, containers.


def _advance(pod: Object, world: World, now: float, out: Step) -> None:
    trouble = world.trouble
    if trouble and trouble.retry_at > now:
        out.wake_at(trouble.retry_at)
        return
    if not world.volumes:
        out.actions.append(MountVolumes())
        return
    if world.restarting or restart_all.triggered(pod, world):
        out.actions.append(RestartAll())
        return
    if world.sandbox is None or not world.sandbox.ready:
        if not world.running():  # what ran in a lost sandbox is being reported as exited
            out.actions.append(RunSandbox(world.sandbox_attempt))
        return
    if resize.whole_changed(pod, world.sandbox) and not phase.resizes_containers(pod, world):
        out.actions.append(ResizePod())
    if _initialize(pod, world, now, out):
        starting = False
        for container in mains(pod):
            starting = _keep(pod, container, world, now, out, starting) or starting
    for container in ephemerals(pod):
        if world.latest(container["name"]) is None:
            _start(container, world, now, out)


def _initialize(pod: Object, world: World, now: float, out: Step) -> bool:
    """Runs init containers one after the other; True when all have done their part."""
    if not inits(pod):
        return True
    begun = any(_current(world, c["name"]) for c in mains(pod))
    for container in inits(pod):
        status = _current(world, container["name"])
        if is_sidecar(container):
            _keep(pod, container, world, now, out, False)
            if not begun and not phase.is_started(container, world):
                return False
        elif begun or (status and status.state == "exited" and status.exit_code == 0):
            continue
        elif status is None or status.state == "exited":
            if status is None or should_restart(pod, container, status, is_init=True):
                _restart(pod, container, world, now, out)
            return False
        else:
            _adjust(pod, container, status, out)
            return False
    return True


def _current(world: World, name: str) -> ContainerStatus | None:
    """The latest attempt, if it belongs to the present sandbox and to the pod's present life."""
    latest = world.latest(name)
    if latest is None or latest.config.id in world.before:
        return None
    if world.sandbox and latest.config.sandbox == world.sandbox.config.id:
        return latest
    return None


def _keep(pod: Object, container: Object, world: World, now: float, out: Step, waiting: bool) -> bool:
    """Keeps a container running. Returns True when it was asked to start, so that others wait for their turn."""
    name = container["name"]
    latest = world.latest(name)
    if latest is None:
        return not waiting and _start(container, world, now, out)
    if latest.state != "exited":
        _check(pod, container, world, latest, out)
        return False
    if waiting or not (world.starts_anew(latest) or should_restart(pod, container, latest)):
        return False
    return _restart(pod, container, world, now, out)


def _check(pod: Object, container: Object, world: World, status: ContainerStatus, out: Step) -> None:
    """Stops a running container whose liveness or startup probe failed, or whose image was changed."""
    name = container["name"]
    results = world.of(name).probes
    why, probe, replaces = "", None, False
    if results.get("liveness") is False:
        why, probe = f"Container {name} failed liveness probe, will be restarted", "livenessProbe"
    elif results.get("startup") is False:
        why, probe = f"Container {name} failed startup probe, will be restarted", "startupProbe"
    elif status.config.labels.get("image", container.get("image", "")) != container.get("image", ""):
        why, replaces = f"Container {name} definition changed, will be restarted", True
    if not why:
        _adjust(pod, container, status, out)
    else:
        grace = (container.get(probe) or {}).get("terminationGracePeriodSeconds") if probe else None
        grace = grace if grace is not None else pod["spec"].get("terminationGracePeriodSeconds", 30)
        key = f"stop:{status.config.id}"
        out.actions.append(StopContainer(status.config.id, name, float(grace), why, key, replaces))


def _adjust(pod: Object, container: Object, status: ContainerStatus, out: Step) -> None:
    """Resources of a running container that were changed in place."""
    parts, name = resize.changed(pod, container, status), container["name"]
    if not parts:
        return
    if resize.needs_restart(container, parts):
        grace = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        why = f"Container {name} resize requires restart"
        key = f"stop:{status.config.id}"
        out.actions.append(StopContainer(status.config.id, name, grace, why, key, replaces=True))
        return
    has = status.config.limits
    wanted = dataclasses.replace(
        qos.container_limits(pod, container), oom_score_adj=has.oom_score_adj, pids=has.pids
    )
    out.actions.append(ResizeContainer(status.config.id, wanted, f"resize:{status.config.id}"))


def _restart(pod: Object, container: Object, world: World, now: float, out: Step) -> bool:
    """Starts a container again when its crash back-off has passed."""
    name = container["name"]
    latest = world.latest(name)
    if latest is None:
        return _start(container, world, now, out)
    ready_at = phase.back_off_until(world.of(name), latest)
    if ready_at > now:
        out.wake_at(ready_at)
        out.notes.append(
            Note(
                f"crash:{latest.config.id}",
                "Warning",
                "BackOff",
                f"Back-off restarting failed container {name} in pod {pod_text(pod)}",
                name,
            )
        )
        return False
    return _start(container, world, now, out)


def _start(container: Object, world: World, now: float, out: Step) -> bool:
    name = container["name"]
    facts = world.of(name)
    problem = facts.problem
    if problem and problem.retry_at > now and f"start:{name}" not in world.busy:
        out.wake_at(problem.retry_at)
        if problem.reason == "ErrImagePull":
            settled = problem.at + PULL_SETTLES
            if settled > now:
                out.wake_at(settled)
            else:
                text = f'Back-off pulling image "{problem.image or container.get("image", "")}"'
                about = "" if problem.image else name
                out.notes.append(Note(f"pull:{name}:{problem.at}", "Normal", "BackOff", text, about))
                out.notes.append(
                    Note(f"pullerr:{name}:{problem.at}", "Warning", "Failed", "Error: ImagePullBackOff", name)
                )
        return False
    latest = world.latest(name)
    ran = None
    if latest is not None and facts.replaced != latest.config.id:
        ran = min(max(latest.finished_at - latest.started_at, 0.0), RESTART_RESET + 1)
    out.actions.append(StartContainer(name, world.next_attempt(name), ran, f"start:{name}"))
    return True


def _deadline(pod: Object, world: World, out: Step) -> None:
    seconds = pod["spec"].get("activeDeadlineSeconds")
    if seconds is not None:
        out.wake_at(phase.start_time(pod, world) + seconds)


# Backward: withdraw, stop in order, clean up.


def _end(pod: Object, world: World, now: float, out: Step) -> None:
    if any(key.startswith("start:") for key in world.busy) or {"sandbox", "volumes"} & world.busy:
        return  # the driver cancels what it can; the outcome comes back here
    running = world.running()
    if not running:
        if not world.cleaned or deleting(pod):
            out.actions.append(Cleanup(delete=deleting(pod)))
        return
    grace = grace_period(pod) if deleting(pod) else _verdict_grace(pod, world)
    since = world.ending_since if world.ending_since is not None else now
    if deleting(pod) and world.was_ready and not world.withdrawn and grace > 1:
        out.actions.append(Withdraw(limit=grace / 2))
        return
    left = max(since + grace - now, min(MINIMUM_GRACE, grace))
    helpers = {c["name"] for c in sidecars(pod)}
    ordinary = [c for c in running if c.config.name not in helpers]
    if not ordinary:
        order = [c["name"] for c in sidecars(pod)]
        running.sort(key=lambda c: order.index(c.config.name) if c.config.name in order else -1)
        ordinary = running[-1:]
    for status in sorted(ordinary, key=lambda c: c.config.name):
        name = status.config.name
        key = f"stop:{status.config.id}:{since + grace}"
        out.actions.append(StopContainer(status.config.id, name, left, f"Stopping container {name}", key))


def _verdict_grace(pod: Object, world: World) -> float:
    if world.verdict_grace is not None:
        return world.verdict_grace
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30))


# Housekeeping.


def _collect_garbage(pod: Object, world: World, out: Step) -> None:
    if len(world.containers) <= len(pod["spec"]["containers"]):
        return
    for container in all_containers(pod):
        for old in world.attempts(container["name"])[:-KEPT_ATTEMPTS]:
            if old.state == "exited":
                out.actions.append(RemoveContainer(old.config.id, f"remove:{old.config.id}"))


def _to_probe(pod: Object, world: World) -> dict[str, str]:
    """Running containers that have probes, their postStart done; of a pod that ends the prober leaves liveness out."""
    found = {}
    for status in world.running():
        container = find_container(pod, status.config.name)
        if not world.of(status.config.name).hooked:
            continue
        if container and any(container.get(p) for p in ("startupProbe", "livenessProbe", "readinessProbe")):
            found[status.config.name] = status.config.id
    return found
