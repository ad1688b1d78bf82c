"""Graceful node shutdown: pods end within their grace before the node does, critical ones last.

Source: "Node Shutdowns" (KEP-2000). Reasons and texts are kubelet's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from sampan.base.clock import Clock
from sampan.node import pressure
from sampan.node.pods.driver import PodDriver

log = logging.getLogger(__name__)
REFUSAL = ("NodeShutdown", "Pod was rejected as the node is shutting down.")
PROBLEM = "node is shutting down"
_REASON = "Terminated"
_MESSAGE = "Pod was terminated in response to imminent node shutdown."


async def end_pods(drivers: Iterable[PodDriver], clock: Clock, grace: float, critical: float) -> None:
    """End all pods within `grace` seconds, of which the last `critical` are for critical pods."""
    drivers = list(drivers)
    ordinary = [d for d in drivers if not pressure.is_critical(d.pod)]
    rest = [d for d in drivers if pressure.is_critical(d.pod)]
    for group, seconds in ((ordinary, max(grace - critical, 0.0)), (rest, critical)):
        for driver in group:
            own = float(driver.pod["spec"].get("terminationGracePeriodSeconds", 30))
            driver.evict(_REASON, _MESSAGE, grace=min(own, seconds), disruption=True)
        try:
            async with clock.timeout(seconds + 2.0):
                await asyncio.gather(*(_ended(driver) for driver in group))
        except TimeoutError:
            log.warning("pods did not end within %s s", seconds)


async def _ended(driver: PodDriver) -> None:
    for status in driver.world.running():
        await driver.ended(status.config.id)
    await driver.settled()
