"""A store with facts in it, for tests of what decides by looking at the cluster."""

import copy

from sampan.api import meta, wire
from sampan.base.clock import VirtualClock
from sampan.base.ids import Ids
from sampan.server.lookup import Lookup
from sampan.store.memory import MemoryStore
from sampan.store.protocol import Draft

_PLURALS = {
    "Namespace": "namespaces",
    "Pod": "pods",
    "Node": "nodes",
    "Service": "services",
    "Secret": "secrets",
    "ServiceAccount": "serviceaccounts",
    "LimitRange": "limitranges",
    "ResourceQuota": "resourcequotas",
    "ConfigMap": "configmaps",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "PersistentVolume": "persistentvolumes",
    "PriorityClass": "priorityclasses.scheduling.k8s.io",
    "RuntimeClass": "runtimeclasses.node.k8s.io",
    "ServiceCIDR": "servicecidrs.networking.k8s.io",
    "StorageClass": "storageclasses.storage.k8s.io",
    "IngressClass": "ingressclasses.networking.k8s.io",
    "VolumeAttachment": "volumeattachments.storage.k8s.io",
    "Deployment": "deployments.apps",
    "PodCertificateRequest": "podcertificaterequests.certificates.k8s.io",
    "Role": "roles.rbac.authorization.k8s.io",
    "RoleBinding": "rolebindings.rbac.authorization.k8s.io",
    "ClusterRole": "clusterroles.rbac.authorization.k8s.io",
    "ClusterRoleBinding": "clusterrolebindings.rbac.authorization.k8s.io",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations.admissionregistration.k8s.io",
}


class Facts:
    """`put` and `remove` objects; `lookup`, `clock` and `ids` are what the code under test is given."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.ids = Ids(1)
        self.store = MemoryStore(self.clock)
        self.lookup = Lookup(self.store)

    def put(self, obj, bucket=""):
        """Store an object as if a client had; returns it with its uid."""
        obj = copy.deepcopy(obj)
        obj["metadata"].setdefault("uid", self.ids.uid())
        value, slot = wire.encode(obj)
        node = (obj.get("spec") or {}).get("nodeName", "")
        fields = {"spec.nodeName": node} if obj["kind"] == "Pod" else {}
        draft = Draft(value, slot, meta.labels(obj), fields)
        _run(self.store.put(bucket or _PLURALS[obj["kind"]], meta.key(obj), draft, None))
        return obj

    def remove(self, kind, key):
        _run(self.store.delete(_PLURALS[kind], key, None))

    def make(self, kind, name, namespace="", **content):
        """An object of a kind, stored."""
        place = {"namespace": namespace} if namespace else {}
        labels = {"labels": content.pop("labels")} if "labels" in content else {}
        notes = {"annotations": content.pop("annotations")} if "annotations" in content else {}
        version = content.pop("apiVersion", "v1")
        return self.put(
            {
                "apiVersion": version,
                "kind": kind,
                "metadata": {"name": name, **place, **labels, **notes},
                **content,
            }
        )


def _run(coroutine):
    """The memory store never waits, so a write ends at its first step, with or without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the memory store waited")
