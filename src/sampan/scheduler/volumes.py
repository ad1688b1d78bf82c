"""What a pod's claims allow: a bound volume ties it to the nodes that reach it, an unbound one waits or is made for it.

Source: "Persistent Volumes", "Storage Classes" (volumeBindingMode). The scheduler chooses; the volume controller binds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sampan.api import meta, placement, quantity, selectors
from sampan.base.objects import Object

from .filters import Refusals
from .podinfo import PodInfo
from .snapshot import Snapshot

_NO_PROVISIONER = "kubernetes.io/no-provisioner"


@dataclass
class Needs:
    """`refusal` refuses every node; `bound` volumes restrict nodes; `waiting` claims are bound after the choice."""

    refusal: str = ""
    bound: list[Object] = field(default_factory=list)
    waiting: list[Object] = field(default_factory=list)


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
            result.waiting.append(claim)
        else:
            return Needs("pod has unbound immediate PersistentVolumeClaims")
    return result


def waits(claim: Object, snapshot: Snapshot) -> bool:
    """Whether its class leaves it unbound until a pod that uses it has a node."""
    found = snapshot.classes.get(claim["spec"].get("storageClassName") or "")
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"


def restrict(found: Needs, snapshot: Snapshot, refusals: Refusals) -> None:
    """Refuses the nodes that a bound volume does not reach, or that no volume for a waiting claim reaches."""
    for volume in found.bound:
        mask = np.array([not reaches(volume, n) for n in snapshot.nodes], bool)
        refusals.refuse(mask, "node(s) had volume node affinity conflict", final=True)
    for claim in found.waiting:
        if not provisioned(claim, snapshot):
            mask = np.array([choose(claim, n, snapshot) is None for n in snapshot.nodes], bool)
            refusals.refuse(mask, "node(s) didn't find available persistent volumes to bind", final=True)


def provisioned(claim: Object, snapshot: Snapshot) -> bool:
    """Whether a volume is made on demand."""
    found = snapshot.classes.get(claim["spec"].get("storageClassName") or "") or {}
    return found.get("provisioner", _NO_PROVISIONER) != _NO_PROVISIONER


def reaches(volume: Object, node: Object) -> bool:
    """PersistentVolume.spec.nodeAffinity; one without it is reached from everywhere."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return placement.matches(required, node)


def choose(claim: Object, node: Object, snapshot: Snapshot) -> Object | None:
    """The smallest free volume that fits the claim and that the node reaches."""
    spec = claim["spec"]
    size = quantity.value(spec["resources"]["requests"]["storage"])
    selector = selectors.from_object(spec.get("selector")) if spec.get("selector") else None
    fitting = []
    for volume in snapshot.volumes.values():
        ref = volume["spec"].get("claimRef") or {}
        mine = ref.get("namespace") == meta.namespace(claim) and ref.get("name") == meta.name(claim)
        if (ref and not mine) or (
            volume.get("status", {}).get("phase", "Available") != "Available" and not mine
        ):
            continue
        if volume["spec"].get("storageClassName", "") != spec.get("storageClassName", ""):
            continue
        if not set(spec.get("accessModes") or ()) <= set(volume["spec"].get("accessModes") or ()):
            continue
        if selector and not selector.matches(meta.labels(volume)):
            continue
        capacity = quantity.value(volume["spec"]["capacity"]["storage"])
        if capacity >= size and reaches(volume, node):
            fitting.append((not mine, capacity, meta.name(volume), volume))
    return min(fitting, key=lambda f: f[:3])[3] if fitting else None
