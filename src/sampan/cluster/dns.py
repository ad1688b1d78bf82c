"""Behind the Service `kube-dns` stand the nodes: every Ready one answers DNS at its own address too.

Pods never go that way: their node takes the Service's address itself. The host does, and whoever looks at the endpoints.
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Key, Plan, Update, View
from sampan.controllers import Rule

NAMESPACE, NAME = "kube-system", "kube-dns"
LABELS = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))


def service(*addresses: str) -> Object:
    """The Service at the cluster's DNS address, or at one of each IP version. It selects no pods."""
    ports = [{"name": n, "port": 53, "protocol": protocol, "targetPort": 53} for n, protocol in PORTS]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": LABELS},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addresses[0],
            "clusterIPs": list(addresses),
            "ports": ports,
        },
    }


def rule() -> Rule:
    """Keeps the Endpoints of kube-dns at the addresses of Ready nodes; the mirroring controller makes slices of them."""
    return Rule("endpoint-controller/dns", "services", reconcile, {"nodes": _dns}, reads=("endpoints",))


def _dns(node: Object, view: View) -> list[Key]:
    return [Key(NAMESPACE, NAME)]


def reconcile(service: Object, view: View, now: float) -> Plan:
    """The Service `kube-dns` has no selector: its endpoints are all nodes that are Ready, for each answers itself."""
    if (meta.namespace(service), meta.name(service)) != (NAMESPACE, NAME) or service["spec"].get("selector"):
        return Plan()
    ready = [node for node in view.list("nodes") if _ready(node)]
    addresses = [{"ip": ip, "nodeName": meta.name(node)} for node in ready for ip in _addresses(node)]
    ports = [{"name": name, "port": 53, "protocol": protocol} for name, protocol in PORTS]
    subsets = [{"addresses": addresses, "ports": ports}] if addresses else []
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": dict(LABELS)}
    wanted = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
    old = view.get("endpoints", NAME, NAMESPACE)
    if old is None:
        return Plan(why=f"{len(addresses)} nodes answer").then(Create("endpoints", wanted, NAMESPACE))
    if (old.get("subsets") or []) == subsets:
        return Plan()
    return Plan(why=f"{len(addresses)} nodes answer").then(Update("endpoints", old | {"subsets": subsets}))


def _ready(node: Object) -> bool:
    return not meta.deleted(node) and (meta.condition(node, "Ready") or {}).get("status") == "True"


def _addresses(node: Object) -> list[str]:
    found = node.get("status", {}).get("addresses") or ()
    return [a["address"] for a in found if a.get("type") == "InternalIP"]
