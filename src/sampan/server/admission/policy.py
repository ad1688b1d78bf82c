"""ValidatingAdmissionPolicy: expressions that refuse, warn or note, bound to what they watch over.

Loaded when there is a binding (`expressions`). Source: Kubernetes documentation, "Validating Admission Policy".
"""

from __future__ import annotations

import weakref
from typing import Any

import orjson

from sampan.api.cel import CelError, CostExceeded, Program
from sampan.api.cel.admission import Policy, Variables
from sampan.api.registry import Resource
from sampan.api.selectors import from_object
from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.server import convert
from sampan.server.admission.asking import Asking
from sampan.server.admission.attrs import CONNECT, CREATE, DELETE, UPDATE, Attrs, Context
from sampan.server.admission.matching import Criteria
from sampan.server.lookup import Derived, Lookup

_GROUP = "admissionregistration.k8s.io"
_POLICIES = f"validatingadmissionpolicies.{_GROUP}"
_BINDINGS = f"validatingadmissionpolicybindings.{_GROUP}"
_EXEMPT_GROUPS = (_GROUP, "authentication.k8s.io", "authorization.k8s.io")
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413}  # others are 422
_FAILURE = "validation.policy.admission.k8s.io/validation_failure"
_VERBS = {CREATE: "create", UPDATE: "update", DELETE: "delete", CONNECT: "connect"}


class Bound:
    """A policy with one of its bindings."""

    __slots__ = ("actions", "binding", "criteria", "name", "policy")

    def __init__(self, policy: _Ready, binding: Object) -> None:
        self.policy = policy
        self.name: str = binding["metadata"]["name"]
        self.binding: Object = binding.get("spec") or {}
        self.actions: list[str] = self.binding.get("validationActions") or []
        raw = self.binding.get("matchResources")
        self.criteria = _criteria(raw) if raw else None

    def row_for(self, attrs: Attrs, ctx: Context) -> Resource | None:
        """The row in whose version the policy sees the object; None when it does not concern this request."""
        row = self.policy.criteria.row_for(attrs, ctx)
        if row is None or not self.policy.criteria.selects(attrs, ctx):
            return None
        own = self.criteria
        if own is not None and (own.row_for(attrs, ctx) is None or not own.selects(attrs, ctx)):
            return None
        return row


class _Ready:
    """A policy compiled, with what it matches."""

    __slots__ = ("compiled", "criteria", "fails", "name")

    def __init__(self, raw: Object) -> None:
        self.compiled = Policy(raw)
        self.name = self.compiled.name
        spec = raw.get("spec") or {}
        self.fails = spec.get("failurePolicy", "Fail") == "Fail"
        self.criteria = _criteria(spec.get("matchConstraints") or {})


def _criteria(raw: Object) -> Criteria:
    return Criteria(raw, raw.get("resourceRules"), raw.get("excludeResourceRules") or ())


_known: weakref.WeakKeyDictionary[Lookup, dict[str, Derived]] = weakref.WeakKeyDictionary()


def bound(ctx: Context, policies: str = _POLICIES, bindings: str = _BINDINGS) -> list[Bound]:
    """Every policy with each of its bindings, compiled anew when one changes."""
    by_bucket = _known.setdefault(ctx.lookup, {})
    derived = by_bucket.get(policies)
    if derived is None:
        lookup = ctx.lookup
        derived = Derived(lookup, (policies, bindings), lambda: _compile(lookup, policies, bindings))
        by_bucket[policies] = derived
    found: list[Bound] = derived.get()
    return found


def _compile(lookup: Lookup, policies_bucket: str, bindings_bucket: str) -> list[Bound]:
    policies = {p["metadata"]["name"]: p for p in lookup.list(policies_bucket)}
    ready: dict[str, _Ready] = {}
    found = []
    for binding in lookup.list(bindings_bucket):
        name = (binding.get("spec") or {}).get("policyName", "")
        if name in policies:
            if name not in ready:
                ready[name] = _Ready(policies[name])
            found.append(Bound(ready[name], binding))
    return found


class _Judgement:
    """What all policies said of one request."""

    def __init__(self, attrs: Attrs) -> None:
        self.attrs = attrs
        self.denied: ApiError | None = None
        self.noted: list[Object] = []

    def refuse(
        self, bound: Bound, message: str, reason: str = "", index: int = 0, actions: Any = None
    ) -> None:
        policy = bound.policy.name
        chosen = bound.actions if actions is None else actions
        if "Deny" in chosen and self.denied is None:
            text = (
                f"ValidatingAdmissionPolicy '{policy}' with binding '{bound.name}' denied request: {message}"
            )
            error = self.attrs.forbidden(text)
            error.reason = reason or "Invalid"
            error.code = _CODES.get(error.reason, 422)
            error.details = {**(error.details or {}), "causes": [{"message": text}]}
            self.denied = error
        if "Warn" in chosen:
            text = f"Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{bound.name}': {message}"
            self.attrs.warnings.append(text)
        if "Audit" in chosen:
            self.noted.append(
                {
                    "message": message,
                    "policy": policy,
                    "binding": bound.name,
                    "expressionIndex": index,
                    "validationActions": bound.actions,
                }
            )

    def end(self) -> None:
        if self.noted:
            self.attrs.annotations[_FAILURE] = orjson.dumps(self.noted).decode()
        if self.denied is not None:
            raise self.denied


def validate(attrs: Attrs, ctx: Context) -> None:
    """The plugin: raises the first denial; all bindings are asked, for their warnings and notes."""
    judgement = _Judgement(attrs)
    for each in () if exempt(attrs) else bound(ctx):
        row = each.row_for(attrs, ctx)
        if row is not None:
            _judge(each, Asking(attrs, row, ctx), judgement, ctx)
    judgement.end()


def exempt(attrs: Attrs) -> bool:
    """Policies must not be able to prevent their own repair."""
    return attrs.row.group in _EXEMPT_GROUPS


def _judge(bound: Bound, asking: Asking, judgement: _Judgement, ctx: Context) -> None:
    policy = bound.policy
    if policy.compiled.broken:
        if policy.fails:
            judgement.refuse(bound, policy.compiled.broken, actions=("Deny",))
        return
    try:
        given = params_of(bound, judgement.attrs, ctx)
    except CelError as error:
        if policy.fails:
            judgement.refuse(bound, f"failed to configure binding: {error}", actions=("Deny",))
        return
    for params in given:
        _evaluate(bound, asking, judgement, params)


def params_of(bound: Bound, attrs: Attrs, ctx: Context) -> list[Object | None]:
    """The objects a binding gives its policy; [None] when the policy takes none. Raises CelError when they are missing."""
    kind = (bound.policy.compiled.raw.get("spec") or {}).get("paramKind")
    ref = bound.binding.get("paramRef")
    if not kind or not ref:
        return [None]
    group, _, version = kind.get("apiVersion", "").rpartition("/")
    rows = ctx.registry or ()
    row = next((r for r in rows if (r.group, r.version, r.kind) == (group, version, kind.get("kind"))), None)
    if row is None:
        text = (
            f"failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind.get('kind')}'"
        )
        raise CelError(text)
    place = ref.get("namespace") or attrs.namespace
    if row.namespaced and not place:
        raise CelError(
            "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
        )
    prefix = f"{place}/" if row.namespaced else ""
    if ref.get("name"):
        one = ctx.lookup.get(row.store_key, f"{prefix}{ref['name']}")
        found = [one] if one is not None else []
    else:
        selector = from_object(ref.get("selector") or {})
        found = [
            o
            for o in ctx.lookup.list(row.store_key, prefix)
            if selector.matches((o.get("metadata") or {}).get("labels") or {})
        ]
    if not found and ref.get("parameterNotFoundAction", "Deny") == "Deny":
        raise CelError("no params found for policy binding with `Deny` parameterNotFoundAction")
    return [o if o.get("apiVersion") == row.api_version else convert.convert_text(o, row) for o in found]


def values_for(bound: Bound, asking: Asking, params: Object | None) -> list[Any] | None:
    """What the policy's expressions see; None when its match conditions do not hold. Raises CelError."""
    policy = bound.policy.compiled
    values = list(asking.values())
    if (policy.raw.get("spec") or {}).get("paramKind"):
        values.append(params)
    if policy.conditions and not asking.conditions(policy.conditions, values):
        return None
    if policy.variables:
        variables = Variables(policy.variables, asking.spend)
        values.append(variables)
        variables.values_ = values
    return values


def _evaluate(bound: Bound, asking: Asking, judgement: _Judgement, params: Object | None) -> None:
    policy = bound.policy.compiled
    try:
        values = values_for(bound, asking, params)
    except CelError as error:
        if bound.policy.fails:
            judgement.refuse(bound, str(error))
        return
    if values is None:
        return
    for index, (raw, program, message) in enumerate(policy.validations):
        try:
            holds = asking.spend(program, values)
        except (CelError, CostExceeded) as error:
            if bound.policy.fails:
                judgement.refuse(
                    bound, f"expression '{program.text}' resulted in error: {error}", index=index
                )
            if isinstance(error, CostExceeded):
                return
            continue
        if holds is not True:
            judgement.refuse(
                bound, _message(raw, program, message, asking, values), raw.get("reason", ""), index
            )
    for key, program in policy.annotations:
        _annotate(bound, key, program, asking, values, judgement)


def _message(
    raw: Object, program: Program, message: Program | None, asking: Asking, values: list[Any]
) -> str:
    if message is not None:
        try:
            text = asking.spend(message, values)
            if isinstance(text, str) and text.strip() and "\n" not in text and len(text) <= 5 * 1024:
                return text.strip()
        except (CelError, CostExceeded):
            pass
    return (raw.get("message") or "").strip() or f"failed expression: {program.text}"


def _annotate(
    bound: Bound, key: str, program: Program, asking: Asking, values: list[Any], judgement: _Judgement
) -> None:
    try:
        text = asking.spend(program, values)
    except (CelError, CostExceeded) as error:
        if bound.policy.fails:
            judgement.refuse(
                bound, f"expression '{program.text}' resulted in error: {error}", actions=("Deny",)
            )
        return
    if isinstance(text, str) and text.strip():
        name = f"{bound.policy.name}/{key}"
        known = judgement.attrs.annotations.get(name)
        text = text.strip()[: 10 * 1024]
        judgement.attrs.annotations[name] = text if known in (None, text) else f"{known}, {text}"
