"""Which functions judge which kind: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sampan.api import names
from sampan.api.registry import Resource
from sampan.api.validate import batch, pod, workloads
from sampan.api.validate.base import Errors, Object, label_problems, subdomain_problems
from sampan.api.validate.meta import NameCheck

Create = Callable[[Errors, Object], None]
Update = Callable[[Errors, Object, Object], None]


class Rules(NamedTuple):
    """`name` lists what is wrong with a name; `status` and `parts` judge writes through subresources."""

    create: Create | None = None
    update: Update | None = None
    status: Update | None = None
    name: NameCheck = subdomain_problems
    parts: Mapping[str, Update] = {}

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
    "namespaces": Rules(name=label_problems),
    "pods": Rules(
        pod.create, pod.update, pod.status, parts={"ephemeralcontainers": pod.ephemeral, "resize": pod.resize}
    ),
    "podtemplates": Rules(workloads.pod_template, workloads.pod_template_update),
    "replicationcontrollers": Rules(
        workloads.replication_controller, workloads.replication_controller_update, _replicas
    ),
    "services": Rules(name=label_problems),
}
_APPS: dict[str, Rules] = {
    "controllerrevisions": Rules(workloads.controller_revision, workloads.controller_revision_update),
    "daemonsets": Rules(workloads.daemon_set, workloads.daemon_set_update, _daemon_status),
    "deployments": Rules(workloads.deployment, workloads.deployment_update, _deployment_status),
    "replicasets": Rules(workloads.replica_set, workloads.replica_set_update, _replicas),
    "statefulsets": Rules(workloads.stateful_set, workloads.stateful_set_update, _stateful_status),
}
_BATCH: dict[str, Rules] = {
    "cronjobs": Rules(batch.cron_job, batch.cron_job_update),
    "jobs": Rules(batch.job, batch.job_update, batch.job_status),
}
_RBAC: dict[str, Rules] = {
    "clusterrolebindings": Rules(name=names.path_segment),
    "clusterroles": Rules(name=names.path_segment),
    "rolebindings": Rules(name=names.path_segment),
    "roles": Rules(name=names.path_segment),
}

_GROUPS: dict[str, dict[str, Rules]] = {
    "": _CORE,
    "apps": _APPS,
    "batch": _BATCH,
    "rbac.authorization.k8s.io": _RBAC,
}


def rules_of(row: Resource) -> Rules:
    """The rules of a kind; those of metadata alone when it has none of its own."""
    return _GROUPS.get(row.group, {}).get(row.plural, GENERIC)
