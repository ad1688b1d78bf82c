"""The Service `default/kubernetes` and what stands behind it come back when somebody deletes them.

Source: "Connecting Applications with Services"; in the original a part of the API server makes them every ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Key, Plan, View
from sampan.controllers import Rule
from sampan.server.bootstrap import RESOURCES

NAMESPACE, NAME = "default", "kubernetes"


def rule(wanted: Sequence[Object]) -> Rule:
    """Creates what is missing of `wanted` (see bootstrap.kubernetes_service)."""

    def reconcile(namespace: Object, view: View, now: float) -> Plan:
        if meta.name(namespace) != NAMESPACE:
            return Plan()
        missing = [o for o in wanted if view.get(RESOURCES[o["kind"]], NAME, NAMESPACE) is None]
        steps = [Create(RESOURCES[o["kind"]], o, NAMESPACE, exists_ok=True) for o in missing]
        return Plan(why=f"{len(missing)} objects were missing" if missing else "").then(*steps)

    return Rule("bootstrap-controller", "namespaces", reconcile, dict.fromkeys(_resources(wanted), _woken))


def _resources(wanted: Iterable[Object]) -> list[str]:
    return [RESOURCES[o["kind"]] for o in wanted]


def _woken(obj: Object, view: View) -> list[Key]:
    ours = (meta.namespace(obj), meta.name(obj)) == (NAMESPACE, NAME)
    return [Key("", NAMESPACE)] if ours else []
