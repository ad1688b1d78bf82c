"""The pods of this node: one watch by `spec.nodeName`, one driver a pod, and what a former agent left running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

import orjson

from sampan.api.status import ApiError
from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.base.tasks import Tasks
from sampan.client.client import Client
from sampan.node.pods import resize
from sampan.node.pods.admission import Holder
from sampan.node.pods.driver import PodDriver
from sampan.node.pods.kit import Kit
from sampan.node.pods.mirror import StaticDriver, is_mirror, remove_mirror
from sampan.node.pods.podspec import deleting
from sampan.node.runtime import ContainerStatus, SandboxStatus

log = logging.getLogger(__name__)
INITIAL_END = "k8s.io/initial-events-end"


_Left = tuple[SandboxStatus | None, list[ContainerStatus]]


class PodManager:
    """Drivers by pod uid. `offer` takes pods from the watch; tests and fleets may call it themselves.

    `admit(pod, others)` may refuse a pod that is new here: (reason, message), see `admission`. `refresh` brings what it
    knows of the node up to date: the scheduler may have heard of a label or a resource before this node did.
    """

    def __init__(self, kit: Kit, node_name: str) -> None:
        self.kit = kit
        self.admit: Callable[[Object, list[Holder]], tuple[str, str] | None] = lambda pod, others: None
        self.refresh: Callable[[], Awaitable[None]] | None = None
        self.drivers: dict[str, PodDriver] = {}
        self._node = node_name
        self._owner: dict[str, str] = {}  # container id -> pod uid, for exits
        self._left: dict[str, _Left] = {}  # pod uid -> what an earlier agent left
        self._surveyed = False
        self._static: dict[str, Object] = {}
        self._mirrors: dict[str, Object] = {}  # namespace/name -> mirror pod as the API has it
        self._tasks = Tasks()

    async def survey(self) -> None:
        """Learn what an earlier agent left running; call once, before the first pod."""
        self._surveyed = True
        for sandbox in await self.kit.runtime.sandboxes():
            known, _ = self._left.setdefault(sandbox.config.pod_uid, (None, []))
            if known is None or known.config.attempt < sandbox.config.attempt:
                self._left[sandbox.config.pod_uid] = (sandbox, self._left[sandbox.config.pod_uid][1])
            if self.kit.hooks.addresses is not None and sandbox.config.ip:
                self.kit.hooks.addresses.take(sandbox.config.pod_uid, sandbox.config.ip)
        for container in await self.kit.runtime.containers():
            uid = (
                container.config.labels.get("io.kubernetes.pod.uid")
                or container.config.sandbox.rpartition("_")[0]
            )
            self._left.setdefault(uid, (None, []))[1].append(container)

    async def run(self) -> None:
        """Follow the pods of this node for ever."""
        fields = f"spec.nodeName={self._node}"
        async for kind, pod, complete in follow(self.kit.client, self.kit.clock, "pods", fields=fields):
            if complete is not None:
                self.settle(complete)
            elif pod is not None:
                self.offer(kind, pod)

    def offer(self, kind: str, pod: Object) -> None:
        """One watch event."""
        if is_mirror(pod):
            self._mirror(kind, pod)
            return
        uid = pod["metadata"]["uid"]
        driver = self.drivers.get(uid)
        if kind == "DELETED":
            if driver:
                driver.vanish()
        elif driver:
            held = driver.holds_resources()
            self.kit.statuses.seen(pod)
            changed = driver.update(pod)
            if changed or (held and not driver.holds_resources()):
                self._reconsider()
        else:
            self._begin(pod)

    def settle(self, present: set[str]) -> None:
        """The whole list is known: what is not in it has gone while nobody looked."""
        for uid, driver in list(self.drivers.items()):
            if isinstance(driver, StaticDriver):
                if driver.mirror is None or driver.mirror["metadata"]["uid"] not in present:
                    driver.show(None)
            elif uid not in present:
                driver.vanish()
        if self._surveyed:
            self._surveyed = False
            left, self._left = self._left, {}
            self._tasks.start(
                self._sweep({u: rest for u, rest in left.items() if u not in self.drivers}, set(self.drivers))
            )

    def exited(self, container_id: str) -> None:
        """Called by the runtime; an exit the driver itself asked for comes here too."""
        for driver in self._drivers_of(container_id):
            driver.exited(container_id)

    def _drivers_of(self, container_id: str) -> list[PodDriver]:
        uid = self._owner.get(container_id)
        if uid is None:
            for driver in self.drivers.values():
                if container_id in driver.world.containers:
                    uid = self._owner[container_id] = driver.uid
                    break
        return [self.drivers[uid]] if uid in self.drivers else []

    def _begin(self, pod: Object) -> None:
        self.kit.statuses.know(pod)
        self._drive(PodDriver(self.kit, pod, self._forget))

    def _holders(self, but: PodDriver) -> list[Holder]:
        found = (d for d in self.drivers.values() if d is not but and d.holds_resources())
        return [(d.pod, d.requests()) for d in found]

    def _reconsider(self) -> None:
        """What has become free goes to the resizes that wait, the most important first."""
        waiting = [driver for driver in self.drivers.values() if driver.world.resize_pending]
        for driver in sorted(waiting, key=lambda driver: resize.turn(driver.pod)):
            driver.reconsider()

    def _drive(self, driver: PodDriver) -> None:
        others = self._holders(driver)
        self.drivers[driver.uid] = driver
        driver.grant = lambda pod: resize.judge(pod, self.kit.node(), self._holders(driver))
        left = self._left.pop(driver.uid, (None, []))
        driver.adopt(*left)
        status = driver.pod.get("status", {})
        if not any(left) and not status.get("startTime") and not deleting(driver.pod):
            refusal = self.admit(driver.pod, others)
            if refusal and self.refresh is not None:
                self._tasks.start(self._judge_again(driver, self.refresh))
                return
            if refusal:
                driver.reject(*refusal)
        driver.kick()

    async def _judge_again(self, driver: PodDriver, refresh: Callable[[], Awaitable[None]]) -> None:
        try:
            await refresh()
        except (ApiError, OSError, EOFError, TimeoutError) as error:
            log.info("reading the node again: %r", error)
        if self.drivers.get(driver.uid) is not driver:
            return
        refusal = self.admit(driver.pod, self._holders(driver))
        if refusal:
            driver.reject(*refusal)
        driver.kick()

    # Static pods

    def static(self, pods: dict[str, Object]) -> None:
        """These (by uid) are to run, whatever the API says. One whose file has changed waits for its predecessor."""
        self._static = pods
        for driver in list(self.drivers.values()):
            if isinstance(driver, StaticDriver) and driver.uid not in pods:
                driver.retire()
        for uid, pod in pods.items():
            if uid not in self.drivers and not self._predecessor(pod):
                driver = StaticDriver(self.kit, pod, self._forget)
                self._drive(driver)
                driver.show(self._mirrors.get(_full_name(pod)))

    def _predecessor(self, pod: Object) -> bool:
        return any(
            isinstance(d, StaticDriver) and _full_name(d.pod) == _full_name(pod)
            for d in self.drivers.values()
        )

    def _mirror(self, kind: str, pod: Object) -> None:
        name = _full_name(pod)
        gone = kind == "DELETED"
        if gone:
            self._mirrors.pop(name, None)
        else:
            self._mirrors[name] = pod
        for driver in self.drivers.values():
            if isinstance(driver, StaticDriver) and _full_name(driver.pod) == name:
                driver.show(None if gone else pod)
                return
        if not gone:
            self._tasks.start(remove_mirror(self.kit, pod))

    def _forget(self, uid: str) -> None:
        driver = self.drivers.pop(uid, None)
        if isinstance(driver, StaticDriver):
            self.static(self._static)
        self._reconsider()
        for container_id in [c for c, owner in self._owner.items() if owner == uid]:
            del self._owner[container_id]

    async def _sweep(self, left: dict[str, _Left], present: set[str]) -> None:
        """End what belongs to pods that no longer exist, then remove their files."""
        runtime = self.kit.runtime
        for uid, (sandbox, containers) in left.items():
            log.info("ending what is left of pod %s", uid)
            stops = (runtime.stop_container(c.config.id, 2.0) for c in containers)
            await asyncio.gather(*stops, return_exceptions=True)
            if sandbox:
                await runtime.stop_sandbox(sandbox.config.id)
            for container in containers:
                await runtime.remove_container(container.config.id)
            if sandbox:
                await runtime.remove_sandbox(sandbox.config.id)
            if self.kit.hooks.addresses:
                await self.kit.hooks.addresses.release(uid)
        await self.kit.volumes.sweep(present)

    async def close(self) -> None:
        """Let go of all pods; what runs goes on."""
        await self._tasks.cancel()
        for driver in list(self.drivers.values()):
            await driver.close()


def _full_name(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


async def follow(
    client: Client,
    clock: Clock,
    resource: str,
    namespace: str = "",
    *,
    fields: str = "",
    pause: Callable[[], float] = lambda: 1.0,
) -> AsyncGenerator[tuple[str, Object | None, set[str] | None], None]:
    """A watch that never ends: (type, object, None) for each change, ("", None, uids) when a list is complete.

    After a broken connection it goes on where it was; when that is too long ago it starts with the whole list.
    """
    since = ""
    while True:
        present: set[str] | None = None if since else set()
        try:
            async for line in client.watch(
                resource, namespace, since=since, fields=fields, initial=not since
            ):
                event = orjson.loads(line)
                kind, obj = event["type"], event["object"]
                if kind == "ERROR":
                    raise ApiError.from_status(obj)
                since = obj["metadata"].get("resourceVersion", since)
                if kind == "BOOKMARK":
                    if present is not None and INITIAL_END in (obj["metadata"].get("annotations") or {}):
                        yield "", None, present
                        present = None
                    continue
                if present is not None:
                    present.add(obj["metadata"].get("uid", ""))
                yield kind, obj, None
        except ApiError as error:
            if error.code == 410:
                since = ""
                continue
            log.warning("watch of %s: %s", resource, error.message)
        except (OSError, EOFError) as error:
            log.warning("watch of %s: %s", resource, str(error) or type(error).__name__)
        if present is not None:
            since = ""  # the list was cut short
        await clock.sleep(pause())
