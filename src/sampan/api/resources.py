"""Every generally available built-in kind of Kubernetes 1.37 as a row: what discovery says of it and what may be done to it.

Group order is that of the original's aggregated discovery (kubectl resolves ambiguous short names by it); resources
are sorted by name within a version, as the original lists them. Source: API reference, "API Groups"; api-resources.
"""

from __future__ import annotations

from typing import NamedTuple

from sampan.api.registry import Registry, Resource

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
NO_COLLECTION_DELETE = ("create", "delete", "get", "list", "patch", "update", "watch")
CREATE_ONLY = ("create",)
READ_ONLY = ("get", "list")


class Subresource(NamedTuple):
    """What discovery says of `plural/name`: the kind its bodies have and the verbs it takes."""

    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]


_UPDATE = ("get", "patch", "update")
_CONNECT = ("create", "delete", "get", "patch", "update")
# Subresources whose bodies are of another kind than their parent's: (group, version, kind, verbs).
_SUBRESOURCES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "pods/attach": ("", "v1", "PodAttachOptions", ("create", "get")),
    "pods/binding": ("", "v1", "Binding", CREATE_ONLY),
    "pods/eviction": ("policy", "v1", "Eviction", CREATE_ONLY),
    "pods/exec": ("", "v1", "PodExecOptions", ("create", "get")),
    "pods/log": ("", "v1", "Pod", ("get",)),
    "pods/portforward": ("", "v1", "PodPortForwardOptions", ("create", "get")),
    "pods/proxy": ("", "v1", "PodProxyOptions", _CONNECT),
    "nodes/proxy": ("", "v1", "NodeProxyOptions", _CONNECT),
    "services/proxy": ("", "v1", "ServiceProxyOptions", _CONNECT),
    "namespaces/finalize": ("", "v1", "Namespace", ("update",)),
    "serviceaccounts/token": ("authentication.k8s.io", "v1", "TokenRequest", CREATE_ONLY),
}


def subresource(row: Resource, name: str) -> Subresource:
    """The kind and verbs of a subresource that `row.subresources` names."""
    special = _SUBRESOURCES.get(f"{row.plural}/{name}")
    if special and not row.custom:
        return Subresource(name, *special)
    if name == "scale":
        return Subresource(name, "autoscaling", "v1", "Scale", _UPDATE)
    return Subresource(name, row.group, row.version, row.kind, _UPDATE)


def _row(
    gv: str,
    kind: str,
    plural: str,
    *,
    short: str = "",
    cluster: bool = False,
    sub: str = "",
    categories: str = "",
    verbs: tuple[str, ...] = ALL_VERBS,
    bucket: str = "",
    deprecated: str = "",
) -> Resource:
    """One row; `short`, `sub` and `categories` are words with spaces between."""
    group, _, version = gv.rpartition("/")
    return Resource(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        namespaced=not cluster,
        singular=kind.lower(),
        short_names=tuple(short.split()),
        categories=tuple(categories.split()),
        subresources=tuple(sub.split()),
        verbs=verbs,
        list_kind=f"{kind}List" if "list" in verbs else "",
        bucket=bucket,
        deprecated=deprecated,
    )


_POD_SUB = "attach binding ephemeralcontainers eviction exec log portforward proxy resize status"

_CORE = [
    _row("v1", "Binding", "bindings", verbs=CREATE_ONLY),
    _row(
        "v1",
        "ComponentStatus",
        "componentstatuses",
        short="cs",
        cluster=True,
        verbs=READ_ONLY,
        deprecated="v1 ComponentStatus is deprecated in v1.19+",
    ),
    _row("v1", "ConfigMap", "configmaps", short="cm"),
    _row(
        "v1",
        "Endpoints",
        "endpoints",
        short="ep",
        deprecated="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
    _row("v1", "Event", "events", short="ev"),
    _row("v1", "LimitRange", "limitranges", short="limits"),
    _row(
        "v1",
        "Namespace",
        "namespaces",
        short="ns",
        cluster=True,
        sub="finalize status",
        verbs=NO_COLLECTION_DELETE,
    ),
    _row("v1", "Node", "nodes", short="no", cluster=True, sub="proxy status"),
    _row("v1", "PersistentVolumeClaim", "persistentvolumeclaims", short="pvc", sub="status"),
    _row("v1", "PersistentVolume", "persistentvolumes", short="pv", cluster=True, sub="status"),
    _row("v1", "Pod", "pods", short="po", sub=_POD_SUB, categories="all"),
    _row("v1", "PodTemplate", "podtemplates"),
    _row(
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        short="rc",
        sub="scale status",
        categories="all",
    ),
    _row("v1", "ResourceQuota", "resourcequotas", short="quota", sub="status"),
    _row("v1", "Secret", "secrets"),
    _row("v1", "ServiceAccount", "serviceaccounts", short="sa", sub="token"),
    _row("v1", "Service", "services", short="svc", sub="proxy status", categories="all"),
]

_APIREGISTRATION = [
    _row(
        "apiregistration.k8s.io/v1",
        "APIService",
        "apiservices",
        cluster=True,
        sub="status",
        categories="api-extensions",
    ),
]

_APPS = [
    _row("apps/v1", "ControllerRevision", "controllerrevisions"),
    _row("apps/v1", "DaemonSet", "daemonsets", short="ds", sub="status", categories="all"),
    _row("apps/v1", "Deployment", "deployments", short="deploy", sub="scale status", categories="all"),
    _row("apps/v1", "ReplicaSet", "replicasets", short="rs", sub="scale status", categories="all"),
    _row("apps/v1", "StatefulSet", "statefulsets", short="sts", sub="scale status", categories="all"),
]

_EVENTS = [_row("events.k8s.io/v1", "Event", "events", short="ev", bucket="events")]

_REVIEWS = [
    _row(
        "authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", cluster=True, verbs=CREATE_ONLY
    ),
    _row("authentication.k8s.io/v1", "TokenReview", "tokenreviews", cluster=True, verbs=CREATE_ONLY),
    _row(
        "authorization.k8s.io/v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", verbs=CREATE_ONLY
    ),
    _row(
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        cluster=True,
        verbs=CREATE_ONLY,
    ),
    _row(
        "authorization.k8s.io/v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        cluster=True,
        verbs=CREATE_ONLY,
    ),
    _row(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        cluster=True,
        verbs=CREATE_ONLY,
    ),
]

_AUTOSCALING = [
    _row(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        short="hpa",
        sub="status",
        categories="all",
    ),
    _row(
        "autoscaling/v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        short="hpa",
        sub="status",
        categories="all",
    ),
]

_BATCH = [
    _row("batch/v1", "CronJob", "cronjobs", short="cj", sub="status", categories="all"),
    _row("batch/v1", "Job", "jobs", sub="status", categories="all"),
]

_CERTIFICATES = [
    _row(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        short="csr",
        cluster=True,
        sub="approval status",
    ),
    _row("certificates.k8s.io/v1", "ClusterTrustBundle", "clustertrustbundles", cluster=True),
    _row("certificates.k8s.io/v1", "PodCertificateRequest", "podcertificaterequests", sub="status"),
]

_NETWORKING = [
    _row("networking.k8s.io/v1", "IngressClass", "ingressclasses", cluster=True),
    _row("networking.k8s.io/v1", "Ingress", "ingresses", short="ing", sub="status"),
    _row("networking.k8s.io/v1", "IPAddress", "ipaddresses", short="ip", cluster=True),
    _row("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", short="netpol"),
    _row("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", cluster=True, sub="status"),
]

_POLICY = [_row("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", short="pdb", sub="status")]

_RBAC = [
    _row("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", cluster=True),
    _row("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", cluster=True),
    _row("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    _row("rbac.authorization.k8s.io/v1", "Role", "roles"),
]

_STORAGE = [
    _row("storage.k8s.io/v1", "CSIDriver", "csidrivers", cluster=True),
    _row("storage.k8s.io/v1", "CSINode", "csinodes", cluster=True),
    _row("storage.k8s.io/v1", "CSIStorageCapacity", "csistoragecapacities"),
    _row("storage.k8s.io/v1", "StorageClass", "storageclasses", short="sc", cluster=True),
    _row("storage.k8s.io/v1", "VolumeAttachment", "volumeattachments", cluster=True, sub="status"),
    _row("storage.k8s.io/v1", "VolumeAttributesClass", "volumeattributesclasses", short="vac", cluster=True),
]

_ADMISSION_KINDS = (
    ("MutatingAdmissionPolicy", "mutatingadmissionpolicies", ""),
    ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", ""),
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", ""),
    ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "status"),
    ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", ""),
    ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", ""),
)
_ADMISSION = [
    _row("admissionregistration.k8s.io/v1", kind, plural, cluster=True, sub=sub, categories="api-extensions")
    for kind, plural, sub in _ADMISSION_KINDS
]

_APIEXTENSIONS = [
    _row(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        short="crd crds",
        cluster=True,
        sub="status",
        categories="api-extensions",
    ),
]

_SMALL = [
    _row("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", short="pc", cluster=True),
    _row("coordination.k8s.io/v1", "Lease", "leases"),
    _row("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", cluster=True),
    _row("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    _row("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "flowschemas", cluster=True, sub="status"),
    _row(
        "flowcontrol.apiserver.k8s.io/v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        cluster=True,
        sub="status",
    ),
    _row("resource.k8s.io/v1", "DeviceClass", "deviceclasses", cluster=True),
    _row("resource.k8s.io/v1", "DeviceTaintRule", "devicetaintrules", cluster=True, sub="status"),
    _row("resource.k8s.io/v1", "ResourceClaim", "resourceclaims", sub="status"),
    _row("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates"),
    _row("resource.k8s.io/v1", "ResourceSlice", "resourceslices", cluster=True),
    _row(
        "storagemigration.k8s.io/v1",
        "StorageVersionMigration",
        "storageversionmigrations",
        cluster=True,
        sub="status",
    ),
]

# Answered from what nodes measure, never stored (`server.aggregation.usage`).
_METRICS = [
    _row("metrics.k8s.io/v1beta1", "NodeMetrics", "nodes", cluster=True, verbs=READ_ONLY),
    _row("metrics.k8s.io/v1beta1", "PodMetrics", "pods", verbs=READ_ONLY),
]

BUILTIN = Registry(
    _CORE
    + _APIREGISTRATION
    + _APPS
    + _EVENTS
    + _REVIEWS
    + _AUTOSCALING
    + _BATCH
    + _CERTIFICATES
    + _NETWORKING
    + _POLICY
    + _RBAC
    + _STORAGE
    + _ADMISSION
    + _APIEXTENSIONS
    + _SMALL
    + _METRICS
)


def lookup(api_version: str, kind: str) -> Resource | None:
    """The built-in row of an object's `apiVersion` and `kind`."""
    group, _, version = api_version.rpartition("/")
    return BUILTIN.by_kind(group, version, kind)
