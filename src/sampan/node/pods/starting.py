"""How a sandbox or a container is started and stopped: image, configuration, runtime, hooks, and their events."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.node import qos
from sampan.node.native import users
from sampan.node.pods import pulling, resize, spec
from sampan.node.pods.actions import StartContainer, StopContainer
from sampan.node.pods.kit import Kit
from sampan.node.pods.podspec import deleting, find_container
from sampan.node.pods.problems import ConfigProblem, NotStarted, VolumeError
from sampan.node.pods.world import fail_pod, started
from sampan.node.runtime import ContainerStatus, Limits, RuntimeFailure, SandboxConfig, SandboxStatus

if TYPE_CHECKING:
    from sampan.node.pods.driver import PodDriver


async def run_sandbox(driver: PodDriver, attempt: int) -> None:
    """Make the pod's surroundings; a failure is recorded in the pod's facts."""
    kit, world, pod = driver.kit, driver.world, driver.pod
    now = kit.clock.now()
    try:
        await _check_handler(kit, pod)
        if world.sandbox is not None:
            driver.record(
                "Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."
            )
            await kit.runtime.stop_sandbox(world.sandbox.config.id)
            await kit.runtime.remove_sandbox(world.sandbox.config.id)
        host_network = bool(pod["spec"].get("hostNetwork"))
        pool = kit.hooks.addresses
        address = await pool.allocate(pod) if pool and not host_network else ""
        config = sandbox_config(kit, pod, attempt, address)
        world.sandbox_attempt = attempt + 1
        world.sandbox = await _isolated_sandbox(kit, pod, config)
    except (RuntimeFailure, ConfigProblem, ApiError, OSError) as error:
        text = f"Failed to create pod sandbox: {error}"
        driver.record("Warning", "FailedCreatePodSandBox", text)
        fail_pod(world, "CreatePodSandboxError", text, now)
        return
    world.trouble = None
    world.ips = list(kit.host_ips) if host_network else sandbox_addresses(kit, world.sandbox)


async def _check_handler(kit: Kit, pod: Object) -> None:
    """The pod's RuntimeClass names what runs pods here (KEP-585). Raises ConfigProblem, and what looking it up raises."""
    name = pod["spec"].get("runtimeClassName")
    if not name:
        return
    found = await kit.lookup("runtimeclasses.node.k8s.io", "", name)
    if found is None:
        raise ConfigProblem(f'runtimeclass.node.k8s.io "{name}" not found')
    if found["handler"] not in kit.runtime.handlers:
        raise ConfigProblem(f'no runtime for "{found["handler"]}" is configured')


async def _isolated_sandbox(kit: Kit, pod: Object, config: SandboxConfig) -> SandboxStatus:
    """A sandbox whose network policies are in force. Raises RuntimeFailure or OSError, and leaves none then."""
    sandbox = await kit.runtime.run_sandbox(config)
    if kit.hooks.isolate and not config.host_network:
        try:
            await kit.hooks.isolate(pod, sandbox_addresses(kit, sandbox))
        except OSError:
            await kit.runtime.remove_sandbox(config.id)
            raise
    return sandbox


def sandbox_addresses(kit: Kit, sandbox: SandboxStatus) -> list[str]:
    """What the sandbox has, the primary address first."""
    known = kit.hooks.sandbox_addresses(sandbox.config.id) if kit.hooks.sandbox_addresses else ()
    return list(known) or ([sandbox.config.ip] if sandbox.config.ip else [])


def sandbox_config(kit: Kit, pod: Object, attempt: int, address: str) -> SandboxConfig:
    """The surroundings a pod's spec asks for."""
    meta, body = pod["metadata"], pod["spec"]
    security = body.get("securityContext") or {}
    return SandboxConfig(
        id=f"{meta['uid']}_{attempt}",
        pod_uid=meta["uid"],
        pod_name=meta["name"],
        namespace=meta["namespace"],
        attempt=attempt,
        hostname=spec.kernel_hostname(pod, kit.config.cluster_domain),
        ip=address,
        host_network=bool(body.get("hostNetwork")),
        host_pid=bool(body.get("hostPID")),
        host_ipc=bool(body.get("hostIPC")),
        share_processes=bool(body.get("shareProcessNamespace")),
        user_base=users.base(meta["uid"]) if body.get("hostUsers") is False else 0,
        sysctls={s["name"]: s["value"] for s in security.get("sysctls") or ()},
        cgroup=qos.cgroup(pod),
        limits=_pod_limits(kit, pod),
        labels=spec.simulation_labels(pod),
        ports=[] if body.get("hostNetwork") else list(spec.host_ports(pod)),
    )


def _target(driver: PodDriver, container: Object) -> str:
    """The id of the container whose processes an ephemeral one is to see, "" if none. Raises ConfigProblem."""
    name = container.get("targetContainerName")
    if not name:
        return ""
    found = driver.world.latest(name)
    if found is None or found.state == "exited":
        raise ConfigProblem(f'unable to find target container "{name}"')
    return found.config.id


def _pod_limits(kit: Kit, pod: Object) -> Limits:
    """Of the pod's group: what it asks for, and how many processes this node gives a pod."""
    most = kit.config.pod_pids_limit
    return dataclasses.replace(qos.pod_limits(pod), pids=most if most > 0 else None)


async def resize_sandbox(driver: PodDriver, before: bool = False) -> None:
    """Give the pod's group the sum its containers need now; `before` they change, as much as they had as well.

    Raises RuntimeFailure.
    """
    sandbox = driver.world.sandbox
    if sandbox is None:
        return
    has, limits = sandbox.config.limits, _pod_limits(driver.kit, driver.pod)
    if before:
        limits = resize.wider(has, limits)
    if limits != has:
        await driver.kit.runtime.update_sandbox(sandbox.config.id, limits)
        config = dataclasses.replace(sandbox.config, limits=limits)
        driver.world.sandbox = dataclasses.replace(sandbox, config=config)


async def start_container(driver: PodDriver, container: Object, action: StartContainer) -> None:
    """From the image to a finished postStart. Raises NotStarted."""
    kit, world, name = driver.kit, driver.world, action.name
    facts = world.of(name)
    driver.soft.add(action.key)
    volumes = await pulling.ensure_volumes(driver, container)
    image = await pulling.ensure_image(driver, container)
    sandbox = world.sandbox
    if sandbox is None or deleting(driver.pod):
        return
    try:
        config = await spec.container_config(
            kit, driver.pod, container, image, volumes, sandbox, world.ips, action.attempt
        )
        config = dataclasses.replace(config, target=_target(driver, container))
    except (ConfigProblem, VolumeError) as error:
        driver.record("Warning", "Failed", f"Error: {error}", name)
        raise NotStarted(error.reason, str(error)) from error
    driver.soft.discard(action.key)
    facts.hooked = not _hook(container, "postStart")
    try:
        await resize_sandbox(driver, before=True)
        status = await kit.runtime.start_container(config)
    except RuntimeFailure as error:
        if error.reason == "RunContainerError":
            driver.record("Normal", "Created", "Container created", name)
        driver.record("Warning", "Failed", f"Error: {error.message}", name)
        if error.reason != "RunContainerError":
            raise NotStarted(error.reason, error.message) from error
        now = kit.clock.now()
        dead = ContainerStatus(
            config, "exited", now, now, now, 128, reason="StartError", message=error.message
        )
        started(facts, action.ran)
        world.containers[config.id] = dead
        return
    started(facts, action.ran)
    with contextlib.suppress(RuntimeFailure):  # the others may still have more: their resize does it
        await resize_sandbox(driver)
    await driver.learn(status)
    latest = await kit.runtime.status(config.id)  # who ended before we knew of it was not announced to us
    if latest is not None and latest.state == "exited":
        await driver.learn(latest)
    driver.record("Normal", "Created", "Container created", name)
    driver.record("Normal", "Started", "Container started", name)
    if not facts.hooked:
        driver.kick()
        await _post_start(driver, container, config.id)


def _hook(container: Object, kind: str) -> Object | None:
    return (container.get("lifecycle") or {}).get(kind)


async def _post_start(driver: PodDriver, container: Object, container_id: str) -> None:
    kit, name = driver.kit, container["name"]
    ok = True
    if kit.run_hook is not None:
        ok, _ = await kit.run_hook(driver, container, container_id, _hook(container, "postStart"))
    driver.world.of(name).hooked = ok  # who failed never was ready, slowly as it may end
    if not ok:  # what a hook printed may be a secret: events do not show it
        driver.record("Warning", "FailedPostStartHook", "PostStartHook failed", name)
        grace = float(driver.pod["spec"].get("terminationGracePeriodSeconds", 30))
        stop = StopContainer(container_id, name, grace, "FailedPostStartHook", "stop")
        await stop_container(driver, stop)


async def stop_container(driver: PodDriver, action: StopContainer) -> None:
    """preStop, then the signal; the event names the reason. Returns when the container is dead."""
    kit, clock = driver.kit, driver.kit.clock
    container = find_container(driver.pod, action.name)
    left = action.grace
    if action.id not in driver.pre_stopped:
        driver.pre_stopped.add(action.id)
        driver.record("Normal", "Killing", action.why, action.name)
        hook = _hook(container, "preStop") if container else None
        if hook and kit.run_hook is not None and action.grace > 0:
            begun = clock.monotonic()
            ok = False
            with contextlib.suppress(TimeoutError):
                async with clock.timeout(action.grace):
                    ok, _ = await kit.run_hook(driver, container, action.id, hook)
            if not ok:
                driver.record("Warning", "FailedPreStopHook", "PreStopHook failed", action.name)
            left = max(action.grace - (clock.monotonic() - begun), min(2.0, action.grace))
    await kit.runtime.stop_container(action.id, left)
    status = await kit.runtime.status(action.id)
    if status is not None:
        await driver.learn(status)
    else:
        old = driver.world.containers.get(action.id)
        if old and old.state != "exited":
            driver.world.containers[action.id] = dataclasses.replace(
                old, state="exited", finished_at=clock.now(), exit_code=137, reason="ContainerStatusUnknown"
            )
