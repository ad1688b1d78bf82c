"""A node may read what its own pods need and write about itself, nothing of other nodes.

The relations are looked up among the pods of the namespace asked for, so there is no graph to keep.
Source: Kubernetes documentation, "Using Node Authorization".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sampan.client.messages import User
from sampan.server.auth import default_roles
from sampan.server.auth.rbac import Asked, Rule
from sampan.server.lookup import Lookup

GROUP = "system:nodes"
PREFIX = "system:node:"
_READ = ("get", "list", "watch")
_LEASE_NAMESPACE = "kube-node-lease"

Ref = tuple[str, str]  # ("secrets", "db-password"), in the pod's namespace


def node_name(user: User) -> str:
    """The node this user is, or "" when it is none."""
    return user.name[len(PREFIX) :] if user.name.startswith(PREFIX) and GROUP in user.groups else ""


class NodeAuthorizer:
    """Decides for users of group system:nodes; what it does not allow RBAC may."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._rules = [Rule(r) for r in default_roles.NODE]
        self._refs: dict[str, tuple[int, frozenset[Ref]]] = {}  # pod key -> (revision, what it refers to)

    def authorize(self, user: User, asked: Asked) -> tuple[bool, str]:
        """(allowed, why not). A node reads what its pods refer to and writes about itself. Source: "Using Node Authorization"."""
        node = node_name(user)
        if not node:
            return False, f'unknown node for user "{user.name}"' if user.name == PREFIX else ""
        if asked.is_resource:
            special = _SPECIAL.get((asked.group, asked.resource))
            if special is not None:
                answer = special(self, node, asked)
                if answer is not None:
                    return answer
        return any(rule.matches(asked) and not rule.names for rule in self._rules), ""

    # Relations

    def _pods(self, node: str, namespace: str) -> Iterator[frozenset[Ref]]:
        for item in self._lookup.items("pods", f"{namespace}/"):
            if item.fields.get("spec.nodeName") != node:
                continue
            known = self._refs.get(item.key)
            if known is None or known[0] != item.revision:
                pod = self._lookup.get("pods", item.key)
                if len(self._refs) > 20_000:
                    self._refs.clear()
                known = self._refs[item.key] = (item.revision, references(pod or {}))
            yield known[1]

    def _related(self, node: str, namespace: str, ref: Ref) -> bool:
        return any(ref in refs for refs in self._pods(node, namespace))

    def _reads(self, node: str, asked: Asked, verbs: tuple[str, ...]) -> tuple[bool, str]:
        if asked.verb not in verbs or asked.subresource:
            return (
                False,
                "can only read resources of this type"
                if verbs == _READ
                else "can only get individual resources of this type",
            )
        if not asked.name:
            return False, "No Object name found"
        if self._related(node, asked.namespace, (asked.resource, asked.name)):
            return True, ""
        return False, _unrelated(node)

    # One function a kind; None means "see the general rules"

    def _object(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        return self._reads(node, asked, _READ)

    def _claim(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.subresource != "status":
            return self._reads(node, asked, ("get",))
        if asked.verb not in ("update", "patch"):
            return False, "can only update/patch the status of this type"
        if self._related(node, asked.namespace, (asked.resource, asked.name)):
            return True, ""
        return False, _unrelated(node)

    def _resource_claim(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        return self._reads(node, asked, ("get",))

    def _volume(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.verb != "get" or asked.subresource:
            return False, "can only get individual resources of this type"
        volume = self._lookup.get("persistentvolumes", asked.name) or {}
        claim = (volume.get("spec") or {}).get("claimRef") or {}
        held = claim and self._related(
            node, claim.get("namespace", ""), ("persistentvolumeclaims", claim.get("name", ""))
        )
        return (True, "") if held else (False, _unrelated(node))

    def _attachment(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.verb != "get" or asked.subresource:
            return False, "can only get individual resources of this type"
        found = self._lookup.get("volumeattachments.storage.k8s.io", asked.name) or {}
        own = (found.get("spec") or {}).get("nodeName") == node
        return (True, "") if own else (False, _unrelated(node))

    def _token(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.subresource != "token":
            if asked.verb == "get" and not asked.subresource and asked.name:  # for credentials of image pulls
                return self._reads(node, asked, ("get",))
            return False, "can only create tokens for individual service accounts"
        if asked.verb != "create" or not asked.name:
            return False, "can only create tokens for individual service accounts"
        if self._related(node, asked.namespace, ("serviceaccounts", asked.name)):
            return True, ""
        return False, _unrelated(node)

    def _lease(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.verb not in ("get", "create", "update", "patch", "delete"):
            return False, "can only get, create, update, patch, or delete a node lease"
        if asked.namespace != _LEASE_NAMESPACE:
            return False, f'can only access leases in the "{_LEASE_NAMESPACE}" system namespace'
        if asked.verb != "create" and asked.name != node:
            return False, "can only access node lease with the same name as the requesting node"
        return True, ""

    def _csi_node(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.verb not in ("get", "create", "update", "patch", "delete"):
            return False, "can only get, create, update, patch, or delete a CSINode"
        if asked.verb != "create" and asked.name != node:
            return False, "can only access CSINode with the same name as the requesting node"
        return True, ""

    def _slice(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.verb == "create":
            return True, ""  # NodeRestriction looks at its nodeName
        if asked.verb in ("list", "watch", "deletecollection"):
            if f"spec.nodeName={node}" in _field_selector(asked):
                return True, ""
            return False, "can only list/watch/deletecollection resourceslices with nodeName field selector"
        found = self._lookup.get("resourceslices.resource.k8s.io", asked.name) or {}
        own = (found.get("spec") or {}).get("nodeName") == node
        return (True, "") if own else (False, _unrelated(node))

    def _pod_certificate(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.subresource:
            return False, "nodes may not access the status subresource of PodCertificateRequests"
        if asked.verb == "create":
            return True, ""  # NodeRestriction looks at what it says
        if asked.verb in ("list", "watch"):
            if f"spec.nodeName={node}" in _field_selector(asked):
                return True, ""
            return False, "can only list/watch podcertificaterequests with nodeName field selector"
        if asked.verb != "get":
            return False, f"nodes may not {asked.verb} podcertificaterequests"
        key = f"{asked.namespace}/{asked.name}"
        found = self._lookup.get("podcertificaterequests.certificates.k8s.io", key) or {}
        own = (found.get("spec") or {}).get("nodeName") == node
        return (True, "") if own else (False, _unrelated(node))

    def _pod(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.subresource or asked.verb not in _READ:
            return None
        if asked.verb == "get":
            item = self._lookup.store.get("pods", f"{asked.namespace}/{asked.name}")
            own = item is not None and item.fields.get("spec.nodeName") == node
            return (True, "") if own else (False, _unrelated(node))
        if f"spec.nodeName={node}" in _field_selector(asked):
            return True, ""
        return False, f"can only {asked.verb} pods with spec.nodeName field selector"

    def _node(self, node: str, asked: Asked) -> tuple[bool, str] | None:
        if asked.subresource or asked.verb not in _READ:
            return None
        if asked.name == node:
            return True, ""
        return False, f"node '{node}' cannot read '{asked.name}', only its own Node object"


_SPECIAL = {
    ("", "secrets"): NodeAuthorizer._object,
    ("", "configmaps"): NodeAuthorizer._object,
    ("", "persistentvolumeclaims"): NodeAuthorizer._claim,
    ("", "persistentvolumes"): NodeAuthorizer._volume,
    ("", "serviceaccounts"): NodeAuthorizer._token,
    ("", "pods"): NodeAuthorizer._pod,
    ("", "nodes"): NodeAuthorizer._node,
    ("resource.k8s.io", "resourceclaims"): NodeAuthorizer._resource_claim,
    ("resource.k8s.io", "resourceslices"): NodeAuthorizer._slice,
    ("storage.k8s.io", "volumeattachments"): NodeAuthorizer._attachment,
    ("storage.k8s.io", "csinodes"): NodeAuthorizer._csi_node,
    ("coordination.k8s.io", "leases"): NodeAuthorizer._lease,
    ("certificates.k8s.io", "podcertificaterequests"): NodeAuthorizer._pod_certificate,
}


def _unrelated(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"


def _field_selector(asked: Any) -> list[str]:
    text = getattr(asked, "field_selector", None)
    if text is None:  # a parsed request
        text = asked.first("fieldSelector")
    return [term.replace("==", "=") for term in text.split(",")]


def references(pod: Mapping[str, Any]) -> frozenset[Ref]:
    """Every object of its namespace that a pod names: what its node must be able to read."""
    spec, found = pod.get("spec") or {}, set()
    found.add(("serviceaccounts", spec.get("serviceAccountName") or "default"))
    for secret in spec.get("imagePullSecrets") or ():
        found.add(("secrets", secret.get("name", "")))
    for volume in spec.get("volumes") or ():
        found.update(_of_volume(volume, pod))
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            found.update(_of_container(container))
    status = pod.get("status") or {}
    for claim in status.get("resourceClaimStatuses") or ():
        found.add(("resourceclaims", claim.get("resourceClaimName") or ""))
    for claim in spec.get("resourceClaims") or ():
        found.add(("resourceclaims", claim.get("resourceClaimName") or ""))
    return frozenset(ref for ref in found if ref[1])


def _of_volume(volume: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[Ref]:
    for key, source in volume.items():
        if not isinstance(source, dict):
            continue
        if key == "secret":
            yield "secrets", source.get("secretName", "")
        elif key == "configMap":
            yield "configmaps", source.get("name", "")
        elif key == "persistentVolumeClaim":
            yield "persistentvolumeclaims", source.get("claimName", "")
        elif key == "ephemeral":
            yield "persistentvolumeclaims", f"{pod['metadata']['name']}-{volume['name']}"
        elif key == "projected":
            for part in source.get("sources") or ():
                if "secret" in part:
                    yield "secrets", (part["secret"] or {}).get("name", "")
                if "configMap" in part:
                    yield "configmaps", (part["configMap"] or {}).get("name", "")
        else:  # drivers: secretRef, nodePublishSecretRef
            for field in ("secretRef", "nodePublishSecretRef"):
                yield "secrets", (source.get(field) or {}).get("name", "")


def _of_container(container: Mapping[str, Any]) -> Iterator[Ref]:
    for source in container.get("envFrom") or ():
        yield "secrets", (source.get("secretRef") or {}).get("name", "")
        yield "configmaps", (source.get("configMapRef") or {}).get("name", "")
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        yield "secrets", (source.get("secretKeyRef") or {}).get("name", "")
        yield "configmaps", (source.get("configMapKeyRef") or {}).get("name", "")
