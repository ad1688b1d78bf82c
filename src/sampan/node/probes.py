"""Probes of running containers: one task a probe, thresholds and periods by the clock, results to the pod's driver.

Startup comes first: liveness and readiness wait for it. Only a change of the verdict is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from sampan.api import duration
from sampan.base import hostport
from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.node import checks
from sampan.node.pods.kit import ProbeLooks
from sampan.node.pods.podspec import find_container
from sampan.node.runtime import Runtime

if TYPE_CHECKING:
    from sampan.node.pods.driver import PodDriver

_KINDS = {"startupProbe": "startup", "livenessProbe": "liveness", "readinessProbe": "readiness"}
_TITLES = {"startup": "Startup", "liveness": "Liveness", "readiness": "Readiness"}
Check = Callable[[Object, Object, str, Object, str], Awaitable[checks.Seen]]


class ProbeManager:
    """Implements `pods.kit.Prober`. `check(pod, container, container_id, handler, ip)` is one look."""

    def __init__(self, runtime: Runtime, clock: Clock, check: Check | None = None) -> None:
        self._clock = clock
        self._check = check or (lambda *args: checks.check(runtime, *args))
        self._tasks: dict[
            str, dict[tuple[str, str], asyncio.Task[None]]
        ] = {}  # pod uid -> (container id, kind)
        self._looks: dict[str, ProbeLooks] = {}  # pod uid -> how often each probe said what

    def sync(self, driver: PodDriver, containers: Mapping[str, str], ending: bool) -> None:
        """Probe exactly these containers; of a pod that ends only readiness is of interest."""
        tasks = self._tasks.get(driver.uid, {})
        if not containers and not tasks:
            return
        wanted = {}
        for name, container_id in containers.items():
            container = find_container(driver.pod, name) or {}
            begun = not container.get("startupProbe") or driver.world.of(name).probes.get("startup")
            for part, kind in _KINDS.items():
                due = not begun if kind == "startup" else begun
                if container.get(part) and due and (kind == "readiness" or not ending):
                    wanted[container_id, kind] = (name, container, container[part])
        for key in [k for k in tasks if k not in wanted]:
            tasks.pop(key).cancel()
        for key, (name, container, probe) in wanted.items():
            if key not in tasks:
                work = self._run(driver, name, container, probe, *key)
                task = asyncio.get_running_loop().create_task(work)
                self._tasks.setdefault(driver.uid, tasks)[key] = task

    def stop(self, driver: PodDriver) -> None:
        self._looks.pop(driver.uid, None)
        for task in self._tasks.pop(driver.uid, {}).values():
            task.cancel()

    def looks(self) -> list[ProbeLooks]:
        """What the probes of each pod have seen so far, over all attempts of its containers."""
        return list(self._looks.values())

    async def _run(
        self, driver: PodDriver, name: str, container: Object, probe: Object, container_id: str, kind: str
    ) -> None:
        started_at = driver.world.containers[container_id].started_at
        first = started_at + probe.get("initialDelaySeconds", 0) - self._clock.now()
        if first > 0:
            await self._clock.sleep(first)
        period = probe.get("periodSeconds", 10)
        needs = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        streak, last, title = 0, None, _TITLES[kind]
        while True:
            looks = self._looks.setdefault(driver.uid, ProbeLooks(driver.pod["metadata"]))
            begun = self._clock.monotonic()
            try:
                ok, seen = await self._look(driver, container, container_id, probe)
            except checks.Unknown as error:  # counts neither way
                looks.results[name, title, "unknown"] += 1
                text = f"{title} probe errored and resulted in unknown state: {error}"
                driver.record("Warning", "Unhealthy", text, name)
                await self._clock.sleep(period)
                continue
            streak = streak + 1 if ok is last else 1
            last = ok
            looks.add(name, title, ok, self._clock.monotonic() - begun)
            if not ok:
                driver.record("Warning", "Unhealthy", f"{title} probe failed: {seen}", name)
            elif seen.startswith(checks.REDIRECTED):
                driver.record("Warning", "ProbeWarning", f"{title} probe warning: {seen}", name)
            if streak >= needs[ok]:
                driver.probed(name, container_id, kind, ok)
                if not ok and kind != "readiness":
                    return  # the container is to be replaced: what it does until then is of no interest
            await self._clock.sleep(period)

    async def _look(
        self, driver: PodDriver, container: Object, container_id: str, probe: Object
    ) -> checks.Seen:
        ip = driver.world.ips[0] if driver.world.ips else "127.0.0.1"
        seconds = probe.get("timeoutSeconds", 1)
        try:
            async with self._clock.timeout(seconds):
                return await self._check(driver.pod, container, container_id, probe, ip)
        except TimeoutError:
            return False, _timeout_text(probe, ip, seconds)

    async def close(self) -> None:
        """Ends all probes."""
        tasks = [t for group in self._tasks.values() for t in group.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def _timeout_text(probe: Object, ip: str, seconds: float) -> str:
    if probe.get("exec"):
        return f'command timed out: "{" ".join(probe["exec"].get("command") or ())}" timed out after {duration.of_seconds(seconds)}'
    if probe.get("httpGet"):
        action = probe["httpGet"]
        scheme = action.get("scheme", "HTTP").lower()
        url = f"{scheme}://{hostport.join(ip, action['port'])}{action.get('path') or '/'}"
        return f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    if probe.get("grpc"):
        return f"timeout: health rpc did not complete within {duration.of_seconds(seconds)}"
    action = probe["tcpSocket"]
    return f"dial tcp {hostport.join(ip, action['port'])}: i/o timeout"
