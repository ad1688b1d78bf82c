"""Defaults of what runs pods: Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController, PodTemplate.

Source: API reference, group apps/v1 and core/v1.
"""

from __future__ import annotations

from sampan.api.defaults.pod import Json, claim_spec, template


def deployment(obj: Json) -> None:
    """A quarter of the pods more, and a quarter less, during an update; ten minutes until it counts as stuck."""
    spec = obj.setdefault("spec", {})
    template(spec)
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")


def replica_set(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    template(spec)
    spec.setdefault("replicas", 1)


def replication_controller(obj: Json) -> None:
    """Selector and labels come from the template when they are not given."""
    spec = obj.setdefault("spec", {})
    if "template" in spec:  # the one kind that may come without
        template(spec)
    spec.setdefault("replicas", 1)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = obj.setdefault("metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)


def daemon_set(obj: Json) -> None:
    """One node after the other."""
    spec = obj.setdefault("spec", {})
    template(spec)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)


def stateful_set(obj: Json) -> None:
    """In order, and claims outlive their pods. Templates of claims are complete claims."""
    spec = obj.setdefault("spec", {})
    template(spec)
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("partition", 0)
        rolling.setdefault("maxUnavailable", 1)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates", ()):
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim_spec(claim.setdefault("spec", {}))
        claim.setdefault("status", {}).setdefault("phase", "Pending")


def pod_template(obj: Json) -> None:
    template(obj)
