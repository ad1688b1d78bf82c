"""MutatingAdmissionPolicy: expressions that change what is written, one policy after the other.

Loaded when there is a binding (`expressions`). Source: Kubernetes documentation, "Mutating Admission Policy".
"""

from __future__ import annotations

import orjson

from sampan.api import jsonpatch, schema
from sampan.api.cel import CelError, CostExceeded, Program
from sampan.api.cel import mutation as cel
from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.server.admission import request
from sampan.server.admission.asking import Asking
from sampan.server.admission.attrs import Attrs, Context
from sampan.server.admission.policy import Bound, bound, exempt, params_of, values_for

_GROUP = "admissionregistration.k8s.io"
_POLICIES = f"mutatingadmissionpolicies.{_GROUP}"
_BINDINGS = f"mutatingadmissionpolicybindings.{_GROUP}"


def mutate(attrs: Attrs, ctx: Context) -> None:
    """The plugin. Policies that want to be asked again are, once, when a later one changed the object."""
    if attrs.obj is None or exempt(attrs):
        return
    for each in bound(ctx, _POLICIES, _BINDINGS):
        _mutate(each, attrs, ctx)
    mutate_again(attrs, ctx)


def mutate_again(attrs: Attrs, ctx: Context) -> None:
    """Policies with the reinvocationPolicy IfNeeded, whose object is not the one they left."""
    if not attrs.left:
        return
    for each in bound(ctx, _POLICIES, _BINDINGS):
        left = attrs.left.get((each.policy.name, each.name))
        if left is not None and left != orjson.dumps(attrs.obj):
            _mutate(each, attrs, ctx)


def _mutate(each: Bound, attrs: Attrs, ctx: Context) -> None:
    row = each.row_for(attrs, ctx)
    if row is None:
        return
    spec = each.policy.compiled.raw.get("spec") or {}
    try:
        if each.policy.compiled.broken:
            raise CelError(each.policy.compiled.broken)
        asking = Asking(attrs, row, ctx)
        for params in params_of(each, attrs, ctx):
            for patch_type, program in each.policy.compiled.mutations:
                _apply(each, asking, params, patch_type, program, attrs)
    except (CelError, CostExceeded) as error:
        if each.policy.fails:
            raise _denied(each, attrs, str(error)) from None
    if spec.get("reinvocationPolicy") == "IfNeeded":
        attrs.left[each.policy.name, each.name] = orjson.dumps(attrs.obj)


def _apply(
    each: Bound, asking: Asking, params: Object | None, patch_type: str, program: Program, attrs: Attrs
) -> None:
    """One mutation, which sees what those before it did. Raises CelError, CostExceeded."""
    values = values_for(each, asking, params)
    if values is None:
        return
    try:
        made = asking.spend(program, values)
    except CelError as error:
        raise CelError(f"expression '{program.text}' resulted in error: {error}") from None
    shown: Object = values[0]
    if patch_type == "JSONPatch":
        try:
            changed = jsonpatch.json_patch(shown, cel.patch_of(made))
        except ApiError as error:
            raise CelError(f"error applying patch: {error.message}") from None
    else:
        changed = cel.applied(shown, made, schema.for_row(asking.row))
    request.replace(attrs, request.in_version(changed, asking.row, attrs.row) or {})
    asking.forget()


def _denied(each: Bound, attrs: Attrs, why: str) -> ApiError:
    text = f"policy '{each.policy.name}' with binding '{each.name}' denied request: {why}"
    error = attrs.forbidden(text)
    error.code, error.reason = 422, "Invalid"
    error.details = {**(error.details or {}), "causes": [{"message": text}]}
    return error
