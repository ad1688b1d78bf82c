"""Aggregated ClusterRoles: a role with an aggregationRule has the rules of all roles that its selectors match.

Source: "Using RBAC Authorization" (aggregated ClusterRoles). Rules come in the order of the roles' names, once each.
"""

from __future__ import annotations

from sampan.api import meta, selectors
from sampan.base.objects import Object
from sampan.client.plan import Key, Patch, Plan, View

from .base import Rule

_RESOURCE = "clusterroles.rbac.authorization.k8s.io"


def rules() -> list[Rule]:
    return [Rule("clusterrole-aggregation-controller", _RESOURCE, reconcile, {_RESOURCE: _aggregating})]


def _aggregating(role: Object, view: View) -> list[Key]:
    return [
        Key("", meta.name(r)) for r in view.list(_RESOURCE) if r.get("aggregationRule") and _matches(r, role)
    ]


def _matches(aggregate: Object, role: Object) -> bool:
    chosen = aggregate["aggregationRule"].get("clusterRoleSelectors") or ()
    return any(selectors.from_object(s).matches(meta.labels(role)) for s in chosen)


def reconcile(role: Object, view: View, now: float) -> Plan:
    """Its rules are those of the ClusterRoles its selectors choose. Source: "Using RBAC Authorization", aggregation."""
    plan = Plan()
    if not role.get("aggregationRule") or meta.deleted(role):
        return plan
    wanted: list[Object] = []
    for other in view.list(_RESOURCE):
        if meta.name(other) != meta.name(role) and _matches(role, other):
            wanted += [r for r in other.get("rules") or () if r not in wanted]
    if wanted != (role.get("rules") or []):
        plan.why = f"gathers {len(wanted)} rules"
        plan.then(Patch(_RESOURCE, meta.name(role), {"rules": wanted}))
    return plan
