"""What a pod's claims allow: a bound volume ties it to the nodes that reach it, an unbound one waits or is made for it.

Source: "Persistent Volumes", "Storage Classes" (volumeBindingMode). The scheduler chooses; the volume controller binds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from sampan.api import meta, placement, quantity, selectors
from sampan.base.objects import Object

from .decision import SELECTED_NODE
from .filters import Refusals
from .podinfo import PodInfo
from .snapshot import Snapshot

_NO_PROVISIONER = "kubernetes.io/no-provisioner"


@dataclass
class Waiting:
    """A claim that is bound once a node is chosen: to the volume that names it, whatever its class; else to the first
    of `free` (smallest first) that the node reaches; else to one that is made, for the nodes where that may be."""

    claim: Object
    reserved: Object | None = None
    free: list[Object] = field(default_factory=list)
    made_on: Collection[str] = ()


@dataclass
class Needs:
    """`refusal` refuses every node; `bound` volumes restrict nodes; `waiting` claims are bound after the choice."""

    refusal: str = ""
    bound: list[Object] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)


def needs(info: PodInfo, snapshot: Snapshot) -> Needs:
    """What the pod's claims ask of a node, or why there can be none yet."""
    result = Needs()
    for name in info.claims:
        claim = snapshot.claims.get((info.namespace, name))
        if claim is None:
            return Needs(f'persistentvolumeclaim "{name}" not found')
        if meta.deleted(claim):
            return Needs(f'persistentvolumeclaim "{name}" is being deleted')
        if claim.get("status", {}).get("phase") == "Lost":
            volume = claim["spec"].get("volumeName", "")
            return Needs(f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"')
        volume = snapshot.volumes.get(claim["spec"].get("volumeName", ""))
        if volume is not None and "pv.kubernetes.io/bind-completed" in meta.annotations(claim):
            result.bound.append(volume)
        elif waits(claim, snapshot):
            result.waiting.append(_waiting(claim, snapshot))
        else:
            return Needs("pod has unbound immediate PersistentVolumeClaims")
    result.waiting.sort(key=lambda waiting: _size(waiting.claim))
    return result


def waits(claim: Object, snapshot: Snapshot) -> bool:
    """Whether its class leaves it unbound until a pod that uses it has a node; one that names its volume does not wait."""
    found = snapshot.classes.get(claim["spec"].get("storageClassName") or "")
    late = found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"
    return late and not claim["spec"].get("volumeName")


def restrict(found: Needs, snapshot: Snapshot, refusals: Refusals) -> None:
    """Refuses the nodes that a bound volume does not reach, or where a waiting claim finds none."""
    for volume in found.bound:
        mask = np.array([not reaches(volume, n) for n in snapshot.nodes], bool)
        refusals.refuse(mask, "node(s) had volume node affinity conflict", final=True)
    if found.waiting:
        mask = np.array([choose(found.waiting, n) is None for n in snapshot.nodes], bool)
        refusals.refuse(mask, "node(s) didn't find available persistent volumes to bind", final=True)


def choose(claims: list[Waiting], node: Object) -> list[tuple[Object, Object | None]] | None:
    """Each claim with the volume it gets when its pod runs on `node`, or with None for one to be made.

    None instead when there is a claim without any. Source: "Persistent Volumes", section "Binding".
    """
    taken: set[str] = set()
    result: list[tuple[Object, Object | None]] = []
    for waiting in claims:
        volume = waiting.reserved
        if volume is not None and not reaches(volume, node):
            return None
        if volume is None:
            free = (v for v in waiting.free if meta.name(v) not in taken and reaches(v, node))
            volume = next(free, None)
        if volume is not None:
            taken.add(meta.name(volume))
        elif meta.name(node) not in waiting.made_on:
            return None
        result.append((waiting.claim, volume))
    return result


def reaches(volume: Object, node: Object) -> bool:
    """PersistentVolume.spec.nodeAffinity; one without it is reached from everywhere."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return placement.matches(required, node)


def _waiting(claim: Object, snapshot: Snapshot) -> Waiting:
    """What another pod that uses the claim has begun holds for this one, too."""
    key = meta.namespace(claim), meta.name(claim)
    node, name = snapshot.chosen.get(key, (meta.annotations(claim).get(SELECTED_NODE, ""), ""))
    reserved = snapshot.volumes.get(name) or _reserved(claim, snapshot)
    if reserved is not None:
        return Waiting(claim, reserved)
    waiting = Waiting(claim, free=[] if key in snapshot.chosen else _free(claim, snapshot))
    found = snapshot.classes.get(claim["spec"].get("storageClassName") or "") or {}
    if found.get("provisioner", _NO_PROVISIONER) != _NO_PROVISIONER:
        terms = found.get("allowedTopologies")
        if node in snapshot.index:
            waiting.made_on = (node,)
        elif terms:
            waiting.made_on = {meta.name(n) for n in snapshot.nodes if placement.in_topologies(terms, n)}
        else:
            waiting.made_on = snapshot.index
    return waiting


def _reserved(claim: Object, snapshot: Snapshot) -> Object | None:
    for volume in snapshot.volumes.values():
        ref = volume["spec"].get("claimRef") or {}
        same = ref.get("namespace") == meta.namespace(claim) and ref.get("name") == meta.name(claim)
        if same and ref.get("uid") in (None, "", meta.uid(claim)):
            return volume
    return None


def _free(claim: Object, snapshot: Snapshot) -> list[Object]:
    """Volumes that fit and that nobody has or was promised, smallest first."""
    spec, size = claim["spec"], _size(claim)
    selector = selectors.from_object(spec.get("selector")) if spec.get("selector") else None
    promised = {volume for _, volume in snapshot.chosen.values()}
    fitting = []
    for name, volume in snapshot.volumes.items():
        if volume["spec"].get("claimRef") or name in promised:
            continue
        if volume.get("status", {}).get("phase", "Available") != "Available":
            continue
        if volume["spec"].get("storageClassName", "") != spec.get("storageClassName", ""):
            continue
        if not set(spec.get("accessModes") or ()) <= set(volume["spec"].get("accessModes") or ()):
            continue
        if selector and not selector.matches(meta.labels(volume)):
            continue
        if (capacity := quantity.value(volume["spec"]["capacity"]["storage"])) >= size:
            fitting.append((capacity, name))
    return [snapshot.volumes[name] for _, name in sorted(fitting)]


def _size(claim: Object) -> int:
    return quantity.value(claim["spec"]["resources"]["requests"]["storage"])
