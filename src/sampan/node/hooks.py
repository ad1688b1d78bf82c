"""Lifecycle hooks: postStart and preStop of a container, run once, bounded by whoever waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.node import checks
from sampan.node.runtime import Runtime

if TYPE_CHECKING:
    from sampan.node.pods.driver import PodDriver


class HookRunner:
    """`await runner(driver, container, container_id, handler)` gives (ok, message)."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock

    async def __call__(
        self, driver: PodDriver, container: Object, container_id: str, handler: Object
    ) -> checks.Seen:
        if handler.get("sleep"):
            await self._clock.sleep(handler["sleep"].get("seconds", 0))
            return True, ""
        ip = driver.world.ips[0] if driver.world.ips else "127.0.0.1"
        try:
            ok, seen = await checks.check(self._runtime, driver.pod, container, container_id, handler, ip)
        except checks.Unknown as error:
            ok, seen = False, str(error)
        if ok or not handler.get("exec"):
            return ok, seen
        command = handler["exec"].get("command") or []
        return False, f"command {' '.join(command)!r} failed: {seen}"
