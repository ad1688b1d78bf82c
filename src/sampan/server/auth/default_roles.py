"""The roles and bindings every cluster begins with, as a table.

A rule is a line "VERBS GROUPS RESOURCES [names=A,B]" or "VERBS url PATHS"; `core` is the group without a name, and
`read`, `write`, `all` stand for the usual verbs. Source: Kubernetes documentation, "Using RBAC Authorization",
"Default roles and role bindings".
"""

from __future__ import annotations

from typing import Any

GROUP = "rbac.authorization.k8s.io"
_VERBS = {
    "read": "get,list,watch",
    "write": "create,delete,deletecollection,patch,update",
    "all": "create,delete,deletecollection,get,list,patch,update,watch",
}
_EVENTS = "create,patch,update core,events.k8s.io events"
_HEALTH = "/livez,/readyz,/healthz,/version,/version/"
_CERTIFICATES = "certificates.k8s.io"


def rule(line: str) -> dict[str, Any]:
    """One PolicyRule from its line."""
    verbs, groups, resources, *rest = line.split()
    made: dict[str, Any] = {"verbs": _VERBS.get(verbs, verbs).split(",")}
    if groups == "url":
        return made | {"nonResourceURLs": resources.split(",")}
    made["apiGroups"] = ["" if g == "core" else g for g in groups.split(",")]
    made["resources"] = resources.split(",")
    if rest:
        made["resourceNames"] = rest[0].removeprefix("names=").split(",")
    return made


def rules(text: str) -> list[dict[str, Any]]:
    """Rules from lines; empty ones are skipped."""
    return [rule(line) for line in text.splitlines() if line.strip()]


NODE = rules(f"""
create authentication.k8s.io tokenreviews
create authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews
read core services
create,get,list,watch core nodes
patch,update core nodes/status
patch,update core nodes
create,patch,update core events
create,delete core pods
patch,update core pods/status
create core pods/eviction
create,get,list,watch {_CERTIFICATES} certificatesigningrequests
create,delete,get,patch,update coordination.k8s.io leases
get,list,watch storage.k8s.io csidrivers
get,list,watch node.k8s.io runtimeclasses
patch core pods/resize
get,list,watch certificates.k8s.io clustertrustbundles
""")

_VIEW = """
read core configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status
read core bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status
read core namespaces
read discovery.k8s.io endpointslices
read apps controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status
read autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status
read batch cronjobs,cronjobs/status,jobs,jobs/status
read extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale
read policy poddisruptionbudgets,poddisruptionbudgets/status
read networking.k8s.io ingresses,ingresses/status,networkpolicies
read resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates
"""

_EDIT = """
read core pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy
impersonate core serviceaccounts
write core pods,pods/attach,pods/exec,pods/portforward,pods/proxy
create core pods/eviction
write core configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy
create core serviceaccounts/token
write apps daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale
write autoscaling horizontalpodautoscalers
write batch cronjobs,jobs
write extensions daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale
write policy poddisruptionbudgets
write networking.k8s.io ingresses,networkpolicies
all coordination.k8s.io leases
write resource.k8s.io resourceclaims,resourceclaimtemplates
"""

_ADMIN = f"""
create authorization.k8s.io localsubjectaccessreviews
all {GROUP} rolebindings,roles
"""

# Cluster roles other than those of controllers: name -> rules.
CLUSTER_ROLES: dict[str, str] = {
    "cluster-admin": """
* * *
* url *
""",
    "system:discovery": f"get url /api,/api/*,/apis,/apis/*,/openapi,/openapi/*,{_HEALTH}",
    "system:public-info-viewer": f"get url {_HEALTH}",
    "system:monitoring": "get url /metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*",
    "system:basic-user": """
create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews
create authentication.k8s.io selfsubjectreviews
""",
    "system:aggregate-to-admin": _ADMIN,
    "system:aggregate-to-edit": _EDIT,
    "system:aggregate-to-view": _VIEW,
    "system:aggregated-metrics-reader": "get,list,watch metrics.k8s.io nodes,pods",
    "system:heapster": """
read core events,namespaces,nodes,pods
read extensions deployments
""",
    "system:node-problem-detector": f"""
get core nodes
patch core nodes/status
{_EVENTS}
""",
    "system:node-proxier": f"""
list,watch core endpoints,services
get,list,watch core nodes
{_EVENTS}
list,watch discovery.k8s.io endpointslices
get,list,watch networking.k8s.io servicecidrs
""",
    "system:kubelet-api-admin": """
get,list,watch core nodes
proxy core nodes
* core nodes/log,nodes/metrics,nodes/proxy,nodes/stats,nodes/healthz,nodes/configz,nodes/pods,nodes/checkpoint
""",
    "system:node-bootstrapper": f"create,get,list,watch {_CERTIFICATES} certificatesigningrequests",
    "system:auth-delegator": """
create authentication.k8s.io tokenreviews
create authorization.k8s.io subjectaccessreviews
""",
    "system:kube-aggregator": "get,list,watch core endpoints,services",
    "system:kube-controller-manager": f"""
{_EVENTS}
create coordination.k8s.io leases
get,update coordination.k8s.io leases names=kube-controller-manager
create core secrets,serviceaccounts
delete core secrets
get core configmaps,namespaces,secrets,serviceaccounts
update core secrets,serviceaccounts
create authentication.k8s.io tokenreviews
create authorization.k8s.io subjectaccessreviews
list,watch * *
create core serviceaccounts/token
""",
    "system:kube-scheduler": f"""
{_EVENTS}
create coordination.k8s.io leases
get,list,watch,update coordination.k8s.io leases names=kube-scheduler
read core nodes
delete,get,list,watch core pods
create core bindings,pods/binding
patch,update core pods/status
read core replicationcontrollers,services,namespaces
read apps,extensions replicasets
read apps statefulsets
read policy poddisruptionbudgets
read core persistentvolumeclaims,persistentvolumes
create authentication.k8s.io tokenreviews
create authorization.k8s.io subjectaccessreviews
read storage.k8s.io csinodes,csidrivers,csistoragecapacities,volumeattachments
read resource.k8s.io deviceclasses,resourceclaims,resourceslices
patch,update resource.k8s.io resourceclaims/status
""",
    "system:volume-scheduler": """
get,list,patch,update,watch core persistentvolumes
read storage.k8s.io storageclasses
get,list,patch,update,watch core persistentvolumeclaims
""",
    "system:persistent-volume-provisioner": """
create,delete,get,list,watch core persistentvolumes
get,list,update,watch core persistentvolumeclaims
read storage.k8s.io storageclasses
watch core events
create,get,list,patch,update,watch core events
""",
    "system:kube-dns": """
list,watch core endpoints,services
list,watch discovery.k8s.io endpointslices
""",
    "system:service-account-issuer-discovery": (
        "get url /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/"
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        f"create {_CERTIFICATES} certificatesigningrequests/nodeclient"
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        f"create {_CERTIFICATES} certificatesigningrequests/selfnodeclient"
    ),
    **{
        f"system:certificates.k8s.io:{signer}-approver": f"approve {_CERTIFICATES} signers names=kubernetes.io/{signer}"
        for signer in (
            "kube-apiserver-client",
            "kube-apiserver-client-kubelet",
            "kubelet-serving",
            "legacy-unknown",
        )
    },
    # Ours: the agent is kubelet, service proxy, DNS and network policy in one process with one identity.
    "sampan:node-agent": """
list,watch core endpoints,namespaces,nodes,pods,services
list,watch discovery.k8s.io endpointslices
list,watch networking.k8s.io networkpolicies,servicecidrs
create,patch,update events.k8s.io events
""",
}


# Cluster roles that are put together of others by label: name -> (label that collects, labels it carries itself).
def controller_rules(text: str) -> list[dict[str, Any]]:
    """Rules of a controller. Where the original's may update, ours may also patch: they write only what changes."""
    made = rules(text)
    for found in made:
        if "update" in found["verbs"] and "patch" not in found["verbs"]:
            found["verbs"] = sorted([*found["verbs"], "patch"])
    return made


AGGREGATED = {
    "admin": ("admin", ()),
    "edit": ("edit", ("admin",)),
    "view": ("view", ("edit",)),
}

# Roles that take part in aggregation though their names do not say so (metrics-server brings this one elsewhere).
LABELLED = {
    "system:aggregated-metrics-reader": {"rbac.authorization.k8s.io/aggregate-to-view": "true"},
}

# Rules of the controllers, each bound to the service account of its name in kube-system.
CONTROLLERS: dict[str, str] = {
    "attachdetach-controller": f"""
list,watch core persistentvolumeclaims,persistentvolumes
get,list,watch core nodes
patch,update core nodes/status
list,watch core pods
create,delete,get,list,patch,update,watch storage.k8s.io volumeattachments
get,list,watch storage.k8s.io csidrivers,csinodes
{_EVENTS}
""",
    "certificate-controller": f"""
delete,get,list,watch {_CERTIFICATES} certificatesigningrequests
update {_CERTIFICATES} certificatesigningrequests/approval,certificatesigningrequests/status
approve {_CERTIFICATES} signers names=kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving
sign {_CERTIFICATES} signers names=kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown
create authorization.k8s.io subjectaccessreviews
{_EVENTS}
""",
    "clusterrole-aggregation-controller": f"escalate,get,list,patch,update,watch {GROUP} clusterroles",
    "cronjob-controller": f"""
get,list,update,watch batch cronjobs
create,delete,get,list,patch,update,watch batch jobs
update batch cronjobs/finalizers,cronjobs/status
delete,list core pods
{_EVENTS}
""",
    "daemon-set-controller": f"""
get,list,watch apps,extensions daemonsets
update apps,extensions daemonsets/finalizers,daemonsets/status
list,watch core nodes
create,delete,list,patch,watch core pods
create core pods/binding
create,delete,get,list,patch,update,watch apps controllerrevisions
{_EVENTS}
""",
    "deployment-controller": f"""
get,list,update,watch apps,extensions deployments
update apps,extensions deployments/finalizers,deployments/status
create,delete,get,list,patch,update,watch apps,extensions replicasets
get,list,update,watch core pods
{_EVENTS}
""",
    "disruption-controller": f"""
get,list,watch apps,extensions deployments,replicasets
get,list,watch core replicationcontrollers
get,list,watch policy poddisruptionbudgets
get,list,watch apps statefulsets
update policy poddisruptionbudgets/status
get,list,watch core pods
patch,update core pods/status
get * */scale
{_EVENTS}
""",
    "endpoint-controller": f"""
get,list,watch core pods,services
create,delete,get,list,update,watch core endpoints
create core endpoints/restricted
{_EVENTS}
""",
    "endpointslice-controller": f"""
get,list,watch core nodes,pods,services
update core services/finalizers
create,delete,get,list,update,watch discovery.k8s.io endpointslices
create discovery.k8s.io endpointslices/restricted
{_EVENTS}
""",
    "endpointslicemirroring-controller": f"""
get,list,watch core endpoints,services
update core services/finalizers
update core endpoints/finalizers
create,delete,get,list,update,watch discovery.k8s.io endpointslices
create discovery.k8s.io endpointslices/restricted
{_EVENTS}
""",
    "ephemeral-volume-controller": f"""
get,list,watch core pods
update core pods/finalizers
create,get,list,watch core persistentvolumeclaims
{_EVENTS}
""",
    "expand-controller": f"""
get,list,patch,update,watch core persistentvolumes
get,list,watch core persistentvolumeclaims
patch,update core persistentvolumeclaims/status
get,list,watch storage.k8s.io storageclasses
{_EVENTS}
""",
    "generic-garbage-collector": f"""
delete,get,list,patch,update,watch * *
{_EVENTS}
""",
    "horizontal-pod-autoscaler": f"""
get,list,watch autoscaling horizontalpodautoscalers
update autoscaling horizontalpodautoscalers/status
get,update * */scale
list core pods
get,list * *
list metrics.k8s.io pods
get,list custom.metrics.k8s.io,external.metrics.k8s.io *
{_EVENTS}
""",
    "job-controller": f"""
get,list,patch,update,watch batch jobs
update batch jobs/finalizers,jobs/status
create,delete,list,patch,watch core pods
{_EVENTS}
""",
    "legacy-service-account-token-cleaner": """
get core configmaps names=kube-apiserver-legacy-service-account-token-tracking
delete,patch core secrets
""",
    "namespace-controller": """
delete,get,list,watch core namespaces
update core namespaces/finalize,namespaces/status
delete,deletecollection,get,list * *
""",
    "node-controller": f"""
delete,get,list,patch,update core nodes
patch,update core nodes/status
delete,get,list,watch core pods
patch,update core pods/status
list,watch networking.k8s.io servicecidrs
get,list,watch coordination.k8s.io leases
{_EVENTS}
""",
    "persistent-volume-binder": f"""
create,delete,get,list,update,watch core persistentvolumes
update core persistentvolumes/status
get,list,update,watch core persistentvolumeclaims
update core persistentvolumeclaims/status
create,delete,get,list,watch core pods
get,list,watch storage.k8s.io storageclasses
get,list core nodes
create,delete,get,update core endpoints,services
get,list core secrets
watch core events
{_EVENTS}
""",
    "pod-garbage-collector": """
delete,list,watch core pods
get,list core nodes
patch,update core pods/status
""",
    "podcertificaterequestcleaner": f"delete,get,list,watch {_CERTIFICATES} podcertificaterequests",
    "pv-protection-controller": f"""
get,list,update,watch core persistentvolumes
{_EVENTS}
""",
    "pvc-protection-controller": f"""
get,list,update,watch core persistentvolumeclaims
get,list,watch core pods
{_EVENTS}
""",
    "replicaset-controller": f"""
get,list,update,watch apps,extensions replicasets
update apps,extensions replicasets/finalizers,replicasets/status
create,delete,list,patch,watch core pods
{_EVENTS}
""",
    "replication-controller": f"""
get,list,update,watch core replicationcontrollers
update core replicationcontrollers/finalizers,replicationcontrollers/status
create,delete,list,patch,watch core pods
{_EVENTS}
""",
    "resource-claim-controller": f"""
get,list,watch core pods
update core pods/finalizers
create,delete,get,list,watch resource.k8s.io resourceclaims
get,list,watch resource.k8s.io resourceclaimtemplates
patch,update core pods/status
patch,update resource.k8s.io resourceclaims,resourceclaims/status
{_EVENTS}
""",
    "resourcequota-controller": f"""
list,watch * *
update core resourcequotas/status
{_EVENTS}
""",
    "root-ca-cert-publisher": f"""
create,get,list,update,watch core configmaps
{_EVENTS}
""",
    "route-controller": f"""
list,watch core nodes
patch core nodes/status
{_EVENTS}
""",
    "selinux-warning-controller": "list,watch core persistentvolumeclaims,persistentvolumes,pods",
    "service-account-controller": f"""
create core serviceaccounts
{_EVENTS}
""",
    "service-cidrs-controller": f"""
get,list,patch,update,watch networking.k8s.io servicecidrs
patch,update networking.k8s.io servicecidrs/finalizers,servicecidrs/status
get,list,watch networking.k8s.io ipaddresses
{_EVENTS}
""",
    "service-controller": f"""
get,list,watch core services
patch,update core services/status
list,watch core nodes
{_EVENTS}
""",
    "statefulset-controller": f"""
list,watch core pods
get,list,watch apps statefulsets
update apps statefulsets/finalizers,statefulsets/status
create,delete,get,patch,update core pods
create,delete,get,list,patch,update,watch apps controllerrevisions
create,delete,get,list,update core persistentvolumeclaims
{_EVENTS}
""",
    "taint-eviction-controller": f"""
get,list core nodes
delete,get,list core pods
patch,update core pods/status
{_EVENTS}
""",
    "ttl-after-finished-controller": f"""
delete,get,list,watch batch jobs
{_EVENTS}
""",
    "ttl-controller": f"""
list,patch,update,watch core nodes
{_EVENTS}
""",
    "validatingadmissionpolicy-status-controller": """
get,list,watch admissionregistration.k8s.io validatingadmissionpolicies
get,patch,update admissionregistration.k8s.io validatingadmissionpolicies/status
""",
}

# Role -> subjects "Kind:name" (service accounts are of kube-system).
CLUSTER_BINDINGS: dict[str, str] = {
    "cluster-admin": "Group:system:masters",
    "system:monitoring": "Group:system:monitoring",
    "system:discovery": "Group:system:authenticated",
    "system:basic-user": "Group:system:authenticated",
    "system:public-info-viewer": "Group:system:authenticated Group:system:unauthenticated",
    "system:node-proxier": "User:system:kube-proxy",
    "system:kube-controller-manager": "User:system:kube-controller-manager",
    "system:kube-dns": "ServiceAccount:kube-dns",
    "system:kube-scheduler": "User:system:kube-scheduler",
    "system:volume-scheduler": "User:system:kube-scheduler",
    "system:node": "",
    "system:service-account-issuer-discovery": "Group:system:serviceaccounts",
    "sampan:node-agent": "Group:system:nodes",
}

# What kubeadm adds so that machines can join with a bootstrap token: binding name -> (role, subject).
JOIN_BINDINGS: dict[str, tuple[str, str]] = {
    "kubeadm:kubelet-bootstrap": ("system:node-bootstrapper", "Group:system:bootstrappers"),
    "kubeadm:node-autoapprove-bootstrap": (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "Group:system:bootstrappers",
    ),
    "kubeadm:node-autoapprove-certificate-rotation": (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "Group:system:nodes",
    ),
}

# (namespace, role) -> (rules, subjects).
NAMESPACED: dict[tuple[str, str], tuple[str, str]] = {
    ("kube-system", "extension-apiserver-authentication-reader"): (
        "get,list,watch core configmaps names=extension-apiserver-authentication",
        "User:system:kube-controller-manager User:system:kube-scheduler",
    ),
    ("kube-system", "system:controller:bootstrap-signer"): (
        "get,list,watch core secrets",
        "ServiceAccount:bootstrap-signer",
    ),
    ("kube-system", "system:controller:cloud-provider"): (
        "create,get,list,update,watch core configmaps",
        "ServiceAccount:cloud-provider",
    ),
    ("kube-system", "system:controller:token-cleaner"): (
        f"delete,get,list,watch core secrets\n{_EVENTS}",
        "ServiceAccount:token-cleaner",
    ),
    ("kube-system", "system::leader-locking-kube-controller-manager"): (
        "watch core configmaps\nget,update core configmaps names=kube-controller-manager",
        "User:system:kube-controller-manager ServiceAccount:kube-controller-manager",
    ),
    ("kube-system", "system::leader-locking-kube-scheduler"): (
        "watch core configmaps\nget,update core configmaps names=kube-scheduler",
        "User:system:kube-scheduler ServiceAccount:kube-scheduler",
    ),
    # Ours: what the nodes' DNS is told of stub domains.
    ("kube-system", "sampan:dns-settings"): (
        "get,list,watch core configmaps names=kube-dns",
        "Group:system:nodes",
    ),
    ("kube-public", "system:controller:bootstrap-signer"): (
        f"get,list,watch core configmaps\nupdate core configmaps names=cluster-info\n{_EVENTS}",
        "ServiceAccount:bootstrap-signer",
    ),
}
