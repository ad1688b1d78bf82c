"""What the API adds to an object that does not say everything: one table from kind to function.

Defaulting runs on every write, before admission and validation, so each function must be a no-op the second time.
Values that depend on the rest of the cluster (addresses, service accounts, priorities) are not defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api import schema
from sampan.api.defaults import autoscaling, batch, cluster, extension, network, pod, storage, workloads
from sampan.api.defaults.custom import schema_defaults
from sampan.api.registry import Resource

__all__ = ["apply_defaults", "empty_status", "schema_defaults"]

Json = dict[str, Any]

# (group, kind), or (group/version, kind) where versions differ.
_DEFAULTS: dict[tuple[str, str], Callable[[Json], None]] = {
    ("", "Endpoints"): network.endpoints,
    ("", "LimitRange"): cluster.limit_range,
    ("", "Namespace"): cluster.namespace,
    ("", "Node"): cluster.node,
    ("", "PersistentVolume"): storage.persistent_volume,
    ("", "PersistentVolumeClaim"): storage.persistent_volume_claim,
    ("", "Pod"): pod.pod,
    ("", "PodTemplate"): workloads.pod_template,
    ("", "ReplicationController"): workloads.replication_controller,
    ("", "Secret"): cluster.secret,
    ("", "Service"): network.service,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): extension.admission_policy,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): extension.admission_policy_binding,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): extension.mutating_webhooks,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): extension.admission_policy,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): extension.admission_policy_binding,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): extension.validating_webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): extension.custom_resource_definition,
    ("apiregistration.k8s.io", "APIService"): extension.api_service,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.replica_set,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("authentication.k8s.io", "TokenRequest"): cluster.token_request,
    ("autoscaling/v1", "HorizontalPodAutoscaler"): autoscaling.autoscaler_v1,
    ("autoscaling/v2", "HorizontalPodAutoscaler"): autoscaling.autoscaler_v2,
    ("batch", "CronJob"): batch.cron_job,
    ("batch", "Job"): batch.job,
    ("certificates.k8s.io", "PodCertificateRequest"): cluster.pod_certificate_request,
    ("discovery.k8s.io", "EndpointSlice"): network.endpoint_slice,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): cluster.flow_schema,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): cluster.priority_level,
    ("networking.k8s.io", "IngressClass"): network.ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): network.network_policy,
    ("rbac.authorization.k8s.io", "ClusterRole"): cluster.role,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): cluster.role_binding,
    ("rbac.authorization.k8s.io", "Role"): cluster.role,
    ("rbac.authorization.k8s.io", "RoleBinding"): cluster.role_binding,
    ("resource.k8s.io", "ResourceClaim"): cluster.resource_claim,
    ("resource.k8s.io", "ResourceClaimTemplate"): cluster.resource_claim_template,
    ("scheduling.k8s.io", "PriorityClass"): cluster.priority_class,
    ("storage.k8s.io", "CSIDriver"): storage.csi_driver,
    ("storage.k8s.io", "StorageClass"): storage.storage_class,
    ("storage.k8s.io", "VolumeAttachment"): storage.volume_attachment,
}

# Status fields that are sent even when zero: a new object shows them before any controller has looked at it.
_EMPTY_STATUS: dict[tuple[str, str], Json] = {
    ("", "ReplicationController"): {"replicas": 0},
    ("", "Service"): {"loadBalancer": {}},
    ("apps", "DaemonSet"): {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    ("apps", "Deployment"): {},
    ("apps", "ReplicaSet"): {"replicas": 0},
    ("apps", "StatefulSet"): {"replicas": 0, "availableReplicas": 0},
    ("autoscaling/v1", "HorizontalPodAutoscaler"): {"currentReplicas": 0, "desiredReplicas": 0},
    ("autoscaling/v2", "HorizontalPodAutoscaler"): {"desiredReplicas": 0},
    ("batch", "CronJob"): {},
    ("batch", "Job"): {},
    ("networking.k8s.io", "Ingress"): {"loadBalancer": {}},
    ("networking.k8s.io", "ServiceCIDR"): {},
    ("storage.k8s.io", "VolumeAttachment"): {"attached": False},
    ("policy", "PodDisruptionBudget"): {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    },
}


def _of(table: dict[tuple[str, str], Any], row: Resource) -> Any:
    return table.get((row.group, row.kind)) or table.get((row.api_version, row.kind))


def apply_defaults(row: Resource, obj: Json) -> None:
    """Complete a normalized object in place, as the original does on every write. Doing it twice changes nothing."""
    if row.custom:
        node = schema.for_row(row)
        if node is not None:
            schema_defaults(obj, node)
        return
    function = _of(_DEFAULTS, row)
    if function is not None:
        function(obj)
    zero = _of(_EMPTY_STATUS, row)
    if zero is None and (row.group, row.kind) not in _EMPTY_STATUS:
        return
    status = obj.setdefault("status", {})
    for key, value in (zero or {}).items():
        if key not in status:
            status[key] = {} if value == {} else value


def empty_status(row: Resource) -> Json | None:
    """The status a new object of this kind shows, or None when it shows none."""
    probe: Json = {}
    if not row.custom:
        apply_defaults(row, probe)
    return probe.get("status")
