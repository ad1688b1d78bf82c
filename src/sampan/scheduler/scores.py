"""Which of the possible nodes is best: each plugin gives every node 0 to 100, its weight says how much that counts.

Source: "Scheduler configuration" (default score plugins and weights). All functions take and give one value a node.
"""

from __future__ import annotations

import math

import numpy as np

from sampan.api import placement

from .filters import tolerates
from .podinfo import PodInfo
from .snapshot import Array, Snapshot

_MB = 1024 * 1024
_IMAGE_LOW, _IMAGE_HIGH = 23 * _MB, 1000 * _MB


def total(info: PodInfo, snapshot: Snapshot, possible: Array) -> Array:
    """The weighted sum, float64. Only values where `possible` are meaningful."""
    score = _resources(info, snapshot)
    fixed = snapshot.caches.get(("scores", info))
    if fixed is None:
        fixed = snapshot.caches["scores", info] = (
            _taints(info, snapshot),
            _affinity(info, snapshot),
            _images(info, snapshot),
        )
    taints, affinity, images = fixed
    if taints is not None:
        score += 3 * _normalized(taints, possible, reverse=True)
    if affinity is not None:
        score += 2 * _normalized(affinity, possible)
    if images is not None:
        score += images
    spread = _spread(info, snapshot, possible)
    if spread is not None:
        score += 2 * spread
    others = _other_pods(info, snapshot)
    if others is not None:
        score += 2 * _between(others, possible)
    return score


def _normalized(values: Array, possible: Array, *, reverse: bool = False) -> Array:
    highest = values[possible].max(initial=0)
    if not highest:
        return np.full(len(values), 100.0 if reverse else 0.0)
    scaled = np.floor(values * 100.0 / highest)
    return 100.0 - scaled if reverse else scaled


def _between(values: Array, possible: Array) -> Array:
    low, high = values[possible].min(), values[possible].max()
    return np.floor((values - low) * 100.0 / (high - low)) if high > low else np.zeros(len(values))


def _resources(info: PodInfo, snapshot: Snapshot) -> Array:
    """Least allocated (the emptier the better) plus balanced allocation (cpu and memory used alike)."""
    wanted = snapshot.scored + np.array([[info.cpu], [info.memory]], np.int64)
    room = np.maximum(snapshot.allocatable[:2], 1)
    used = np.minimum(wanted / room, 1.0)
    least = np.floor((1.0 - used) * 100.0).sum(axis=0) / 2
    balanced = np.floor((1.0 - np.abs(used[0] - used[1]) / 2) * 100.0)
    return np.floor(least) + balanced


def _taints(info: PodInfo, snapshot: Snapshot) -> Array | None:
    """PreferNoSchedule taints that are not tolerated."""
    tolerations = info.spec.get("tolerations") or ()
    found = [
        sum(
            t["effect"] == "PreferNoSchedule" and not tolerates(tolerations, t)
            for t in n["spec"].get("taints") or ()
        )
        for n in snapshot.nodes
    ]
    return np.array(found, np.float64) if any(found) else None


def _affinity(info: PodInfo, snapshot: Snapshot) -> Array | None:
    affinity = (info.spec.get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    if not preferred:
        return None
    found = [
        sum(p["weight"] for p in preferred if placement.node_term(p["preference"], n)) for n in snapshot.nodes
    ]
    return np.array(found, np.float64)


def _images(info: PodInfo, snapshot: Snapshot) -> Array | None:
    """Nodes that have the images already, by size; one that few nodes have draws less, against pile-ups."""
    sizes = []
    holders: dict[str, int] = {}
    for node in snapshot.nodes:
        present = {
            name: i.get("sizeBytes", 0)
            for i in node.get("status", {}).get("images") or ()
            for name in i.get("names") or ()
        }
        mine = {image: present[name] for image in info.images for name in _names(image) if name in present}
        for image in mine:
            holders[image] = holders.get(image, 0) + 1
        sizes.append(mine)
    if not holders:
        return None
    share = {image: count / snapshot.size for image, count in holders.items()}
    summed = np.array([sum(size * share[image] for image, size in mine.items()) for mine in sizes])
    highest = _IMAGE_HIGH * max(1, len(info.images))
    return np.floor((np.clip(summed, _IMAGE_LOW, highest) - _IMAGE_LOW) * 100.0 / (highest - _IMAGE_LOW))


def _names(image: str) -> list[str]:
    tagged = image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
    return list(dict.fromkeys([tagged, f"docker.io/library/{tagged}", f"docker.io/{tagged}"]))


def _spread(info: PodInfo, snapshot: Snapshot, possible: Array) -> Array | None:
    """Preferred spreading: the fewer pods of the kind in a node's domains the better."""
    soft = [s for s in info.spread if not s.hard]
    cost = None
    for s in soft:
        domains, count = snapshot.topology(s.term.topology)
        if not count:
            continue
        here = snapshot.by_domain(s.term.topology, snapshot.counts(s.term))
        weighted = here * math.log(count + 2) + (s.skew - 1)
        weighted = np.where(domains >= 0, weighted, weighted.max(initial=0))
        cost = weighted if cost is None else cost + weighted
    if cost is None:
        return None
    low, high = cost[possible].min(), cost[possible].max()
    if not high:
        return np.full(snapshot.size, 100.0)
    return np.floor(100.0 * (high + low - cost) / high)


def _other_pods(info: PodInfo, snapshot: Snapshot) -> Array | None:
    """Preferred (anti-)affinity, of this pod to others and of others to this pod; required affinity of others, too."""
    score = None
    parts = [(t, w * snapshot.counts(t)) for t, w in info.preferred]
    parts += snapshot.carriers("prefer", info) + snapshot.carriers("require", info)
    for term, weights in parts:
        here = np.where(
            snapshot.topology(term.topology)[0] >= 0, snapshot.by_domain(term.topology, weights), 0
        )
        score = here.astype(np.float64) if score is None else score + here
    return score
