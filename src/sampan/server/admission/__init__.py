"""Admission: what changes or refuses a write after authorization, knowing the whole cluster.

Plugins run in the original's order, first all that change the object, then all that judge it; quota is last, so that
nothing is awaited between it and the append. Source: Kubernetes documentation, "Admission Control in Kubernetes".

what all share     attrs (what is asked about, what plugins may know), matching (rules, selectors), request
others decide      webhook; expressions (plugins of policies), policy, mutation, asking (what policies see)
pods               pod_security, pod_standards, pod_resize, priority, runtime_class, service_account, tolerations
amounts            limits, quota, claim_resize
who may            certificates, escalation, node_restriction
the rest           namespace_lifecycle, defaults
"""

from __future__ import annotations

from sampan.server.admission import (
    certificates,
    claim_resize,
    defaults,
    escalation,
    expressions,
    limits,
    namespace_lifecycle,
    node_restriction,
    pod_resize,
    pod_security,
    priority,
    quota,
    runtime_class,
    service_account,
    tolerations,
    webhook,
)
from sampan.server.admission.attrs import CONNECT, CREATE, DELETE, UPDATE, Attrs, Context, Plugin, Step

__all__ = ["CONNECT", "CREATE", "DEFAULT", "DELETE", "UPDATE", "Admission", "Attrs", "Context", "Plugin"]

# The order matters: see "Is there a recommended set of admission controllers to use?" in the documentation.
DEFAULT: tuple[Plugin, ...] = (
    namespace_lifecycle.PLUGIN,
    limits.PLUGIN,
    service_account.PLUGIN,
    node_restriction.PLUGIN,
    defaults.TAINT_NODES,
    pod_security.PLUGIN,
    priority.PLUGIN,
    tolerations.PLUGIN,
    defaults.STORAGE_CLASS,
    defaults.IN_USE_PROTECTION,
    claim_resize.PLUGIN,
    runtime_class.PLUGIN,
    certificates.APPROVAL,
    certificates.SIGNING,
    certificates.SUBJECT,
    certificates.POD_CERTIFICATE,
    defaults.INGRESS_CLASS,
    defaults.TOPOLOGY_LABELS,
    pod_resize.PLUGIN,
    escalation.PLUGIN,
    expressions.MUTATING,
    webhook.MUTATING,
    expressions.REINVOKED,
    expressions.PLUGIN,
    webhook.VALIDATING,
    quota.PLUGIN,
)


class Admission:
    """The chain, in two parts: between them an object is prepared for storage and validated."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._steps: dict[tuple[str, str, str], tuple[tuple[Step, ...], tuple[Step, ...]]] = {}

    async def mutate(self, attrs: Attrs) -> None:
        """The steps that may change the object, in place. Raises ApiError."""
        await self._run(self._of(attrs)[0], attrs)

    async def judge(self, attrs: Attrs) -> None:
        """The steps that only allow or refuse, quota last. Raises ApiError."""
        await self._run(self._of(attrs)[1], attrs)

    async def _run(self, steps: tuple[Step, ...], attrs: Attrs) -> None:
        for step in steps:
            waiting = step(attrs, self.context)
            if waiting is not None:
                await waiting

    def reads(self, resource: str) -> tuple[str, ...] | None:
        """The buckets on which it depends what becomes of a new object; None when not all plugins have said."""
        asked = [plugin.reads for plugin in DEFAULT if plugin.concerns(CREATE, resource, "")]
        if None in asked:
            return None
        return tuple(dict.fromkeys(bucket for reads in asked for bucket in reads or ()))

    def steady(self, resource: str, namespace: str) -> bool:
        """Whether it depends on nothing else in this namespace: those plugins sleep that look at more."""
        sleepers = (p for p in DEFAULT if p.sleeps and p.concerns(CREATE, resource, ""))
        keys = (item.key for p in sleepers for b in p.reads or () for item in self.context.lookup.items(b))
        return not any("/" not in key or key.startswith(f"{namespace}/") for key in keys)

    def _of(self, attrs: Attrs) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        """The steps for this operation on this resource, worked out once."""
        key = (attrs.op, attrs.row.name, attrs.subresource)
        steps = self._steps.get(key)
        if steps is None:
            asked = [p for p in DEFAULT if p.concerns(*key)]
            steps = self._steps[key] = (
                tuple(p.admit for p in asked if p.admit),
                tuple(p.validate for p in asked if p.validate),
            )
        return steps
