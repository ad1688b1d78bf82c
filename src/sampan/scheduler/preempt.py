"""Preemption: which pods of lower priority must go so that this one fits, and on which node that costs least.

Source: "Pod Priority and Preemption". Victims are spared again, the most important first, as long as the pod still fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import filters
from .podinfo import Object, PodInfo
from .snapshot import Placed, Snapshot

_CANDIDATES = 100  # nodes looked at, as kube-scheduler's minimum


@dataclass
class Victims:
    """Remove `pods` from `node` and the pod fits there."""

    node: str
    pods: list[Placed]


def find_victims(pod: Object, info: PodInfo, snapshot: Snapshot, nodes: Iterable[int]) -> Victims | None:
    """The cheapest node among those where other pods are what is in the way; None when there is none.

    `nodes` are the columns that a filter refused for a reason that other pods cause.
    """
    if any(p.terminating and p.info.priority < info.priority for p in _on(pod, snapshot)):
        return None  # victims of an earlier round are still leaving
    best: tuple[tuple[float, ...], Victims] | None = None
    looked = 0
    for at in nodes:
        lower = [p for p in snapshot.on_node[at].values() if p.info.priority < info.priority]
        if not lower:
            continue
        looked += 1
        if looked > _CANDIDATES:
            break
        victims = _minimal(info, snapshot, int(at), lower)
        if victims:
            cost = _cost(victims)
            if best is None or cost < best[0]:
                best = (cost, Victims(snapshot.names[at], victims))
    return best[1] if best else None


def _on(pod: Object, snapshot: Snapshot) -> Iterable[Placed]:
    at = snapshot.index.get(pod.get("status", {}).get("nominatedNodeName", ""))
    return () if at is None else snapshot.on_node[at].values()


def _cost(victims: list[Placed]) -> tuple[float, ...]:
    """Lowest highest priority, then lowest sum, then fewest."""
    priorities = [v.info.priority for v in victims]
    return (max(priorities), sum(priorities), len(victims))


def _minimal(info: PodInfo, snapshot: Snapshot, at: int, lower: list[Placed]) -> list[Placed]:
    """Takes all of lower priority away, puts back whom it can. The snapshot is as before when it returns."""
    ordered = sorted(lower, key=lambda p: (-p.info.priority, p.started or "~", p.key))
    for placed in ordered:
        snapshot.lift(placed)
    victims = []
    if _fits(info, snapshot, at):
        for placed in ordered:
            snapshot.drop(placed, at)
            if not _fits(info, snapshot, at):
                snapshot.lift(placed)
                victims.append(placed)
        for placed in victims:
            snapshot.drop(placed, at)
    else:
        for placed in ordered:
            snapshot.drop(placed, at)
    return victims


def _fits(info: PodInfo, snapshot: Snapshot, at: int) -> bool:
    return bool(filters.run(info, snapshot).open[at])
