"""The shell around the pod worker: performs its actions, folds the outcomes into the pod's facts, and looks again.

A driver of a pod at rest is a few objects and no task, so that one process can carry many thousands.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from sampan.api import pod_resources
from sampan.api.status import ApiError
from sampan.base.clock import Timer
from sampan.base.objects import Object
from sampan.node.pods import phase, recall, resize, restart_all, starting, worker
from sampan.node.pods.actions import (
    Action,
    Cleanup,
    MountVolumes,
    RemoveContainer,
    ResizeContainer,
    ResizePod,
    RestartAll,
    RunSandbox,
    StartContainer,
    StopContainer,
    Withdraw,
)
from sampan.node.pods.kit import Kit
from sampan.node.pods.podspec import deleting, find_container
from sampan.node.pods.problems import NotStarted, VolumeError
from sampan.node.pods.world import World, fail, fail_pod
from sampan.node.runtime import ContainerStatus, RuntimeFailure, SandboxStatus

log = logging.getLogger(__name__)
_RETRY = 5.0  # seconds after a failure that nobody foresaw


class PodDriver:
    """One pod of this node, from its first sight until its record and its traces are gone."""

    def __init__(self, kit: Kit, pod: Object, on_done: Callable[[str], None] = lambda uid: None) -> None:
        """`on_done(uid)` is called once, when nothing of the pod is left."""
        self.kit = kit
        self.pod = pod
        self._asked = pod  # as the API has it; `pod` has the resources that were granted
        self.uid: str = pod["metadata"]["uid"]
        self.world = World(first_seen=kit.clock.now(), runtime=kit.runtime.name.split("://")[0] or "sampan")
        self.world.host_ips = list(kit.host_ips)
        self.world.host_ip = kit.host_ips[0] if kit.host_ips else ""
        self.gone = False  # the API no longer has the pod
        self.done = False
        self.grant: Callable[[Object], tuple[str, str] | None] = lambda pod: None  # see resize.judge
        self._on_done = on_done
        self.soft: set[str] = set()  # keys of actions that may be cancelled now
        self.pre_stopped: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._noted: set[str] = set()
        self._resizing = False  # resources were granted, and are not all applied yet
        self._status: Object = {}
        self._requests: tuple[Object, Mapping[str, int]] | None = None
        self._timer: Timer | None = None
        self._scheduled = False
        self._closed = False
        self._waiters: list[asyncio.Future[None]] = []  # for the end of some container
        self.world.terminal = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")

    # What happens to the pod

    def adopt(self, sandbox: SandboxStatus | None, containers: list[ContainerStatus]) -> None:
        """Take over what an earlier agent left running."""
        world = self.world
        world.containers = {c.config.id: c for c in containers}
        if sandbox:
            world.sandbox = sandbox
            world.sandbox_attempt = sandbox.config.attempt + 1
            status_ips = [i["ip"] for i in self.pod.get("status", {}).get("podIPs") or ()]
            world.ips = status_ips or starting.sandbox_addresses(self.kit, sandbox)
        if containers:
            self.pod = resize.as_reported(self.pod)
            self.pod = self._granted(self._asked)
        recall.lost_containers(world, self.pod)
        world.restarting = restart_all.under_way(self.pod)
        world.before = restart_all.earlier_lives(self.pod, world)
        recall.probe_results(world, self.pod)

    def update(self, pod: Object) -> bool:
        """The API's newest version of the pod. Returns whether it has other resources now."""
        ends = deleting(pod) and not deleting(self.pod)
        self._asked = pod
        granted = self._granted(pod)
        changed = resize.resources(granted) != resize.resources(self.pod)
        if changed and self.world.containers and not deleting(pod):
            self.record("Normal", "ResizeStarted", resize.message("started", granted))
            self._resizing = True
        for name in resize.begun_anew(self.pod, granted):
            self.world.of(name).restart_delay = 0.0
        self.pod = _overlay(granted, self._status)
        self.kit.volumes.know(self.pod)
        if ends:
            self._begin_end()
        self.kick()
        return changed

    def reconsider(self) -> None:
        """Something of the node became free: a resize that waits may be possible now."""
        if self.world.resize_pending and not deleting(self.pod):
            self.update(self._asked)

    def _granted(self, pod: Object) -> Object:
        """The pod with the resources it has been granted: those it asks for, if the node agrees to a change."""
        has = resize.resources(self.pod)
        pending = self.grant(pod) if resize.resources(pod) != has else None
        if pending and pending != self.world.resize_pending:
            self.record("Warning", f"Resize{pending[0]}", resize.message(pending[0], pod, pending[1]))
        self.world.resize_pending = pending
        return resize.with_resources(pod, has) if pending else pod

    def vanish(self) -> None:
        """The API has no such pod any more: end at once, with nothing to report to."""
        self.gone = True
        meta = self.pod["metadata"]
        if not deleting(self.pod) or meta.get("deletionGracePeriodSeconds", 0) > 1:
            stamp = meta.get("deletionTimestamp") or meta.get("creationTimestamp", "")
            changed = {**meta, "deletionTimestamp": stamp, "deletionGracePeriodSeconds": 1}
            self.pod = {**self.pod, "metadata": changed}
            self.world.withdrawn = True
            self.world.ending_since = None
            self._begin_end()
        self.kick()

    def evict(
        self, reason: str, message: str, *, grace: float | None = None, disruption: bool = False
    ) -> None:
        """End the pod as Failed: node pressure, shutdown. See `World` for `grace` and `disruption`."""
        if self.world.verdict is None:
            self.world.verdict, self.world.verdict_grace = (reason, message), grace
            self.world.disruption = disruption
        self._begin_end()
        self.kick()

    def reject(self, reason: str, message: str) -> None:
        """The node does not take the pod: nothing of it begins."""
        self.record("Warning", reason, message)
        self.world.rejected = True
        self.evict(reason, f"Pod was rejected: {message}")

    def holds_resources(self) -> bool:
        """Until its last phase, or until it is gone from the API, a pod has what it asked for."""
        return not self.gone and self.pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")

    def requests(self) -> Mapping[str, int]:
        """What the pod asks for, see `api.pod_resources`."""
        spec = self.pod["spec"]
        if self._requests is None or self._requests[0] is not spec:
            self._requests = (spec, pod_resources.requests(spec))
        return self._requests[1]

    def exited(self, container_id: str) -> None:
        """The runtime saw a container end."""
        self._spawn(f"refresh:{container_id}", self._refresh(container_id))

    def probed(self, name: str, container_id: str, kind: str, ok: bool) -> None:
        """What a probe of this container has come to: its verdict, if it is a new one, is a fact that the worker decides by."""
        latest = self.world.latest(name)
        if latest and latest.config.id == container_id and self.world.of(name).probes.get(kind) is not ok:
            self.world.of(name).probes[kind] = ok
            self.kick()

    def record(self, type: str, reason: str, message: str, container: str = "") -> None:
        if not self.gone:
            self.kit.events.record(self.pod, type, reason, message, container)

    async def ended(self, container_id: str) -> None:
        """Returns when the container is dead or forgotten."""
        while not self.done:
            status = self.world.containers.get(container_id)
            if status is None or status.state == "exited":
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def settled(self) -> None:
        """Returns when nothing of an ended pod runs any more and its last phase has been sent."""
        while not (self.done or self.world.cleaned):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        await self.kit.statuses.flush(self.uid)

    async def close(self) -> None:
        """Let go of the pod; what runs goes on."""
        self._closed = True
        self.kit.prober.stop(self)
        if self._timer:
            self._timer.cancel()
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # Looking and acting

    def kick(self) -> None:
        """Look again soon; many reasons at once make one look."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._scheduled = False
        if self._closed or self.done:
            return
        self._wake_waiters()
        now = self.kit.clock.now()
        step = worker.step(self.pod, self.world, now)
        if step.ending and self.world.ending_since is None:
            self._begin_end()
        self._report(step.status)
        if self._resizing and phase.resized(self.pod, self.world):
            self._resizing = False
            self.record("Normal", "ResizeCompleted", resize.message("completed", self.pod))
        for note in step.notes:
            if note.key not in self._noted:
                self._noted.add(note.key)
                self.record(note.type, note.reason, note.message, note.container)
        self.kit.prober.sync(self, step.probes, step.ending)
        for action in step.actions:
            self.world.busy.add(action.key)
            self._spawn(action.key, self._perform(action))
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if step.wake is not None:
            self._timer = self.kit.clock.call_later(max(step.wake - now, 0.001), self.kick)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _report(self, status: Object) -> None:
        if status and status != self._status and not self.gone:
            self._status = status
            self.pod = _overlay(self.pod, status)
            self.kit.statuses.put(self.pod, status)

    def _begin_end(self) -> None:
        if self.world.ending_since is None:
            self.world.ending_since = self.kit.clock.now()
            self.world.was_ready = any(
                c["type"] == "Ready" and c["status"] == "True"
                for c in self.pod.get("status", {}).get("conditions") or ()
            )
        for facts in self.world.facts.values():
            facts.replaced = ""
        for key in sorted(self.soft):
            if key in self._tasks:
                self._tasks[key].cancel()

    def _spawn(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def _perform(self, action: Action) -> None:
        try:
            await _HANDLERS[type(action)](self, action)
        except asyncio.CancelledError:
            if self._closed:
                raise
        except Exception as error:  # an outcome nobody foresaw must not end the pod's driver
            log.exception("pod %s: %s failed", self.pod["metadata"]["name"], action.key)
            trouble = fail_pod(self.world, "InternalError", str(error), self.kit.clock.now())
            trouble.retry_at = self.kit.clock.now() + _RETRY
            await self.kit.clock.sleep(_RETRY)
        finally:
            self.soft.discard(action.key)
            self.world.busy.discard(action.key)
            self.kick()

    async def _refresh(self, container_id: str) -> None:
        status = await self.kit.runtime.status(container_id)
        if status is not None:
            await self.learn(status)
        self.kick()

    async def learn(self, status: ContainerStatus) -> None:
        """Fold what the runtime says of a container into the facts; a dead one may have left a message."""
        known = self.world.containers.get(status.config.id)
        if known is not None and known.state == "exited" and status.state != "exited":
            return  # its end was seen before its start was told: nothing runs again under the same id
        if status.state == "exited" and (known is None or known.state != "exited"):
            container = find_container(self.pod, status.config.name)
            if container:
                message = await self.kit.volumes.termination_message(
                    self.pod, container, status.config.attempt, status.exit_code != 0
                )
                if message:
                    self.world.of(status.config.name).messages[status.config.id] = message
        self.world.containers[status.config.id] = status

    # Handlers, one an action

    async def _mount(self, action: MountVolumes) -> None:
        self.soft.add(action.key)
        try:
            await self.kit.volumes.mount(self.pod)
        except VolumeError as error:
            fail_pod(self.world, "FailedMount", str(error), self.kit.clock.now())
            self.record("Warning", "FailedMount", str(error))
            return
        self.world.volumes = True
        self.world.trouble = None

    async def _sandbox(self, action: RunSandbox) -> None:
        await starting.run_sandbox(self, action.attempt)

    async def _start(self, action: StartContainer) -> None:
        container = find_container(self.pod, action.name)
        if container is None:
            return
        try:
            await starting.start_container(self, container, action)
        except NotStarted as error:
            now = self.kit.clock.now()
            fail(self.world.of(action.name), error.reason, error.message, now, error.image)

    async def _stop(self, action: StopContainer) -> None:
        if action.replaces:
            self.world.of(action.name).replaced = action.id
        await starting.stop_container(self, action)

    async def _remove(self, action: RemoveContainer) -> None:
        await self.kit.runtime.remove_container(action.id)
        self.world.containers.pop(action.id, None)
        self.world.before.discard(action.id)

    async def _resize_pod(self, action: ResizePod) -> None:
        try:
            await starting.resize_sandbox(self)
        except RuntimeFailure as error:
            await self._not_resized(error)
        else:
            self.world.resize_error = ""

    async def _not_resized(self, error: RuntimeFailure) -> None:
        if self.world.resize_error != str(error):
            self.world.resize_error = str(error)
            self.record("Warning", "ResizeError", resize.message("error", self.pod, str(error)))
            self._report(worker.step(self.pod, self.world, self.kit.clock.now()).status)
        await self.kit.clock.sleep(_RETRY)

    async def _resize(self, action: ResizeContainer) -> None:
        try:
            await starting.resize_sandbox(self, before=True)
            await self.kit.runtime.update_limits(action.id, action.limits)
            await starting.resize_sandbox(self)
        except RuntimeFailure as error:
            await self._not_resized(error)
            return
        self.world.resize_error = ""
        status = self.world.containers.get(action.id)
        if status:
            config = dataclasses.replace(status.config, limits=action.limits)
            self.world.containers[action.id] = dataclasses.replace(status, config=config)

    async def _restart_all(self, action: RestartAll) -> None:
        world = self.world
        world.restarting = True
        self.kick()
        names = {c["name"] for c in restart_all.taking_part(self.pod)}
        while True:
            running = [s for s in world.running() if s.config.name in names]
            starts = {key: t for key, t in self._tasks.items() if key.startswith("start:")}
            if not running and not starts:
                break
            for key in self.soft & starts.keys():
                starts[key].cancel()
            await asyncio.gather(*(starting.stop_container(self, _kill(s)) for s in running))
            if starts:
                await asyncio.wait(starts.values())
        world.before = {s.config.id for name in names for s in world.attempts(name)}
        for name in names:
            world.of(name).problem = None
        world.restarting = False

    async def _withdraw(self, action: Withdraw) -> None:
        """Traffic first: no signal before this node's proxy knows that the pod is going (bounded)."""
        withdrawn, clock = self.kit.hooks.withdrawn, self.kit.clock
        if withdrawn is not None:
            try:
                async with clock.timeout(action.limit):
                    await withdrawn(self.pod)
                    await clock.sleep(self.kit.config.drain)
            except TimeoutError:
                log.info("pod %s: its endpoint was not withdrawn in time", self.pod["metadata"]["name"])
        self.world.withdrawn = True

    async def _cleanup(self, action: Cleanup) -> None:
        world, kit = self.world, self.kit
        final = action.delete or self.gone  # what happens meanwhile is for the next look
        kit.prober.stop(self)
        if action.delete and not self.gone:
            await kit.statuses.flush(self.uid)
        if world.sandbox:
            await kit.runtime.stop_sandbox(world.sandbox.config.id)
        if final:
            for container_id in list(world.containers):
                await kit.runtime.remove_container(container_id)
            if world.sandbox:
                await kit.runtime.remove_sandbox(world.sandbox.config.id)
        if kit.hooks.addresses:
            await kit.hooks.addresses.release(self.uid)
        if kit.hooks.isolate:
            await kit.hooks.isolate(self.pod, ())
        await kit.volumes.unmount(self.uid)
        world.cleaned = True
        if final:
            await kit.volumes.remove_logs(self.pod)
            await self._delete()
            self.done = True
            self._wake_waiters()
            kit.statuses.forget(self.uid)
            self._on_done(self.uid)

    async def _delete(self) -> None:
        """Take the record out of the API: the pod is really gone now. Retried until it succeeds."""
        meta = self.pod["metadata"]
        delay = 1.0
        while not self.gone:
            try:
                await self.kit.client.delete("pods", meta["name"], meta["namespace"], uid=self.uid, grace=0)
                return
            except ApiError as error:
                if error.code in (404, 409):
                    return
                log.warning("deleting pod %s: %s", meta["name"], error.message)
            except (OSError, EOFError) as error:
                log.warning("deleting pod %s: %s", meta["name"], error)
            await self.kit.clock.sleep(delay)
            delay = min(delay * 2, 30.0)


_HANDLERS: dict[type, Any] = {
    MountVolumes: PodDriver._mount,
    RunSandbox: PodDriver._sandbox,
    StartContainer: PodDriver._start,
    StopContainer: PodDriver._stop,
    RemoveContainer: PodDriver._remove,
    ResizeContainer: PodDriver._resize,
    ResizePod: PodDriver._resize_pod,
    RestartAll: PodDriver._restart_all,
    Withdraw: PodDriver._withdraw,
    Cleanup: PodDriver._cleanup,
}


def _kill(status: ContainerStatus) -> StopContainer:
    """At once: a restart of all containers gives none of them time (KEP-5532)."""
    name, container_id = status.config.name, status.config.id
    return StopContainer(container_id, name, 0.0, f"Stopping container {name}", f"stop:{container_id}")


def _overlay(pod: Object, own: Object) -> Object:
    """The pod with this node's newest status over the API's; conditions of others stay."""
    if not own:
        return pod
    status = pod.get("status", {})
    mine = {c["type"]: c for c in own["conditions"]}
    ours = {*mine, *resize.CONDITIONS}
    others = [c for c in status.get("conditions") or () if c["type"] not in ours]
    return {**pod, "status": {**status, **own, "conditions": [*mine.values(), *others]}}
