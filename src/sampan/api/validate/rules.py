"""Which functions judge which kind: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sampan.api import names
from sampan.api.registry import Resource
from sampan.api.validate import (
    admissionregistration,
    autoscaling,
    batch,
    certificates,
    cluster,
    config,
    crd,
    devices,
    flowcontrol,
    network,
    pod,
    pod_certificates,
    policy,
    rbac,
    service,
    storage,
    workloads,
)
from sampan.api.validate.base import Errors, label_problems, subdomain_problems
from sampan.api.validate.meta import NameCheck
from sampan.base.objects import Object

Create = Callable[[Errors, Object], None]
Update = Callable[[Errors, Object, Object], None]


class Rules(NamedTuple):
    """`name` lists what is wrong with a name; `status` and `parts` judge writes through subresources."""

    create: Create | None = None
    update: Update | None = None
    status: Update | None = None
    name: NameCheck = subdomain_problems
    parts: Mapping[str, Update] = {}
    again: bool = False  # a changed object is judged as a new one, too

    def change(self, subresource: str) -> Update | None:
        """Who judges a write through `subresource` (empty: the object itself)."""
        if not subresource:
            return self.update
        return self.status if subresource == "status" else self.parts.get(subresource)


GENERIC = Rules()

_replicas = workloads.status_counts(
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "terminatingReplicas",
    "observedGeneration",
)
_deployment_status = workloads.status_counts(
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
)
_stateful_status = workloads.status_counts(
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
)
_daemon_status = workloads.status_counts(
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
)

_CORE: dict[str, Rules] = {
    "configmaps": Rules(config.config_map, config.config_map_update, again=True),
    "endpoints": Rules(network.endpoints, network.endpoints_update, again=True),
    "events": Rules(cluster.event, cluster.event_update),
    "limitranges": Rules(policy.limit_range, policy.limit_range_update),
    "namespaces": Rules(
        cluster.namespace, name=label_problems, parts={"finalize": cluster.namespace_finalize}
    ),
    "nodes": Rules(cluster.node, cluster.node_update, cluster.node_status),
    "persistentvolumeclaims": Rules(storage.claim, storage.claim_update),
    "persistentvolumes": Rules(storage.volume, storage.volume_update),
    "pods": Rules(
        pod.create, pod.update, pod.status, parts={"ephemeralcontainers": pod.ephemeral, "resize": pod.resize}
    ),
    "podtemplates": Rules(workloads.pod_template, workloads.pod_template_update),
    "replicationcontrollers": Rules(
        workloads.replication_controller, workloads.replication_controller_update, _replicas
    ),
    "resourcequotas": Rules(policy.quota, policy.quota_update, policy.quota_status),
    "secrets": Rules(config.secret, config.secret_update, again=True),
    "services": Rules(service.create, service.update, service.status, name=label_problems, again=True),
}
_APPS: dict[str, Rules] = {
    "controllerrevisions": Rules(workloads.controller_revision, workloads.controller_revision_update),
    "daemonsets": Rules(workloads.daemon_set, workloads.daemon_set_update, _daemon_status),
    "deployments": Rules(workloads.deployment, workloads.deployment_update, _deployment_status),
    "replicasets": Rules(workloads.replica_set, workloads.replica_set_update, _replicas),
    "statefulsets": Rules(workloads.stateful_set, workloads.stateful_set_update, _stateful_status),
}
_AUTOSCALING: dict[str, Rules] = {
    "horizontalpodautoscalers": Rules(
        autoscaling.autoscaler,
        autoscaling.autoscaler_update,
        autoscaling.autoscaler_status,
        name=names.path_segment,
    ),
}
_BATCH: dict[str, Rules] = {
    "cronjobs": Rules(batch.cron_job, batch.cron_job_update),
    "jobs": Rules(batch.job, batch.job_update, batch.job_status),
}
_NETWORKING: dict[str, Rules] = {
    "ingressclasses": Rules(network.ingress_class, network.ingress_class_update),
    "ingresses": Rules(network.ingress, network.ingress_update, network.ingress_status),
    "ipaddresses": Rules(network.ip_address, network.ip_address_update, name=network.address_name),
    "networkpolicies": Rules(network.network_policy, network.network_policy_update),
    "servicecidrs": Rules(network.service_cidr, network.service_cidr_update),
}
_DEVICES: dict[str, Rules] = {
    "deviceclasses": Rules(devices.device_class, devices.device_class_update),
    "resourceclaims": Rules(devices.claim, devices.claim_update),
    "resourceclaimtemplates": Rules(devices.template, devices.template_update),
    "resourceslices": Rules(devices.device_slice, devices.device_slice_update),
}
_RBAC: dict[str, Rules] = {
    "clusterrolebindings": Rules(
        rbac.cluster_role_binding, rbac.cluster_role_binding_update, name=names.path_segment
    ),
    "clusterroles": Rules(rbac.cluster_role, rbac.cluster_role_update, name=names.path_segment),
    "rolebindings": Rules(rbac.role_binding, rbac.role_binding_update, name=names.path_segment),
    "roles": Rules(rbac.role, rbac.role_update, name=names.path_segment),
}
_STORAGE: dict[str, Rules] = {
    "csidrivers": Rules(storage.csi_driver, storage.csi_driver_update),
    "csinodes": Rules(storage.csi_node, storage.csi_node_update),
    "csistoragecapacities": Rules(storage.storage_capacity, storage.storage_capacity_update),
    "storageclasses": Rules(storage.storage_class, storage.storage_class_update),
    "volumeattachments": Rules(storage.attachment, storage.attachment_update),
    "volumeattributesclasses": Rules(storage.attributes_class, storage.attributes_class_update),
}

_policy = Rules(
    admissionregistration.policy,
    admissionregistration.policy_update,
    name=admissionregistration.name_problems,
)
_binding = Rules(
    admissionregistration.binding,
    admissionregistration.binding_update,
    name=admissionregistration.name_problems,
)
_ADMISSION: dict[str, Rules] = {
    "mutatingadmissionpolicies": _policy,
    "mutatingadmissionpolicybindings": _binding,
    "mutatingwebhookconfigurations": Rules(
        admissionregistration.mutating,
        admissionregistration.mutating_update,
        name=admissionregistration.name_problems,
    ),
    "validatingadmissionpolicies": _policy,
    "validatingadmissionpolicybindings": _binding,
    "validatingwebhookconfigurations": Rules(
        admissionregistration.validating,
        admissionregistration.validating_update,
        name=admissionregistration.name_problems,
    ),
}
_CERTIFICATES: dict[str, Rules] = {
    "certificatesigningrequests": Rules(
        certificates.request,
        certificates.request_update,
        certificates.request_status,
        name=names.path_segment,
        parts={"approval": certificates.request_status},
    ),
    "clustertrustbundles": Rules(
        certificates.bundle, certificates.bundle_update, name=certificates.bundle_name
    ),
    "podcertificaterequests": Rules(
        pod_certificates.request, pod_certificates.request_update, pod_certificates.request_status
    ),
}
_FLOW: dict[str, Rules] = {
    "flowschemas": Rules(flowcontrol.flow_schema, flowcontrol.flow_schema_update),
    "prioritylevelconfigurations": Rules(flowcontrol.priority_level, flowcontrol.priority_level_update),
}
_EXTENSIONS: dict[str, Rules] = {
    "customresourcedefinitions": Rules(crd.create, crd.update, crd.status),
}

_GROUPS: dict[str, dict[str, Rules]] = {
    "": _CORE,
    "admissionregistration.k8s.io": _ADMISSION,
    "apiextensions.k8s.io": _EXTENSIONS,
    "apiregistration.k8s.io": {
        "apiservices": Rules(cluster.api_service, cluster.api_service_update, name=names.path_segment)
    },
    "apps": _APPS,
    "autoscaling": _AUTOSCALING,
    "batch": _BATCH,
    "certificates.k8s.io": _CERTIFICATES,
    "coordination.k8s.io": {"leases": Rules(cluster.lease, cluster.lease_update)},
    "discovery.k8s.io": {"endpointslices": Rules(network.endpoint_slice, network.endpoint_slice_update)},
    "events.k8s.io": {"events": Rules(cluster.event_new)},
    "flowcontrol.apiserver.k8s.io": _FLOW,
    "networking.k8s.io": _NETWORKING,
    "node.k8s.io": {"runtimeclasses": Rules(policy.runtime_class, policy.runtime_class_update)},
    "policy": {"poddisruptionbudgets": Rules(policy.budget, policy.budget_update, policy.budget_status)},
    "rbac.authorization.k8s.io": _RBAC,
    "resource.k8s.io": _DEVICES,
    "scheduling.k8s.io": {"priorityclasses": Rules(policy.priority_class, policy.priority_class_update)},
    "storage.k8s.io": _STORAGE,
}


def rules_of(row: Resource) -> Rules:
    """The rules of a kind; those of metadata alone when it has none of its own."""
    return _GROUPS.get(row.group, {}).get(row.plural, GENERIC)
