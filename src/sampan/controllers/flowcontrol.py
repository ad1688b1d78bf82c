"""FlowSchemas are told whether the priority level they name is there: condition Dangling.

Source: "API Priority and Fairness"; API reference FlowSchemaCondition v1. The limits themselves are kept by the server.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Key, Plan, View

from .base import Rule, status_patch

_RESOURCE = "flowschemas.flowcontrol.apiserver.k8s.io"
_LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"


def rules() -> list[Rule]:
    return [Rule("api-priority-and-fairness-config-consumer-v1", _RESOURCE, reconcile, {_LEVELS: _naming})]


def _naming(level: Object, view: View) -> Iterable[Key]:
    return [Key("", meta.name(s)) for s in view.list(_RESOURCE) if _level(s) == meta.name(level)]


def reconcile(schema: Object, view: View, now: float) -> Plan:
    """Whether the priority level that a FlowSchema names is there. Source: API reference, FlowSchemaStatus v1 (Dangling)."""
    if meta.deleted(schema):
        return Plan()
    name = _level(schema)
    there = view.get(_LEVELS, name) is not None
    condition = {
        "type": "Dangling",
        "status": "False" if there else "True",
        "reason": "Found" if there else "NotFound",
        "message": f'This FlowSchema references the PriorityLevelConfiguration object named "{name}" '
        + ("and it exists" if there else "but there is no such object"),
    }
    status = schema.get("status") or {}
    wanted = {**status, "conditions": meta.set_condition(meta.conditions(schema), condition, now)}
    return Plan().then(*status_patch(_RESOURCE, schema, wanted))


def _level(schema: Object) -> str:
    return schema["spec"]["priorityLevelConfiguration"]["name"]
