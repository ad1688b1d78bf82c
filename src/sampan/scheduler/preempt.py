"""Preemption: which pods of lower priority must go so that this one fits, and on which node that costs least.

Source: "Pod Priority and Preemption". Victims are spared again as long as the pod still fits: first those that a
PodDisruptionBudget protects, then the most important. A budget is broken only where every other way is closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.base.clock import rfc3339_parse

from . import filters
from .podinfo import PodInfo
from .snapshot import Placed, Snapshot

_CANDIDATES = 100  # nodes looked at, as kube-scheduler's minimum


@dataclass
class Victims:
    """Remove `pods` from `node` and the pod fits there."""

    node: str
    pods: list[Placed]


def still_leaving(key: str, info: PodInfo, snapshot: Snapshot) -> bool:
    """Whether victims of an earlier round are still on the node that the pod counts on."""
    at = snapshot.index.get(snapshot.nominated[key][1]) if key in snapshot.nominated else None
    if at is None:
        return False
    return any(p.terminating and p.info.priority < info.priority for p in snapshot.on_node[at].values())


def find_victims(key: str, info: PodInfo, snapshot: Snapshot, nodes: Iterable[int]) -> Victims | None:
    """The cheapest node among those where other pods are what is in the way; None when there is none.

    `nodes` are the columns that a filter refused for a reason that other pods cause.
    """
    best: tuple[tuple[float, ...], Victims] | None = None
    looked = 0
    for at in nodes:
        lower = [p for p in snapshot.on_node[at].values() if p.info.priority < info.priority]
        if not lower:
            continue
        looked += 1
        if looked > _CANDIDATES:
            break
        protected = _protected(lower, snapshot) if snapshot.budgets else set()
        victims = _minimal(key, info, snapshot, int(at), lower, protected)
        if victims:
            cost = _cost(victims, protected)
            if best is None or cost < best[0]:
                best = (cost, Victims(snapshot.names[at], victims))
    return best[1] if best else None


def _important_first(placed: Placed) -> tuple[int, str, str]:
    return (-placed.info.priority, placed.started or "~", placed.key)


def _protected(lower: list[Placed], snapshot: Snapshot) -> set[str]:
    """Keys of the pods whose loss would break a budget, once those before them had been lost."""
    left = {key: budget.allowed for key, budget in snapshot.budgets.items()}
    found = set()
    for placed in sorted(lower, key=_important_first):
        for key, budget in snapshot.budgets.items():
            if not budget.covers(placed.namespace, placed.name, placed.info.labels):
                continue
            left[key] -= 1
            if left[key] < 0:
                found.add(placed.key)
    return found


def _cost(victims: list[Placed], protected: set[str]) -> tuple[float, ...]:
    """Fewest broken budgets, then lowest highest priority, then lowest sum, then fewest, then the node whose most
    important victims have run for the shortest time."""
    priorities = [v.info.priority for v in victims]
    broken = sum(v.key in protected for v in victims)
    since = min(_started(v) for v in victims if v.info.priority == max(priorities))
    return (broken, max(priorities), sum(priorities), len(victims), -since)


def _started(placed: Placed) -> float:
    return rfc3339_parse(placed.started) if placed.started else math.inf


def _minimal(
    key: str, info: PodInfo, snapshot: Snapshot, at: int, lower: list[Placed], protected: set[str]
) -> list[Placed]:
    """Takes all of lower priority away, puts back whom it can. The snapshot is as before when it returns."""
    ordered = sorted(lower, key=lambda p: (p.key not in protected, _important_first(p)))
    for placed in ordered:
        snapshot.lift(placed)
    victims = []
    if _fits(key, info, snapshot, at):
        for placed in ordered:
            snapshot.drop(placed, at)
            if not _fits(key, info, snapshot, at):
                snapshot.lift(placed)
                victims.append(placed)
        for placed in victims:
            snapshot.drop(placed, at)
    else:
        for placed in ordered:
            snapshot.drop(placed, at)
    return victims


def _fits(key: str, info: PodInfo, snapshot: Snapshot, at: int) -> bool:
    return bool(filters.run(info, snapshot, key).open[at])
