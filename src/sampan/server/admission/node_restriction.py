"""A node writes only about itself and its own pods, and cannot make itself attractive to pods it should not get.

Source: Kubernetes documentation, "NodeRestriction"; KEP-279.
"""

from __future__ import annotations

from typing import Any

from sampan.base.objects import Object
from sampan.server.admission.attrs import CREATE, DELETE, UPDATE, Attrs, Context, Plugin, only
from sampan.server.auth.node_authorizer import node_name, references

_MIRROR = "kubernetes.io/config.mirror"
# Labels with kubernetes.io or k8s.io in them that a kubelet may set on its own Node.
_OWN_LABELS = frozenset(
    (
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/windows-build",
    )
)
_OWN_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_TAKEN_REFS = {
    "secrets": "secrets",
    "configmaps": "configmaps",
    "persistentvolumeclaims": "persistentvolumeclaims",
}


def admit(attrs: Attrs, ctx: Context) -> None:
    """Raises 403 where a node (by its user name) goes beyond itself; other users are not concerned."""
    node = node_name(attrs.user)
    if not node:
        return
    rule = _RULES.get(attrs.row.name)
    if rule is not None:
        rule(attrs, ctx, node)


def _pods(attrs: Attrs, ctx: Context, node: str) -> None:
    if attrs.subresource == "eviction":
        _own_pod(attrs, ctx, node, "evict")
    elif attrs.subresource == "status":
        _own_pod(attrs, ctx, node, "update status for", attrs.old)
        if (attrs.obj or {})["metadata"].get("labels") != (attrs.old or {})["metadata"].get("labels"):
            raise attrs.forbidden(f'node "{node}" cannot update labels through pod status')
    elif attrs.subresource:
        if attrs.subresource not in ("resize",):
            raise attrs.forbidden(f'unexpected pod subresource "{attrs.subresource}"')
        _own_pod(attrs, ctx, node, "resize", attrs.old)
    elif attrs.op == CREATE:
        _mirror_pod(attrs, node)
    elif attrs.op == DELETE:
        _own_pod(attrs, ctx, node, "delete", attrs.old)
    else:
        raise attrs.forbidden(f'unexpected operation "{attrs.op}"')


def _own_pod(attrs: Attrs, ctx: Context, node: str, what: str, pod: Object | None = None) -> None:
    pod = pod or ctx.lookup.get("pods", f"{attrs.namespace}/{attrs.name}")
    if pod is not None and (pod.get("spec") or {}).get("nodeName") != node:
        raise attrs.forbidden(f'node "{node}" can only {what} pods with spec.nodeName set to itself')


def _mirror_pod(attrs: Attrs, node: str) -> None:
    pod = attrs.obj or {}
    meta, spec = pod["metadata"], pod.get("spec") or {}
    if not (meta.get("annotations") or {}).get(_MIRROR):
        raise attrs.forbidden(
            f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods'
        )
    if spec.get("nodeName") != node:
        raise attrs.forbidden(f'node "{node}" can only create pods with spec.nodeName set to itself')
    owners = meta.get("ownerReferences") or []
    if len(owners) > 1 or any(o.get("kind") != "Node" or o.get("name") != node for o in owners):
        raise attrs.forbidden(f'node "{node}" can only create pods with an owner reference set to itself')
    if spec.get("serviceAccountName"):
        raise attrs.forbidden(f'node "{node}" can not create pods that reference a service account')
    for kind, _ in sorted(references(pod)):
        if kind in _TAKEN_REFS:
            raise attrs.forbidden(f'node "{node}" can not create pods that reference {kind}')


def _nodes(attrs: Attrs, ctx: Context, node: str) -> None:
    new, old = attrs.obj or {}, attrs.old or {}
    requested = attrs.name or (new.get("metadata") or {}).get("name", "")
    if requested != node:
        raise attrs.forbidden(f'node "{node}" is not allowed to modify node "{requested}"')
    if attrs.op == CREATE:
        _check_labels(attrs, node, (new["metadata"].get("labels") or {}).keys())
        if new["metadata"].get("ownerReferences"):
            raise attrs.forbidden(f'node "{node}" is not allowed to create with "ownerReferences"')
    elif attrs.op == UPDATE:
        if (new.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
            raise attrs.forbidden(f'node "{node}" is not allowed to modify taints')
        before, after = (o["metadata"].get("labels") or {} for o in (old, new))
        _check_labels(attrs, node, [k for k in before.keys() | after.keys() if before.get(k) != after.get(k)])
        if new["metadata"].get("ownerReferences") != old["metadata"].get("ownerReferences"):
            raise attrs.forbidden(f'node "{node}" is not allowed to update "ownerReferences"')


def _check_labels(attrs: Attrs, node: str, labels: Any) -> None:
    foreign = sorted(label for label in labels if not _own_label(label))
    if foreign:
        raise attrs.forbidden(f'node "{node}" is not allowed to set labels: {", ".join(foreign)}')


def _own_label(label: str) -> bool:
    if label in _OWN_LABELS:
        return True
    domain, slash, _ = label.partition("/")
    if not slash:
        return True
    if any(domain == d or domain.endswith("." + d) for d in _OWN_DOMAINS):
        return not domain.startswith("node-restriction.")
    return not any(domain == d or domain.endswith("." + d) for d in ("kubernetes.io", "k8s.io"))


def _claims(attrs: Attrs, ctx: Context, node: str) -> None:
    if attrs.subresource != "status" or attrs.op != UPDATE:
        raise attrs.forbidden("may only update PVC status")
    new, old = attrs.obj or {}, attrs.old or {}
    if new.get("spec") != old.get("spec"):
        raise attrs.forbidden(f'node "{node}" is not allowed to update fields other than status')


def _tokens(attrs: Attrs, ctx: Context, node: str) -> None:
    if attrs.subresource != "token":
        return
    spec = (attrs.obj or {}).get("spec") or {}
    ref = spec.get("boundObjectRef")
    if not ref:
        raise attrs.forbidden("node requested token not bound to a pod")
    if ref.get("apiVersion") != "v1" or ref.get("kind") != "Pod":
        raise attrs.forbidden("node requested token not bound to a pod")
    if not ref.get("uid"):
        raise attrs.forbidden("node requested token with a pod binding without a uid")
    pod = ctx.lookup.get("pods", f"{attrs.namespace}/{ref.get('name', '')}")
    if pod is None:
        raise attrs.forbidden(
            f'node requested token bound to a pod that is not found: "{ref.get("name", "")}"'
        )
    if pod["metadata"].get("uid") != ref["uid"]:
        raise attrs.forbidden(
            f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record"
        )
    if (pod.get("spec") or {}).get("nodeName") != node:
        raise attrs.forbidden("node requested token bound to a pod scheduled on a different node")


def _leases(attrs: Attrs, ctx: Context, node: str) -> None:
    if attrs.namespace != "kube-node-lease" or attrs.name != node:
        raise attrs.forbidden("can only access node lease with the same name as the requesting node")


def _csi_nodes(attrs: Attrs, ctx: Context, node: str) -> None:
    if attrs.name != node:
        raise attrs.forbidden("can only access CSINode with the same name as the requesting node")


def _slices(attrs: Attrs, ctx: Context, node: str) -> None:
    own = ((attrs.obj or attrs.old or {}).get("spec") or {}).get("nodeName")
    if own != node:
        raise attrs.forbidden(
            "can only create or change ResourceSlice with the same NodeName as the requesting node"
        )


def _pod_certificates(attrs: Attrs, ctx: Context, node: str) -> None:
    """A node asks for certificates of its own pods, and names them, their accounts and itself truly. What the original
    answers with an error that may pass is refused here: nothing that is looked up lags behind. Source: KEP-4317."""
    if attrs.op != CREATE or attrs.subresource:
        raise attrs.forbidden(f'unexpected operation "{attrs.op}"')
    spec, where = (attrs.obj or {}).get("spec") or {}, attrs.namespace
    name, account = spec.get("podName", ""), spec.get("serviceAccountName", "")
    asked = f'PodCertificateRequest for pod "{where}/{name}"'
    if spec.get("nodeName") != node:
        raise attrs.forbidden(
            f'PodCertificateRequest.Spec.NodeName="{spec.get("nodeName", "")}", '
            f'which is not the requesting node "{node}"'
        )
    if _uid(ctx, "nodes", node) != spec.get("nodeUID"):
        raise attrs.forbidden(
            f'{asked} names node UID "{spec.get("nodeUID", "")}", inconsistent with the running node'
        )
    pod = ctx.lookup.get("pods", f"{where}/{name}")
    if pod is None or pod["metadata"].get("uid") != spec.get("podUID"):
        raise attrs.forbidden(
            f'{asked} contains pod UID ("{spec.get("podUID", "")}") which differs from running pod'
        )
    if (pod.get("spec") or {}).get("nodeName") != node:
        raise attrs.forbidden(
            f'pod "{where}/{name}" is not running on node "{node}" named in the PodCertificateRequest'
        )
    if _MIRROR in (pod["metadata"].get("annotations") or {}):
        raise attrs.forbidden(f'pod "{where}/{name}" is a mirror pod')
    if pod["spec"].get("serviceAccountName", "") != account:
        raise attrs.forbidden(
            f'{asked} contains serviceAccountName ("{account}") that differs from running pod'
        )
    if _uid(ctx, "serviceaccounts", f"{where}/{account}") != spec.get("serviceAccountUID"):
        raise attrs.forbidden(
            f'{asked} names service account UID "{spec.get("serviceAccountUID", "")}", '
            f"which differs from the running service account"
        )


def _uid(ctx: Context, resource: str, key: str) -> str | None:
    found = ctx.lookup.get(resource, key)
    return found["metadata"].get("uid") if found else None


_RULES = {
    "pods": _pods,
    "nodes": _nodes,
    "persistentvolumeclaims": _claims,
    "serviceaccounts": _tokens,
    "leases.coordination.k8s.io": _leases,
    "csinodes.storage.k8s.io": _csi_nodes,
    "resourceslices.resource.k8s.io": _slices,
    "podcertificaterequests.certificates.k8s.io": _pod_certificates,
}

PLUGIN = Plugin(
    "NodeRestriction",
    frozenset(_RULES),
    only(CREATE, UPDATE, DELETE),
    admit=admit,
    subresources=None,
    reads=(),  # beside who asks
)
