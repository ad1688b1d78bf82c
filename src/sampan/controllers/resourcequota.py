"""ResourceQuota status: what is allowed, and what the objects that are there use of it.

What counts how much is `api.quota`, which admission uses as well. Source: "Resource Quotas".
"""

from __future__ import annotations

from sampan.api import meta, quantity, quota
from sampan.base.objects import Object
from sampan.client.plan import Key, Plan, View, by_metadata

from .base import Rule, status_patch

_RESOURCE = "resourcequotas"
_SIZED = ("pods", "services", "persistentvolumeclaims")


def rules() -> list[Rule]:
    return [Rule("resourcequota-controller", _RESOURCE, reconcile, {"*": _quotas}, reads=_SIZED)]


@by_metadata
def _quotas(obj: Object, view: View) -> list[Key]:
    namespace = meta.namespace(obj)
    return [Key(namespace, meta.name(q)) for q in view.list(_RESOURCE, namespace)] if namespace else []


def reconcile(limit: Object, view: View, now: float) -> Plan:
    """Adds up every resource that the quota names."""
    hard = limit["spec"].get("hard") or {}
    namespace = meta.namespace(limit)
    used = {name: quantity.parse("0") for name in hard}
    for resource in sorted({r for name in hard if (r := quota.bucket_of(name))}):
        for obj in view.list(resource, namespace):
            if quota.in_scope(limit, resource, obj):
                for name, amount in quota.usage(resource, obj, now).items():
                    if name in used:
                        used[name] = used[name] + amount
    status = {"hard": hard, "used": {name: quantity.canonical(str(amount)) for name, amount in used.items()}}
    return Plan().then(*status_patch(_RESOURCE, limit, status))
