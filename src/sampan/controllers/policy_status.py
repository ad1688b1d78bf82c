"""Admission policies are told what their expressions would trip over: `status.typeChecking`.

Source: "Validating Admission Policy", type checking.
"""

from __future__ import annotations

from functools import partial

from sampan.api import meta
from sampan.api.registry import Registry
from sampan.base.objects import Object
from sampan.client.plan import Plan, View

from .base import Rule, status_patch

_RESOURCE = "validatingadmissionpolicies.admissionregistration.k8s.io"


def rules(registry: Registry) -> list[Rule]:
    name = "validatingadmissionpolicy-status-controller"
    return [Rule(name, _RESOURCE, partial(reconcile, registry=registry))]


def reconcile(policy: Object, view: View, now: float, *, registry: Registry) -> Plan:
    """Once for each generation."""
    status = policy.get("status") or {}
    generation = policy["metadata"].get("generation", 0)
    if meta.deleted(policy) or status.get("observedGeneration") == generation:
        return Plan()
    from sampan.api.cel import admission  # when there is a policy: the interpreter takes 25 ms to load

    warnings = admission.type_warnings(policy, registry)
    checked = {"expressionWarnings": warnings} if warnings else {}
    wanted = {**status, "observedGeneration": generation, "typeChecking": checked}
    return Plan().then(*status_patch(_RESOURCE, policy, wanted))
