"""Node pressure: which resource runs short, what the node says of it, and which pod has to go. Pure.

Source: "Node-pressure Eviction"; the texts are kubelet's, since alerts and people match on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampan.api import duration, quantity
from sampan.base.objects import Object
from sampan.node.meter import Measured
from sampan.node.pods.podspec import mains, sidecars

CRITICAL = 2_000_000_000  # priority of system-cluster-critical
# signal -> (condition, resource that is short)
SIGNALS = {
    "memory.available": ("MemoryPressure", "memory"),
    "nodefs.available": ("DiskPressure", "ephemeral-storage"),
    "nodefs.inodesFree": ("DiskPressure", "inodes"),
    "imagefs.available": ("DiskPressure", "ephemeral-storage"),
    "imagefs.inodesFree": ("DiskPressure", "inodes"),
    "pid.available": ("PIDPressure", "pids"),
}
_ORDER = ("memory", "pids", "ephemeral-storage", "inodes")  # memory is acted on first


@dataclass(frozen=True, slots=True)
class Observation:
    """Of one signal: how much there is left and how much there can be."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """`amount` is a quantity or a percentage of the capacity; `grace` seconds pass before a soft one counts."""

    signal: str
    amount: str
    grace: float = 0.0
    soft: bool = False

    def least(self, capacity: int) -> int:
        """How much must be left: bytes, inodes or processes."""
        if self.amount.endswith("%"):
            return int(capacity * float(self.amount[:-1]) / 100)
        return quantity.value(self.amount)

    def met(self, observed: Mapping[str, Observation]) -> bool:
        """Less is left than there has to be; what has no capacity (a file system without inodes) never is short."""
        seen = observed.get(self.signal)
        return seen is not None and seen.capacity > 0 and seen.available < self.least(seen.capacity)


def parse(text: str, grace: str = "") -> list[Threshold]:
    """`memory.available<100Mi,nodefs.available<10%`; with `grace` (`memory.available=90s`) they are soft.

    Raises ValueError for anything else.
    """
    delays = dict(part.strip().split("=", 1) for part in grace.split(",") if part.strip())
    found = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        signal, sign, amount = part.partition("<")
        if not sign or signal not in SIGNALS:
            raise ValueError(f'"{part}" is not an eviction threshold such as memory.available<100Mi')
        if not amount.endswith("%"):
            quantity.parse(amount)
        soft = signal in delays
        found.append(Threshold(signal, amount, duration.seconds(delays[signal]) if soft else 0.0, soft))
    return found


class Pressure:
    """What is remembered from look to look: since when each threshold is met, and which conditions hold.

    A condition stays for `transition` seconds after its threshold was last met, so that it does not flap.
    """

    def __init__(self, thresholds: Sequence[Threshold], transition: float) -> None:
        self.thresholds = thresholds
        self.conditions: tuple[str, ...] = ()
        self._transition = transition
        self._since: dict[Threshold, float] = {}
        self._last: dict[str, float] = {}  # condition -> when it was last observed

    def observe(self, observed: Mapping[str, Observation], now: float) -> list[Threshold]:
        """The thresholds to act on now, the most urgent first; `conditions` is brought up to date."""
        met = [t for t in self.thresholds if t.met(observed)]
        self._since = {t: self._since.get(t, now) for t in met}
        for threshold in met:
            self._last[SIGNALS[threshold.signal][0]] = now
        known = dict.fromkeys(condition for condition, _ in SIGNALS.values())
        self._last = {
            c: last for c, last in self._last.items() if last == now or now - last < self._transition
        }
        self.conditions = tuple(c for c in known if c in self._last)
        due = [t for t in met if now - self._since[t] >= t.grace]
        return sorted(due, key=lambda t: (_ORDER.index(SIGNALS[t.signal][1]), t.soft))


@dataclass(slots=True)
class Subject:
    """One pod that may be evicted: its containers' use by name, also of disk bytes; disk bytes and inodes of all of it."""

    pod: Object
    containers: Mapping[str, Measured] = field(default_factory=dict)
    disk: int = 0
    inodes: int = 0
    disks: Mapping[str, int] = field(default_factory=dict)

    def used(self, resource: str) -> int:
        """What this pod uses of a resource that runs out: bytes, processes or inodes."""
        if resource == "memory":
            return sum(c.working_set for c in self.containers.values())
        if resource == "pids":
            return sum(c.processes for c in self.containers.values())
        return self.inodes if resource == "inodes" else self.disk


def is_critical(pod: Object) -> bool:
    """Static pods, their mirrors and system priorities are never evicted."""
    annotations = pod["metadata"].get("annotations") or {}
    if "kubernetes.io/config.mirror" in annotations:
        return True
    if annotations.get("kubernetes.io/config.source", "api") != "api":
        return True
    return (pod["spec"].get("priority") or 0) >= CRITICAL


def request(container: Object, resource: str) -> int:
    amount = ((container.get("resources") or {}).get("requests") or {}).get(resource)
    return quantity.value(amount) if amount is not None else 0


def pod_request(pod: Object, resource: str) -> int:
    return sum(request(c, resource) for c in [*mains(pod), *sidecars(pod)])


def ranked(subjects: Iterable[Subject], resource: str) -> list[Subject]:
    """First to go first: who uses more than was requested, then low priority, then the largest excess."""

    def key(subject: Subject) -> tuple[Any, ...]:
        used, priority = subject.used(resource), subject.pod["spec"].get("priority") or 0
        asked = pod_request(subject.pod, resource)
        name = (subject.pod["metadata"]["namespace"], subject.pod["metadata"]["name"])
        if resource == "pids":
            return (priority, -used, name)
        return (used <= asked, priority, asked - used, name)

    return sorted((s for s in subjects if not is_critical(s.pod)), key=key)


def message(threshold: Threshold, seen: Observation, subject: Subject) -> str:
    """Why the pod was evicted."""
    resource = SIGNALS[threshold.signal][1]
    least = threshold.least(seen.capacity)
    if resource in ("memory", "ephemeral-storage"):
        limit, left = _bytes(least), _bytes(seen.available)
    else:
        limit, left = str(least), str(seen.available)
    text = f"The node was low on resource: {resource}. Threshold quantity: {limit}, available: {left}. "
    by_container: Mapping[str, int] = {}
    if resource == "memory":
        by_container = {name: used.working_set for name, used in subject.containers.items()}
    elif resource == "ephemeral-storage":
        by_container = subject.disks
    for container in [*mains(subject.pod), *sidecars(subject.pod)]:
        used = by_container.get(container["name"], 0)
        if used > request(container, resource):
            asked = ((container.get("resources") or {}).get("requests") or {}).get(resource, "0")
            text += (
                f"Container {container['name']} was using {_bytes(used)}, request is {asked}, "
                f"has larger consumption of {resource}. "
            )
    return text


def _bytes(amount: int) -> str:
    return str(quantity.Quantity(amount // 1024 * 1024 * 10**9, quantity.BINARY))


def admits(pod: Object, qos: str, conditions: Sequence[str]) -> str:
    """Why a node under pressure does not take a pod, "" when it does."""
    if not conditions or is_critical(pod):
        return ""
    if tuple(conditions) == ("MemoryPressure",):
        tolerated = any(
            t.get("operator", "Equal") == "Exists"
            and t.get("key") in ("", None, "node.kubernetes.io/memory-pressure")
            for t in pod["spec"].get("tolerations") or ()
        )
        if qos != "BestEffort" or tolerated:
            return ""
    return f"The node had condition: [{' '.join(conditions)}]. "
