"""What every cluster begins with: namespaces, default roles, priority classes, fairness levels, its own Service.

`ensure` puts in what is missing at every start and adds rights that a newer version's default roles have; what an
administrator took away on purpose stays away when the object says `autoupdate: "false"`.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from sampan.api.registry import Registry
from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.server.auth import default_roles as roles

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
SERVICE_CIDR = "10.96.0.0/16"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_RBAC = f"{roles.GROUP}/v1"
_FLOW = "flowcontrol.apiserver.k8s.io/v1"

# Where objects of each kind are stored and asked for.
RESOURCES = {
    "Namespace": "namespaces",
    "ClusterRole": f"clusterroles.{roles.GROUP}",
    "ClusterRoleBinding": f"clusterrolebindings.{roles.GROUP}",
    "Role": f"roles.{roles.GROUP}",
    "RoleBinding": f"rolebindings.{roles.GROUP}",
    "PriorityClass": "priorityclasses.scheduling.k8s.io",
    "PriorityLevelConfiguration": "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    "FlowSchema": "flowschemas.flowcontrol.apiserver.k8s.io",
    "ServiceCIDR": "servicecidrs.networking.k8s.io",
    "Service": "services",
    "Endpoints": "endpoints",
    "EndpointSlice": "endpointslices.discovery.k8s.io",
    "ConfigMap": "configmaps",
    "APIService": "apiservices.apiregistration.k8s.io",
}


def objects(service_cidrs: Iterable[str] = (SERVICE_CIDR,)) -> list[Object]:
    """Everything but the `kubernetes` Service, namespaces first."""
    cidr = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}}
    return [
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in NAMESPACES),
        *_priority_classes(),
        *_cluster_roles(),
        *_bindings(),
        *_namespaced_roles(),
        *_fairness(),
        cidr | {"spec": {"cidrs": list(service_cidrs)}},
    ]


# Roles


def _rbac(
    kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None, **content: Any
) -> Object:
    metadata: Object = {
        "name": name,
        "annotations": {AUTOUPDATE: "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **(labels or {})},
    }
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": _RBAC, "kind": kind, "metadata": metadata, **content}


def _cluster_roles() -> Iterator[Object]:
    for name, text in roles.CLUSTER_ROLES.items():
        target = name.removeprefix("system:aggregate-to-")
        labels = {_AGGREGATE + target: "true"} if target != name else dict(roles.LABELLED.get(name, {}))
        yield _rbac("ClusterRole", name, labels=labels, rules=roles.rules(text))
    yield _rbac("ClusterRole", "system:node", rules=roles.NODE)
    for name, (target, own) in roles.AGGREGATED.items():
        selector = {"clusterRoleSelectors": [{"matchLabels": {_AGGREGATE + target: "true"}}]}
        labels = {_AGGREGATE + o: "true" for o in own}
        yield _rbac("ClusterRole", name, labels=labels, aggregationRule=selector, rules=_aggregated(name))
    for name, text in roles.CONTROLLERS.items():
        yield _rbac("ClusterRole", f"system:controller:{name}", rules=roles.controller_rules(text))


def _aggregated(name: str) -> list[Object]:
    """What the aggregation controller will compute, so that these roles work before it runs."""
    lower = {"admin": "edit", "edit": "view"}.get(name)
    found = _aggregated(lower) if lower else []
    own = roles.rules(roles.CLUSTER_ROLES[f"system:aggregate-to-{name}"])
    for other, labels in roles.LABELLED.items():
        if _AGGREGATE + name in labels:
            own += roles.rules(roles.CLUSTER_ROLES[other])
    return [*found, *(r for r in own if r not in found)]


def _subjects(text: str) -> list[Object]:
    made = []
    for word in text.split():
        kind, _, name = word.partition(":")
        if kind == "ServiceAccount":
            made.append({"kind": kind, "name": name, "namespace": "kube-system"})
        else:
            made.append({"kind": kind, "apiGroup": roles.GROUP, "name": name})
    return made


def _binding(
    name: str, role: str, subjects: str, namespace: str = "", role_kind: str = "ClusterRole"
) -> Object:
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    ref = {"apiGroup": roles.GROUP, "kind": role_kind, "name": role}
    made = _rbac(kind, name, namespace, roleRef=ref)
    if subjects:
        made["subjects"] = _subjects(subjects)
    return made


def _bindings() -> Iterator[Object]:
    for role, subjects in roles.CLUSTER_BINDINGS.items():
        yield _binding(role, role, subjects)
    for name in roles.CONTROLLERS:
        role = f"system:controller:{name}"
        yield _binding(role, role, f"ServiceAccount:{name}")
    for name, (role, subjects) in roles.JOIN_BINDINGS.items():
        yield _binding(name, role, subjects)


def _namespaced_roles() -> Iterator[Object]:
    for (namespace, name), (text, subjects) in roles.NAMESPACED.items():
        yield _rbac("Role", name, namespace, rules=roles.rules(text))
        yield _binding(name, name, subjects, namespace, "Role")


# Priorities


def _priority_classes() -> Iterator[Object]:
    for name, value, text in (
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ):
        yield {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": text,
            "preemptionPolicy": "PreemptLowerPriority",
        }


# API priority and fairness. Source: Kubernetes documentation, "API Priority and Fairness", "Defaults".

# name -> (nominal shares, lendable percent, (queues, hand size, queue length) or None to reject)
_LEVELS: dict[str, tuple[int, int, tuple[int, int, int] | None]] = {
    "system": (30, 33, (64, 6, 50)),
    "node-high": (40, 25, (64, 6, 50)),
    "leader-election": (10, 0, (16, 4, 50)),
    "workload-high": (40, 50, (128, 6, 50)),
    "workload-low": (100, 90, (128, 6, 50)),
    "global-default": (20, 50, (128, 6, 50)),
    "catch-all": (5, 0, None),
}

_ANY_RESOURCE = {
    "verbs": ["*"],
    "apiGroups": ["*"],
    "resources": ["*"],
    "namespaces": ["*"],
    "clusterScope": True,
}
_ANY_PATH = {"verbs": ["*"], "nonResourceURLs": ["*"]}
_LEASES = {
    "verbs": ["get", "create", "update"],
    "apiGroups": ["coordination.k8s.io"],
    "resources": ["leases"],
    "namespaces": ["kube-system"],
}
_HEALTH = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz"]}
_NODE_HIGH = (
    {
        "verbs": ["*"],
        "apiGroups": [""],
        "resources": ["nodes", "nodes/status"],
        "namespaces": ["*"],
        "clusterScope": True,
    },
    {"verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]},
)

# (name, level, precedence, distinguisher, subjects, resource rules, path rules)
_SCHEMAS: tuple[tuple[str, str, int, str, str, tuple[Object, ...], tuple[Object, ...]], ...] = (
    ("exempt", "exempt", 1, "", "Group:system:masters", (_ANY_RESOURCE,), (_ANY_PATH,)),
    ("probes", "exempt", 2, "", "Group:system:unauthenticated Group:system:authenticated", (), (_HEALTH,)),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        "User:system:kube-controller-manager User:system:kube-scheduler ServiceAccount:*",
        (_LEASES,),
        (),
    ),
    (
        "endpoint-controller",
        "workload-high",
        150,
        "ByUser",
        "User:system:kube-controller-manager ServiceAccount:endpoint-controller ServiceAccount:endpointslicemirroring-controller",
        (
            {
                "verbs": ["get", "create", "update"],
                "apiGroups": [""],
                "resources": ["endpoints"],
                "namespaces": ["*"],
            },
        ),
        (),
    ),
    ("workload-leader-election", "leader-election", 200, "ByUser", "ServiceAccount:*", ({**_LEASES, "namespaces": ["*"]},), ()),
    ("system-node-high", "node-high", 400, "ByUser", "Group:system:nodes", _NODE_HIGH, ()),
    ("system-nodes", "system", 500, "ByUser", "Group:system:nodes", (_ANY_RESOURCE,), (_ANY_PATH,)),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace", "User:system:kube-controller-manager", (_ANY_RESOURCE,), (_ANY_PATH,)),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", "User:system:kube-scheduler", (_ANY_RESOURCE,), (_ANY_PATH,)),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", "ServiceAccount:*", (_ANY_RESOURCE,), (_ANY_PATH,)),
    ("service-accounts", "workload-low", 9000, "ByUser", "Group:system:serviceaccounts", (_ANY_RESOURCE,), (_ANY_PATH,)),
    (
        "global-default",
        "global-default",
        9900,
        "ByUser",
        "Group:system:unauthenticated Group:system:authenticated",
        (_ANY_RESOURCE,),
        (_ANY_PATH,),
    ),
    (
        "catch-all",
        "catch-all",
        10000,
        "ByUser",
        "Group:system:unauthenticated Group:system:authenticated",
        (_ANY_RESOURCE,),
        (_ANY_PATH,),
    ),
)  # fmt: skip


def _fairness() -> Iterator[Object]:
    exempt = {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}
    yield _flow("PriorityLevelConfiguration", "exempt", exempt)
    for name, (shares, lendable, queuing) in _LEVELS.items():
        response: Object = {"type": "Reject"}
        if queuing:
            queues, hand, length = queuing
            response = {
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length},
            }
        limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
        yield _flow("PriorityLevelConfiguration", name, {"type": "Limited", "limited": limited})
    for name, level, precedence, distinguisher, subjects, resources, paths in _SCHEMAS:
        rule: Object = {"subjects": [_flow_subject(s) for s in subjects.split()]}
        if resources:
            rule["resourceRules"] = list(resources)
        if paths:
            rule["nonResourceRules"] = list(paths)
        spec: Object = {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "rules": [rule],
        }
        if distinguisher:
            spec["distinguisherMethod"] = {"type": distinguisher}
        yield _flow("FlowSchema", name, spec)


def _flow(kind: str, name: str, spec: Object) -> Object:
    metadata = {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}
    return {"apiVersion": _FLOW, "kind": kind, "metadata": metadata, "spec": spec}


def _flow_subject(text: str) -> Object:
    kind, _, name = text.partition(":")
    if kind == "ServiceAccount":
        return {"kind": kind, "serviceAccount": {"namespace": "kube-system", "name": name}}
    return {"kind": kind, kind.lower(): {"name": name}}


# The API's own Service


def kubernetes_service(address: str, port: int, cluster_ip: str = "10.96.0.1") -> list[Object]:
    """Service, Endpoints and EndpointSlice `default/kubernetes`, leading to this server at `address:port`."""
    version = ipaddress.ip_address(address).version
    labels = {"component": "apiserver", "provider": "kubernetes"}
    meta = {"name": "kubernetes", "namespace": "default"}
    mirrored = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta | {"labels": labels},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": cluster_ip,
                "clusterIPs": [cluster_ip],
                "ipFamilies": [f"IPv{ipaddress.ip_address(cluster_ip).version}"],
                "ipFamilyPolicy": "SingleStack",
                "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": meta | {"labels": mirrored},
            "subsets": [
                {
                    "addresses": [{"ip": address}],
                    "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
                }
            ],
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta | {"labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": f"IPv{version}",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        },
    ]


# Aggregated servers: what they must know to believe this one, and which group versions are not theirs


def authentication(client_ca: str, front_proxy_ca: str) -> Object:
    """The ConfigMap from which aggregated servers learn whose certificates tell who a caller is (PEM, or "")."""
    data = {"client-ca-file": client_ca} if client_ca else {}
    if front_proxy_ca:
        data |= {
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-client-ca-file": front_proxy_ca,
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }
    metadata = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


_FIRST_GROUPS = {"": 18000, "apiregistration.k8s.io": 18000, "apps": 17800}  # others follow, a hundred apart


def api_services(registry: Registry) -> list[Object]:
    """An APIService for each group version that is built in, the most important group first."""
    made, rank = [], 17800
    for group in registry.groups():
        if group == "metrics.k8s.io":  # an add-on's, as a rule: whoever installs one may register it
            continue
        rank = _FIRST_GROUPS.get(group, rank - 100)
        for place, version in enumerate(registry.versions(group)):
            spec: Object = {"version": version, "groupPriorityMinimum": rank, "versionPriority": 15 - place}
            if group:
                spec["group"] = group
            labels = {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
            metadata = {"name": f"{version}.{group}", "labels": labels}
            made.append(
                {
                    "apiVersion": "apiregistration.k8s.io/v1",
                    "kind": "APIService",
                    "metadata": metadata,
                    "spec": spec,
                }
            )
    return made


# Putting it there


async def ensure(client: Client, wanted: Iterable[Object] | None = None) -> int:
    """Create what is missing and extend default roles; returns how many writes that took.

    `client` must act as a member of system:masters. Namespaces come first, the rest side by side.
    """
    wanted = list(objects() if wanted is None else wanted)
    first = [o for o in wanted if o["kind"] == "Namespace"]
    rest = [o for o in wanted if o["kind"] != "Namespace"]
    return await _ensure(client, first) + await _ensure(client, rest)


async def _ensure(client: Client, wanted: list[Object]) -> int:
    kinds = dict.fromkeys(o["kind"] for o in wanted)
    lists = await asyncio.gather(*(client.list(RESOURCES[k]) for k in kinds))
    present = {
        _key(kind, o): o for kind, found in zip(kinds, lists, strict=True) for o in found.get("items") or ()
    }
    return sum(await asyncio.gather(*(_one(client, o, present.get(_key(o["kind"], o))) for o in wanted)))


def _key(kind: str, obj: Object) -> tuple[str, str, str]:
    return kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


async def _one(client: Client, wanted: Object, live: Object | None) -> int:
    resource = RESOURCES[wanted["kind"]]
    try:
        if live is None:
            await client.create(resource, wanted)
            return 1
        changed = merged(live, wanted)
        if changed is None:
            return 0
        await client.update(resource, changed)
        return 1
    except ApiError as error:
        if error.code == 409:  # another server did the same just now
            return 0
        raise


def merged(live: Object, wanted: Object) -> Object | None:
    """The live object with what it lacks of the wanted one; None when nothing has to be written."""
    kind = wanted["kind"]
    if kind == "ConfigMap":  # others may add to it
        data = {**(live.get("data") or {}), **wanted["data"]}
        return None if live.get("data") == data else live | {"data": data}
    if kind in ("Service", "Endpoints", "EndpointSlice"):
        return _readdressed(live, wanted)
    if wanted.get("apiVersion") != _RBAC:
        return None
    if (live["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    result = dict(live)
    for field in ("rules", "subjects"):
        have = live.get(field) or []
        if field == "rules" and wanted.get("aggregationRule"):
            continue  # its controller's
        lacking = [x for x in wanted.get(field) or [] if x not in have]
        if lacking:
            result[field] = [*have, *lacking]
    return result if result != live else None


def _readdressed(live: Object, wanted: Object) -> Object | None:
    """The API's own Service follows the address this server is reached at."""
    if wanted["kind"] == "Service":
        if live["spec"].get("ports") == wanted["spec"]["ports"]:
            return None
        return live | {"spec": live["spec"] | {"ports": wanted["spec"]["ports"]}}
    changed = live | {k: v for k, v in wanted.items() if k in ("subsets", "endpoints", "ports")}
    return changed if changed != live else None
