"""What every namespace is given: the ServiceAccount `default` and the certificate authority of the API server.

Source: "Service Accounts", "Certificate signing" (kube-root-ca.crt); both come back when somebody deletes them.
"""

from __future__ import annotations

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Key, Patch, Plan, View

from .base import Mapper, Rule

_CA = "kube-root-ca.crt"


def rules(ca: str) -> list[Rule]:
    """`ca` is PEM text; with an empty one no ConfigMap is made."""

    def publish(namespace: Object, view: View, now: float) -> Plan:
        return root_ca(namespace, view, ca)

    found = [
        Rule(
            "service-account-controller", "namespaces", account, {"serviceaccounts": _namespace_of("default")}
        )
    ]
    if ca:
        found.append(
            Rule("root-ca-cert-publisher", "namespaces", publish, {"configmaps": _namespace_of(_CA)})
        )
    return found


def _namespace_of(name: str) -> Mapper:
    return lambda obj, view: [Key("", meta.namespace(obj))] if meta.name(obj) == name else []


def account(namespace: Object, view: View, now: float) -> Plan:
    """Every namespace has a service account `default`. Source: "Service Accounts", default service accounts."""
    plan, name = Plan(), meta.name(namespace)
    if meta.deleted(namespace) or view.get("serviceaccounts", "default", name):
        return plan
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": name},
    }
    return plan.then(Create("serviceaccounts", account, name, exists_ok=True))


def root_ca(namespace: Object, view: View, ca: str) -> Plan:
    """Every namespace has a ConfigMap with the cluster's CA, for the volumes of service-account tokens (`ca`: PEM)."""
    plan, name = Plan(), meta.name(namespace)
    if meta.deleted(namespace):
        return plan
    old = view.get("configmaps", _CA, name)
    if old is None:
        metadata = {"name": _CA, "namespace": name}
        created = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": ca}}
        return plan.then(Create("configmaps", created, name, exists_ok=True))
    if old.get("data") != {"ca.crt": ca}:
        plan.then(
            Patch(
                "configmaps",
                _CA,
                [{"op": "add", "path": "/data", "value": {"ca.crt": ca}}],
                name,
                kind="json",
            )
        )
    return plan
