"""Which nodes a pod may go to, and for every other one why not, in the words of kube-scheduler.

Each filter takes all nodes at once and refuses some; the first that refuses a node gives its reason. A refusal is
`final` when the removal of other pods from the node could not lift it (then preemption does not help there).
Source: "Scheduling Framework", "kube-scheduler configuration" (the default plugins and their order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sampan.api import placement
from sampan.base.objects import Object

from .podinfo import PodInfo
from .snapshot import Array, Snapshot


class Refusals:
    """Why nodes were refused: a code a node into a list of reasons; 0 is a node still possible."""

    def __init__(self, size: int) -> None:
        self.code: Array = np.zeros(size, np.int32)
        self.reasons: list[tuple[tuple[str, ...], bool]] = [((), False)]
        self._codes: dict[tuple[tuple[str, ...], bool], int] = {}

    def copy(self) -> Refusals:
        other = Refusals(0)
        other.code, other.reasons, other._codes = self.code.copy(), list(self.reasons), dict(self._codes)
        return other

    @property
    def open(self) -> Array:
        return self.code == 0

    def refuse(self, mask: Array, *reasons: str, final: bool) -> None:
        """`mask` is True where the filter refuses."""
        mask = mask & (self.code == 0)
        if mask.any():
            self.code[mask] = self.number(reasons, final)

    def number(self, reasons: tuple[str, ...], final: bool) -> int:
        """The number that stands for these reasons in an array of all nodes. `final`: no preemption could help."""
        code = self._codes.get((reasons, final))
        if code is None:
            code = self._codes[reasons, final] = len(self.reasons)
            self.reasons.append((reasons, final))
        return code

    def final(self) -> Array:
        return np.array([final for _, final in self.reasons])[self.code]


def tolerates(tolerations: Iterable[Object], taint: Object) -> bool:
    """Whether one of them does."""
    return any(placement.tolerates(t, taint) for t in tolerations)


class Static:
    """What nodes alone decide for a template: kept until a node changes."""

    def __init__(self, info: PodInfo, snapshot: Snapshot) -> None:
        self.refusals = Refusals(snapshot.size)
        self.affine: Array = np.ones(snapshot.size, bool)
        self.untainted: Array = np.ones(snapshot.size, bool)
        tolerations = info.spec.get("tolerations") or ()
        for at, node in enumerate(snapshot.nodes):
            self.affine[at] = placement.fits(info.spec, node)
            hard = [t for t in node["spec"].get("taints") or () if t["effect"] in ("NoSchedule", "NoExecute")]
            bad = next((t for t in hard if not tolerates(tolerations, t)), None)
            self.untainted[at] = bad is None
            reason = _static_reason(node, bad, tolerations, bool(self.affine[at]))
            if reason:
                self.refusals.code[at] = self.refusals.number((reason,), True)


_CORDON = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def _static_reason(node: Object, taint: Object | None, tolerations: Iterable[Object], affine: bool) -> str:
    if node["spec"].get("unschedulable") and not tolerates(tolerations, _CORDON):
        return "node(s) were unschedulable"
    if taint is not None:
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    return "" if affine else "node(s) didn't match Pod's node affinity/selector"


def static(info: PodInfo, snapshot: Snapshot) -> Static:
    """`Static` of this pod: its template's, if that was worked out already."""
    found = snapshot.caches.get(info)
    if found is None:
        found = snapshot.caches[info] = Static(info, snapshot)
    return found


def run(info: PodInfo, snapshot: Snapshot, key: str = "") -> Refusals:
    """All filters, in the order of kube-scheduler."""
    refusals = static(info, snapshot).refusals.copy()
    for apply in FILTERS:
        apply(info, snapshot, refusals, key)
    return refusals


def _host_ports(info: PodInfo, snapshot: Snapshot, refusals: Refusals, key: str) -> None:
    if not info.ports:
        return
    taken = [any(_clash(mine, other) for mine in info.ports for other in used) for used in snapshot.ports]
    reason = "node(s) didn't have free ports for the requested pod ports"
    refusals.refuse(np.array(taken, bool), reason, final=False)


def _clash(a: tuple[str, str, int], b: tuple[str, str, int]) -> bool:
    same_address = a[0] == b[0] or "0.0.0.0" in (a[0], b[0])
    return same_address and a[1:] == b[1:]


def _resources(info: PodInfo, snapshot: Snapshot, refusals: Refusals, key: str) -> None:
    vector = snapshot.vector(info)
    rows = np.flatnonzero(vector)
    wanted = vector[rows, None]
    free = snapshot.allocatable[rows] - snapshot.requested[rows]
    if snapshot.nominated:
        reserved = snapshot.reserved(info.priority, key)
        if reserved is not None:
            free = free - reserved[rows]
    short = wanted > free
    if not short.any():
        return
    never = (wanted > snapshot.allocatable[rows]).any(axis=0)
    names = list(snapshot.resources)
    bits = (short * (1 << np.arange(len(rows)))[:, None]).sum(axis=0)
    for combination in np.unique(bits):
        if combination:
            lacking = [names[row] for i, row in enumerate(rows) if combination >> i & 1]
            lacking.sort(key=lambda n: n != "pods")
            reasons = ["Too many pods" if n == "pods" else f"Insufficient {n}" for n in lacking]
            here = bits == combination
            refusals.refuse(here & never, *reasons, final=True)
            refusals.refuse(here & ~never, *reasons, final=False)


def _spread(info: PodInfo, snapshot: Snapshot, refusals: Refusals, key: str) -> None:
    hard = [s for s in info.spread if s.hard]
    if not hard:
        return
    fixed = static(info, snapshot)
    labelled = np.ones(snapshot.size, bool)
    for s in hard:
        labelled &= snapshot.topology(s.term.topology)[0] >= 0
    reason = "node(s) didn't match pod topology spread constraints"
    for s in hard:
        domains, count = snapshot.topology(s.term.topology)
        refusals.refuse(domains < 0, f"{reason} (missing required label)", final=True)
        counted = labelled.copy()
        if s.honor_affinity:
            counted &= fixed.affine
        if s.honor_taints:
            counted &= fixed.untainted
        matching = np.where(counted, snapshot.counts(s.term), 0)
        sums = np.bincount(domains + 1, weights=matching, minlength=count + 1)[1:]
        present = np.zeros(count, bool)
        present[domains[counted]] = True
        lowest = sums[present].min() if present.sum() >= s.min_domains and present.any() else 0
        own = 1 if snapshot.matches(s.term, info) else 0
        here = sums[np.maximum(domains, 0)] if count else np.zeros(snapshot.size)
        refusals.refuse(here + own - lowest > s.skew, reason, final=False)


def _other_pods(info: PodInfo, snapshot: Snapshot, refusals: Refusals, key: str) -> None:
    """Required affinity, own anti-affinity, and the anti-affinity of pods that are there already."""
    if info.affinity:
        labelled = np.ones(snapshot.size, bool)
        together = np.ones(snapshot.size, bool)
        anywhere = False
        for term in info.affinity:
            counted = snapshot.counts(term)
            labelled &= snapshot.topology(term.topology)[0] >= 0
            anywhere = anywhere or bool((counted * (snapshot.topology(term.topology)[0] >= 0)).any())
            together &= snapshot.by_domain(term.topology, counted) > 0
        first = not anywhere and all(snapshot.matches(t, info) for t in info.affinity)
        allowed = labelled & (together | first)
        refusals.refuse(~allowed, "node(s) didn't match pod affinity rules", final=True)
    for term in info.anti_affinity:
        near = snapshot.by_domain(term.topology, snapshot.counts(term)) > 0
        near &= snapshot.topology(term.topology)[0] >= 0
        refusals.refuse(near, "node(s) didn't match pod anti-affinity rules", final=False)
    for term, counted in snapshot.carriers("anti", info):
        near = snapshot.by_domain(term.topology, counted) > 0
        near &= snapshot.topology(term.topology)[0] >= 0
        refusals.refuse(near, "node(s) didn't satisfy existing pods anti-affinity rules", final=False)


Filter = Callable[[PodInfo, Snapshot, Refusals, str], Any]
FILTERS: list[Filter] = [_host_ports, _resources, _spread, _other_pods]
