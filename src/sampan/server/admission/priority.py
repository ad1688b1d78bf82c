"""The number and policy behind a pod's priority class. Source: Kubernetes documentation, "Pod Priority and Preemption"."""

from __future__ import annotations

from typing import Any

from sampan.base.objects import Object
from sampan.server.admission.attrs import CREATE, UPDATE, Attrs, Context, Plugin, only

_CLASSES = "priorityclasses.scheduling.k8s.io"
_LOWER = "PreemptLowerPriority"
# Known even before they are stored.
_SYSTEM = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def admit(attrs: Attrs, ctx: Context) -> None:
    """The class becomes the number that the scheduler compares; a pod that names none has the default class, if there is one.

    Raises 403 when the pod brings another number or policy along, or the class is not there.
    """
    if attrs.row.name != "pods":
        return
    spec = (attrs.obj or {}).setdefault("spec", {})
    if attrs.op == UPDATE:  # both are immutable; an old client that omits them keeps them
        for field in ("priority", "preemptionPolicy"):
            if spec.get(field) is None and (attrs.old or {}).get("spec", {}).get(field) is not None:
                spec[field] = attrs.old["spec"][field]  # type: ignore[index]
        return
    name = spec.get("priorityClassName", "")
    if name:
        found = ctx.lookup.get(_CLASSES, name)
        if found is None and name in _SYSTEM:
            found = {"value": _SYSTEM[name]}
        if found is None:
            raise attrs.forbidden(f"no PriorityClass with name {name} was found")
    else:
        found = _default(ctx) or {}
        if found:
            spec["priorityClassName"] = found["metadata"]["name"]
    value, policy = found.get("value", 0), found.get("preemptionPolicy") or _LOWER
    _agree(attrs, spec.get("priority"), value, "the integer value of priority ({}) must not be provided in pod spec; "
           "priority admission controller computed {} from the given PriorityClass name")  # fmt: skip
    _agree(attrs, spec.get("preemptionPolicy"), policy, "the string value of PreemptionPolicy ({}) must not be provided "
           "in pod spec; priority admission controller computed {} from the given PriorityClass name")  # fmt: skip
    spec["priority"], spec["preemptionPolicy"] = value, policy


def _agree(attrs: Attrs, given: Any, computed: Any, why: str) -> None:
    if given is not None and given != "" and given != computed:
        raise attrs.forbidden(why.format(given, computed))


def _default(ctx: Context) -> Object | None:
    """The lowest of the classes marked as global default."""
    marked = [c for c in ctx.lookup.list(_CLASSES) if c.get("globalDefault")]
    return min(marked, key=lambda c: (c.get("value", 0), c["metadata"]["name"])) if marked else None


def validate(attrs: Attrs, ctx: Context) -> None:
    """There is one global default at most."""
    if attrs.row.name != _CLASSES or not (attrs.obj or {}).get("globalDefault"):
        return
    for other in ctx.lookup.list(_CLASSES):
        if other.get("globalDefault") and other["metadata"]["name"] != attrs.name:
            name = other["metadata"]["name"]
            why = f"PriorityClass {name} is already marked as default. Only one default can exist"
            raise attrs.forbidden(why)


PLUGIN = Plugin(
    "Priority",
    only("pods", _CLASSES),
    only(CREATE, UPDATE),
    admit=admit,
    validate=validate,
    reads=(_CLASSES,),
)
