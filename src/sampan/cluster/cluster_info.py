"""What a cluster keeps ready for machines that join it: where it is, and what it is like.

The objects and rights are kubeadm's, so that its users find what they know; `sampan-config` is ours. See
docs/decisions/0013-joining.md. The other side is `join`.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict

import yaml

from sampan.base.objects import Object
from sampan.cluster.config import ClusterConfig
from sampan.controllers import bootstrap_signer

PUBLIC, INFO = bootstrap_signer.NAMESPACE, bootstrap_signer.NAME
SETTINGS = "sampan-config"
GROUP = "system:bootstrappers:kubeadm:default-node-token"  # of those who use tokens
_RBAC = "rbac.authorization.k8s.io"
_TOLD = (
    "pod_cidr",
    "service_cidr",
    "dns_ip",
    "api_service_ip",
    "load_balancer_cidr",
    "fabric",
    "ip_family",
    "pod_cidr6",
    "service_cidr6",
    "load_balancer_cidr6",
    "fabric6",
    "pod_network",
    "network_id",
    "first_machine",
    "mtu",
    "node_monitor_grace_period",
    "node_status_update_frequency",
    "node_lease_duration",
)


def url(config: ClusterConfig) -> str:
    """Where other machines find the API of this one."""
    host = f"[{config.machine}]" if ":" in config.machine else config.machine
    return f"https://{host}:{config.port}"


def objects(config: ClusterConfig, ca: str) -> list[Object]:
    """What must exist in a cluster that may be joined; none in one that keeps to itself. `ca` is PEM."""
    if not config.machine:
        return []
    settings = {name: value for name, value in asdict(config).items() if name in _TOLD}
    return [
        _configmap(PUBLIC, INFO, {"kubeconfig": _kubeconfig(url(config), ca)}),
        _configmap("kube-system", SETTINGS, {"cluster": json.dumps(settings)}),
        *_allow(
            "kubeadm:bootstrap-signer-clusterinfo", PUBLIC, "configmaps", INFO, ("User", "system:anonymous")
        ),
        *_allow(
            "sampan:config",
            "kube-system",
            "configmaps",
            SETTINGS,
            ("Group", GROUP),
            ("Group", "system:nodes"),
        ),
        *_allow("kubeadm:get-nodes", "", "nodes", "", ("Group", GROUP)),
    ]


def _configmap(namespace: str, name: str, data: dict[str, str]) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _kubeconfig(server: str, ca: str) -> str:
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca.encode()).decode()}
    clusters = [{"name": "", "cluster": cluster}]
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": clusters})


def _allow(name: str, namespace: str, resource: str, only: str, *subjects: tuple[str, str]) -> list[Object]:
    """A role to get a resource, and its binding."""
    kind = "Role" if namespace else "ClusterRole"
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    rule: Object = {"apiGroups": [""], "resources": [resource], "verbs": ["get"]}
    if only:
        rule["resourceNames"] = [only]
    bound = [{"kind": k, "name": n, "apiGroup": _RBAC} for k, n in subjects]
    common = {"apiVersion": f"{_RBAC}/v1", "metadata": metadata}
    return [
        common | {"kind": kind, "rules": [rule]},
        common
        | {
            "kind": f"{kind}Binding",
            "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
            "subjects": bound,
        },
    ]
