"""Small defaults that depend on the cluster: classes of storage and ingress, protection in use, a new node's taint.

DefaultStorageClass, DefaultIngressClass, StorageObjectInUseProtection, TaintNodesByCondition, PodTopologyLabels.
"""

from __future__ import annotations

from sampan.server.admission.attrs import CREATE, Attrs, Context, Plugin, only

_STORAGE_CLASSES = "storageclasses.storage.k8s.io"
_INGRESS_CLASSES = "ingressclasses.networking.k8s.io"
_STORAGE_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_INGRESS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_TOPOLOGY = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


def _newest_default(ctx: Context, bucket: str, mark: str) -> str:
    """The name of the class marked as default; of several the newest, then the first by name."""
    marked = [
        c for c in ctx.lookup.list(bucket) if (c["metadata"].get("annotations") or {}).get(mark) == "true"
    ]
    newest = max((c["metadata"].get("creationTimestamp") or "" for c in marked), default="")
    names = [
        c["metadata"]["name"] for c in marked if (c["metadata"].get("creationTimestamp") or "") == newest
    ]
    return min(names, default="")


def storage_class(attrs: Attrs, ctx: Context) -> None:
    """Of several default classes the newest; a claim that says "" wants none. Source: "Storage Classes"."""
    claim = attrs.obj or {}
    spec = claim.setdefault("spec", {})
    annotations = claim["metadata"].get("annotations") or {}
    if spec.get("storageClassName") is None and "volume.beta.kubernetes.io/storage-class" not in annotations:
        name = _newest_default(ctx, _STORAGE_CLASSES, _STORAGE_DEFAULT)
        if name:
            spec["storageClassName"] = name


def ingress_class(attrs: Attrs, ctx: Context) -> None:
    """Of several default classes the newest; the annotation of older versions counts as a class that is named."""
    ingress = attrs.obj or {}
    spec = ingress.setdefault("spec", {})
    annotations = ingress["metadata"].get("annotations") or {}
    if spec.get("ingressClassName") is None and "kubernetes.io/ingress.class" not in annotations:
        name = _newest_default(ctx, _INGRESS_CLASSES, _INGRESS_DEFAULT)
        if name:
            spec["ingressClassName"] = name


def in_use_protection(attrs: Attrs, ctx: Context) -> None:
    """A finalizer holds what is in use. Source: "Persistent Volumes", storage object in use protection."""
    finalizer = "kubernetes.io/pvc-protection" if attrs.row.namespaced else "kubernetes.io/pv-protection"
    meta = (attrs.obj or {})["metadata"]
    if finalizer not in (meta.get("finalizers") or ()):
        meta["finalizers"] = [*(meta.get("finalizers") or ()), finalizer]


def taint_new_node(attrs: Attrs, ctx: Context) -> None:
    """No pod lands on a node before its conditions are known."""
    spec = (attrs.obj or {}).setdefault("spec", {})
    taints = spec.get("taints") or []
    if not any(t.get("key") == _NOT_READY["key"] and t.get("effect") == _NOT_READY["effect"] for t in taints):
        spec["taints"] = [*taints, dict(_NOT_READY)]


def topology_labels(attrs: Attrs, ctx: Context) -> None:
    """A binding carries zone and region of its node to the pod."""
    binding = attrs.obj or {}
    target = binding.get("target") or {}
    node = (
        ctx.lookup.get("nodes", target.get("name", ""))
        if target.get("kind", "Node") in ("", "Node")
        else None
    )
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    found = {k: labels[k] for k in _TOPOLOGY if k in labels}
    if found:
        meta = binding.setdefault("metadata", {})
        meta["labels"] = {**(meta.get("labels") or {}), **found}


STORAGE_CLASS = Plugin(
    "DefaultStorageClass", only("persistentvolumeclaims"), only(CREATE), admit=storage_class
)
INGRESS_CLASS = Plugin(
    "DefaultIngressClass", only("ingresses.networking.k8s.io"), only(CREATE), admit=ingress_class
)
IN_USE_PROTECTION = Plugin(
    "StorageObjectInUseProtection",
    only("persistentvolumeclaims", "persistentvolumes"),
    only(CREATE),
    admit=in_use_protection,
)
TAINT_NODES = Plugin("TaintNodesByCondition", only("nodes"), only(CREATE), admit=taint_new_node)
TOPOLOGY_LABELS = Plugin(
    "PodTopologyLabels", only("pods"), only(CREATE), admit=topology_labels, subresources=only("binding")
)
