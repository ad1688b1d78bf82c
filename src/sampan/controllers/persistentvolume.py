"""Volumes and claims find each other; volumes of the local-path class are made when a pod first needs them.

Source: API reference PersistentVolume and PersistentVolumeClaim v1, "Persistent Volumes" (binding, reclaiming).
"""

from __future__ import annotations

from sampan.api import meta, placement, quantity, selectors
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Event, Key, Patch, Plan, View

from . import pods
from .base import Rule, status_patch

_PV, _PVC, _CLASSES = "persistentvolumes", "persistentvolumeclaims", "storageclasses.storage.k8s.io"
_DONE, _OURS = "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"
_BY = "pv.kubernetes.io/provisioned-by"
_SELECTED = "volume.kubernetes.io/selected-node"
_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
_NONE = "kubernetes.io/no-provisioner"
_PVC_HELD, _PV_HELD = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"
LOCAL_PATH = "sampan.io/local-path"
_AGAIN = 15.0  # seconds until a directory that could not be made or removed is tried again


def rules(directory: str) -> list[Rule]:
    """`directory` is where nodes keep volumes of the local-path provisioner; the runner's effects `make-volume` and
    `remove-volume` make and remove what is in it. Without one, provisioning and removing are others' work."""

    def bind(claim: Object, view: View, now: float) -> Plan:
        return reconcile_claim(claim, view, directory)

    def keep(volume: Object, view: View, now: float) -> Plan:
        return reconcile_volume(volume, view, directory)

    return [
        Rule(
            "persistent-volume-binder", _PVC, bind, {_PV: _claims_for, _CLASSES: _pending}, reads=("nodes",)
        ),
        Rule("persistent-volume-binder/volumes", _PV, keep, {_PVC: _volume_of}),
        Rule("pvc-protection-controller", _PVC, protect_claim, {"pods": _claims_of}),
        Rule("pv-protection-controller", _PV, protect_volume),
    ]


def _claims_for(volume: Object, view: View) -> list[Key]:
    """The claim that it is kept for, or all that may take it: others would only say once more what they wait for."""
    ref = volume["spec"].get("claimRef")
    if ref:
        return [Key(ref["namespace"], ref["name"])]
    return [_key(c) for c in _unbound(view) if _may_take(c, volume, view)]


def _pending(_changed: Object, view: View) -> list[Key]:
    return [_key(c) for c in _unbound(view)]


def _unbound(view: View) -> list[Object]:
    return [c for c in view.list(_PVC) if _DONE not in meta.annotations(c)]


def _key(claim: Object) -> Key:
    return Key(meta.namespace(claim), meta.name(claim))


def _may_take(claim: Object, volume: Object, view: View) -> bool:
    if claim["spec"].get("volumeName"):
        return bool(claim["spec"]["volumeName"] == meta.name(volume))
    return _same_class(claim, volume) and not _waits(claim, view)


def _same_class(claim: Object, volume: Object) -> bool:
    return bool(volume["spec"].get("storageClassName", "") == (claim["spec"].get("storageClassName") or ""))


def _waits(claim: Object, view: View) -> bool:
    """For a pod that uses it, whose node says where its volume has to be."""
    storage = view.get(_CLASSES, claim["spec"].get("storageClassName") or "") or {}
    waits = storage.get("volumeBindingMode") == "WaitForFirstConsumer"
    return waits and _SELECTED not in meta.annotations(claim)


def _volume_of(claim: Object, view: View) -> list[Key]:
    found = [claim["spec"]["volumeName"]] if claim["spec"].get("volumeName") else []
    found += [meta.name(v) for v in view.list(_PV) if _refers(v, claim)]
    return [Key("", name) for name in dict.fromkeys(found)]


def _refers(volume: Object, claim: Object) -> bool:
    ref = volume["spec"].get("claimRef") or {}
    same = ref.get("name") == meta.name(claim) and ref.get("namespace") == meta.namespace(claim)
    return same and ref.get("uid") in (None, "", meta.uid(claim))


def reconcile_claim(claim: Object, view: View, directory: str) -> Plan:
    """Binds a claim to the volume it names, one that names it, or the smallest that fits; else has one made in `directory`.

    A claim that was bound and whose volume is gone is Lost. Source: "Persistent Volumes", section "Binding".
    """
    plan, name = Plan(), claim["spec"].get("volumeName", "")
    volume = view.get(_PV, name) if name else None
    if _DONE in meta.annotations(claim):
        if volume is None or not _refers(volume, claim):
            text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            if claim.get("status", {}).get("phase") != "Lost":
                plan.events.append(Event(claim, "Warning", "ClaimLost", text))
            return plan.then(*_phase(claim, "Lost"))
        return _expand(plan, claim, volume).then(*_phase(claim, "Bound", volume))
    if meta.deleted(claim):
        return plan
    if name:
        if volume is not None and (_refers(volume, claim) or not volume["spec"].get("claimRef")):
            return _bind(plan, claim, volume)
        return plan.then(*_phase(claim, "Pending"))
    mine = next((v for v in view.list(_PV) if _refers(v, claim)), None)
    if mine is None and _waits(claim, view):
        text = "waiting for first consumer to be created before binding"
        plan.events.append(Event(claim, "Normal", "WaitForFirstConsumer", text))
        return plan.then(*_phase(claim, "Pending"))
    volume = mine or smallest(claim, view)
    if volume is not None:
        return _bind(plan, claim, volume)
    storage = view.get(_CLASSES, claim["spec"].get("storageClassName") or "")
    return _provision(plan, claim, storage, view, directory).then(*_phase(claim, "Pending"))


def _expand(plan: Plan, claim: Object, volume: Object) -> Plan:
    """A claim whose class let it grow: a directory has no size of its own, so only the volume has to say so."""
    wanted = claim["spec"]["resources"]["requests"]["storage"]
    ours = meta.annotations(volume).get(_BY) == LOCAL_PATH
    if not ours or quantity.value(wanted) <= quantity.value(volume["spec"]["capacity"]["storage"]):
        return plan
    plan.why = f"grows to {wanted}"
    plan.events.append(Event(claim, "Normal", "VolumeResizeSuccessful", "Resize volume succeeded"))
    return plan.then(Patch(_PV, meta.name(volume), {"spec": {"capacity": {"storage": wanted}}}))


def smallest(claim: Object, view: View) -> Object | None:
    """The smallest free volume that fits: class, modes, size, selector, and the node that was chosen."""
    spec = claim["spec"]
    size = quantity.value(spec["resources"]["requests"]["storage"])
    selector = selectors.from_object(spec["selector"]) if spec.get("selector") else None
    node = view.get("nodes", meta.annotations(claim).get(_SELECTED, ""))
    fitting = [
        v
        for v in view.list(_PV)
        if not v["spec"].get("claimRef")
        and not meta.deleted(v)
        and _same_class(claim, v)
        and v["spec"].get("volumeMode", "Filesystem") == spec.get("volumeMode", "Filesystem")
        and set(spec.get("accessModes") or ()) <= set(v["spec"].get("accessModes") or ())
        and quantity.value(v["spec"]["capacity"]["storage"]) >= size
        and (selector is None or selector.matches(meta.labels(v)))
        and (node is None or placement.matches((v["spec"].get("nodeAffinity") or {}).get("required"), node))
    ]
    return min(
        fitting, key=lambda v: (quantity.value(v["spec"]["capacity"]["storage"]), meta.name(v)), default=None
    )


def _bind(plan: Plan, claim: Object, volume: Object) -> Plan:
    """Volume first, then claim: a crash between leaves a volume that knows its claim, and is taken up again."""
    plan.why = f"binds {meta.name(volume)}"
    ref = {k: v for k, v in meta.object_ref(claim).items()} | {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
    }
    if (volume["spec"].get("claimRef") or {}).get("uid") != meta.uid(claim):
        change: Object = {"resourceVersion": meta.resource_version(volume)}
        if not volume["spec"].get("claimRef"):
            change["annotations"] = {_OURS: "yes"}
        plan.then(Patch(_PV, meta.name(volume), {"metadata": change, "spec": {"claimRef": ref}}))
    plan.then(*status_patch(_PV, volume, volume.get("status", {}) | {"phase": "Bound"}))
    marks = {_DONE: "yes"} | ({} if claim["spec"].get("volumeName") else {_OURS: "yes"})
    patch = {"metadata": {"annotations": marks}, "spec": {"volumeName": meta.name(volume)}}
    plan.then(Patch(_PVC, meta.name(claim), patch, meta.namespace(claim)))
    return plan.then(*_phase(claim, "Bound", volume))


def _phase(claim: Object, phase: str, volume: Object | None = None) -> list[Patch]:
    status = claim.get("status", {}) | {"phase": phase}
    if volume is not None:
        status |= {
            "accessModes": volume["spec"].get("accessModes"),
            "capacity": volume["spec"].get("capacity"),
        }
    return status_patch(_PVC, claim, status)


def _provision(plan: Plan, claim: Object, storage: Object | None, view: View, directory: str) -> Plan:
    """Makes a volume, when the class is ours; says who should otherwise."""
    provisioner = (storage or {}).get("provisioner", _NONE)
    if storage is None or provisioner == _NONE:
        wanted = claim["spec"].get("storageClassName")
        text = "no persistent volumes available for this claim and no storage class is set"
        if wanted and storage is None:
            text = f'storageclass.storage.k8s.io "{wanted}" not found'
        reason = "ProvisioningFailed" if wanted and storage is None else "FailedBinding"
        plan.events.append(Event(claim, "Warning" if wanted and storage is None else "Normal", reason, text))
        return plan
    if meta.annotations(claim).get(_PROVISIONER) != provisioner:
        patch = {"metadata": {"annotations": {_PROVISIONER: provisioner}}}
        plan.then(Patch(_PVC, meta.name(claim), patch, meta.namespace(claim)))
    if provisioner != LOCAL_PATH or not directory:
        text = f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator."
        plan.events.append(Event(claim, "Normal", "ExternalProvisioning", text))
        return plan
    terms = storage.get("allowedTopologies")
    allowed = (meta.name(n) for n in view.list("nodes") if placement.in_topologies(terms, n))
    node = meta.annotations(claim).get(_SELECTED) or next(allowed, "")
    if not node:
        return plan
    made = _local_volume(claim, storage, node, directory)
    read = ("effect:make-volume", "", meta.name(made))
    if read not in view.fetched:
        return Plan(reads=[read])
    if error := (view.fetched[read] or {}).get("error"):
        plan.events.append(Event(claim, "Warning", "ProvisioningFailed", error))
        return plan.requeue(_AGAIN)
    plan.why = f"makes {meta.name(made)} on {node}"
    text = f"Successfully provisioned volume {meta.name(made)}"
    plan.events.append(Event(claim, "Normal", "ProvisioningSucceeded", text))
    return plan.then(Create(_PV, made, exists_ok=True))


def _local_volume(claim: Object, storage: Object, node: str, directory: str) -> Object:
    name = f"pvc-{meta.uid(claim)}"
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    ref = meta.object_ref(claim) | {"kind": "PersistentVolumeClaim", "apiVersion": "v1"}
    spec = {
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        "accessModes": claim["spec"].get("accessModes"),
        "persistentVolumeReclaimPolicy": storage.get("reclaimPolicy", "Delete"),
        "storageClassName": meta.name(storage),
        "volumeMode": claim["spec"].get("volumeMode", "Filesystem"),
        "hostPath": {"path": f"{directory}/{name}", "type": "DirectoryOrCreate"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
        "claimRef": ref,
    }
    metadata = {"name": name, "annotations": {_BY: LOCAL_PATH}, "finalizers": [_PV_HELD]}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


def reconcile_volume(volume: Object, view: View, directory: str = "") -> Plan:
    """Available without a claim, Bound with one, Released after it; then what the reclaim policy says."""
    plan, ref = Plan(), volume["spec"].get("claimRef") or {}
    status = volume.get("status", {})
    if not ref.get("uid"):
        return plan.then(*status_patch(_PV, volume, status | {"phase": "Available"}))
    claim = view.get(_PVC, ref["name"], ref["namespace"])
    if claim is None or meta.uid(claim) != ref["uid"]:
        read = (_PVC, ref["namespace"], ref["name"])
        if read not in view.fetched:
            return Plan(reads=[read])
        claim = view.fetched[read]
    if claim is not None and meta.uid(claim) == ref["uid"]:
        bound = claim["spec"].get("volumeName") == meta.name(volume)
        return plan.then(*status_patch(_PV, volume, status | {"phase": "Bound"})) if bound else plan
    plan.why = "its claim is gone"
    empties = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete" and not meta.deleted(volume)
    if empties and "local" in volume["spec"]:
        text = f'error getting deleter volume plugin for volume "{meta.name(volume)}": no deletable volume plugin matched'
        if status.get("phase") != "Failed":
            plan.events.append(Event(volume, "Warning", "VolumeFailedDelete", text))
        return plan.then(*status_patch(_PV, volume, status | {"phase": "Failed", "message": text}))
    plan.then(*status_patch(_PV, volume, status | {"phase": "Released"}))
    if empties and directory and meta.annotations(volume).get(_BY) == LOCAL_PATH:
        return _remove(plan, volume, view)
    return plan


def _remove(plan: Plan, volume: Object, view: View) -> Plan:
    """What a volume holds goes first: a crash between the two is repaired by trying again."""
    read = ("effect:remove-volume", "", meta.name(volume))
    if read not in view.fetched:
        return Plan(reads=[read])
    if error := (view.fetched[read] or {}).get("error"):
        plan.events.append(Event(volume, "Warning", "VolumeFailedDelete", error))
        status = volume.get("status", {}) | {"phase": "Failed", "message": error}
        return plan.then(*status_patch(_PV, volume, status)).requeue(_AGAIN)
    return plan.then(Delete(_PV, meta.name(volume), uid=meta.uid(volume)))


def _claims_of(pod: Object, view: View) -> list[Key]:
    if not (
        meta.deleted(pod)
        or pods.finished(pod)
        or view.get("pods", meta.name(pod), meta.namespace(pod)) is None
    ):
        return []
    return [Key(meta.namespace(pod), name) for name in _used(pod)]


def _used(pod: Object) -> list[str]:
    volumes = pod["spec"].get("volumes") or ()
    named = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
    return named + [f"{meta.name(pod)}-{v['name']}" for v in volumes if "ephemeral" in v]


def protect_claim(claim: Object, view: View, now: float) -> Plan:
    """A claim under deletion stays as long as a pod uses it."""
    plan = Plan()
    if not meta.deleted(claim) or _PVC_HELD not in meta.finalizers(claim):
        return plan
    users = [
        p
        for p in view.list("pods", meta.namespace(claim))
        if meta.name(claim) in _used(p) and not pods.finished(p)
    ]
    if users:
        plan.why = f"is used by {meta.name(users[0])}"
        return plan
    return plan.then(_freed(_PVC, claim, _PVC_HELD))


def protect_volume(volume: Object, view: View, now: float) -> Plan:
    """A volume under deletion stays as long as it is bound."""
    if not meta.deleted(volume) or _PV_HELD not in meta.finalizers(volume):
        return Plan()
    if volume.get("status", {}).get("phase") == "Bound":
        return Plan(why="is bound")
    return Plan().then(_freed(_PV, volume, _PV_HELD))


def _freed(resource: str, obj: Object, finalizer: str) -> Patch:
    left = [f for f in meta.finalizers(obj) if f != finalizer]
    change = {"resourceVersion": meta.resource_version(obj), "finalizers": left or None}
    return Patch(resource, meta.name(obj), {"metadata": change}, meta.namespace(obj), missing_ok=True)
