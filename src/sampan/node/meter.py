"""How much containers use and how fast: the runtime's counters, and rates between two looks at them.

Kubelet's housekeeping looks every ten seconds, so that a rate is of the last moments and not of a container's whole
life. Nodes without a housekeeping (simulated ones) give the rate since the start.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.base.clock import Clock
from sampan.node.runtime import Runtime

PERIOD = 10.0  # seconds between two looks
_SHORTEST = 5.0  # a rate over less is noise
_SELF = ""  # stands among container ids for the agent's own process


@dataclass(frozen=True, slots=True)
class Measured:
    """What one container uses: seconds, bytes; `cores` is the rate over the last `window` seconds."""

    cpu_seconds: float
    cores: float
    window: float
    usage: int
    working_set: int
    rss: int
    processes: int
    page_faults: int = 0
    major_page_faults: int = 0


class Meter:
    """`measure` looks now; `sample` also remembers, for rates to come."""

    def __init__(self, runtime: Runtime, clock: Clock, *, alone: bool = True) -> None:
        """`alone`: this process is one node's agent and nothing else, so that its own use is the node's."""
        self._runtime = runtime
        self._alone = alone
        self._clock = clock
        self._samples: deque[tuple[float, dict[str, float]]] = deque(maxlen=3)
        self._begun = clock.now()

    async def sample(self) -> Mapping[str, Mapping[str, float]]:
        """Measures once. What containers use now; seconds of processor are kept, for a rate needs two samples."""
        used = await self._runtime.stats()
        seconds = {id_: one.get("cpu_seconds", 0.0) for id_, one in used.items()}
        self._samples.append((self._clock.now(), seconds | {_SELF: self.own().cpu_seconds}))
        return used

    async def measure(self, started: Mapping[str, float]) -> dict[str, Measured]:
        """By container id. `started` says since when (epoch seconds) each of them runs: it began with no time used."""
        used = await self._runtime.stats()
        now = self._clock.now()
        return {id_: self._measured(id_, one, started.get(id_, now), now) for id_, one in used.items()}

    def own(self) -> Measured:
        """The agent itself: proxy, DNS and kubelet in one process."""
        if not self._alone:
            return Measured(0.0, 0.0, PERIOD, 0, 0, 0, 0)
        used = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * resource.getpagesize()
        stats = {"cpu_seconds": used.ru_utime + used.ru_stime, "memory_rss": resident}
        stats |= {"memory_working_set": resident, "pids": 1}
        stats |= {"page_faults": used.ru_minflt + used.ru_majflt, "major_page_faults": used.ru_majflt}
        return self._measured(_SELF, stats, self._begun, self._clock.now())

    def _measured(self, id_: str, one: Mapping[str, float], since: float, now: float) -> Measured:
        seconds, before = one.get("cpu_seconds", 0.0), 0.0
        for when, sample in reversed(self._samples):
            if id_ in sample and now - when >= _SHORTEST:
                since, before = when, sample[id_]
                break
        window = max(now - since, 0.001)
        working = int(one.get("memory_working_set", 0))
        return Measured(
            cpu_seconds=seconds,
            cores=one.get("cores", max(seconds - before, 0.0) / window),
            window=window,
            usage=int(one.get("memory_usage", working)),
            working_set=working,
            rss=int(one.get("memory_rss", 0)),
            processes=int(one.get("pids", 0)),
            page_faults=int(one.get("page_faults", 0)),
            major_page_faults=int(one.get("major_page_faults", 0)),
        )
