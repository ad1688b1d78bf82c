"""Expressions of admission: what they may name, and which of them are wrong before they are stored.

Source: API reference, admissionregistration.k8s.io/v1 (Validation, MatchCondition, Variable, AuditAnnotation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from sampan.api import schema
from sampan.api.cel import mutation
from sampan.api.cel.program import CompileError, Program
from sampan.api.cel.types import BOOL, DYN, STRING, Type, declared, list_of, map_of, object_of, read
from sampan.api.registry import Registry, Resource
from sampan.api.status import FieldError, invalid_value
from sampan.base.objects import Object

_KIND = object_of("kubernetes.GroupVersionKind", dict.fromkeys(("group", "version", "kind"), STRING))
_RESOURCE = object_of(
    "kubernetes.GroupVersionResource", dict.fromkeys(("group", "version", "resource"), STRING)
)
_USER = object_of(
    "kubernetes.UserInfo",
    {
        "username": STRING,
        "uid": STRING,
        "groups": list_of(STRING),
        "extra": map_of(STRING, list_of(STRING)),
    },
)
REQUEST = object_of(
    "kubernetes.AdmissionRequest",
    {
        "kind": _KIND,
        "resource": _RESOURCE,
        "subResource": STRING,
        "requestKind": _KIND,
        "requestResource": _RESOURCE,
        "requestSubResource": STRING,
        "name": STRING,
        "namespace": STRING,
        "operation": STRING,
        "userInfo": _USER,
        "dryRun": BOOL,
        "options": DYN,
    },
)
_AUTHORIZER = read("kubernetes.authorization.Authorizer")
_ASKED = read("kubernetes.authorization.ResourceCheck")

# The order of these is the order of values when evaluating; `params` and `variables` come last.
BASE: dict[str, Type] = {
    "object": DYN,
    "oldObject": DYN,
    "request": REQUEST,
    "namespaceObject": DYN,
    "authorizer": _AUTHORIZER,
    "authorizer.requestResource": _ASKED,
}
CONDITION = {k: v for k, v in BASE.items() if k != "namespaceObject"}  # of a webhook's matchConditions


class Variables(dict[str, Any]):
    """`variables.x`, each evaluated when it is first named. `values` are those of an expression's variables."""

    __slots__ = ("programs", "spend", "values_")

    def __init__(self, programs: Mapping[str, Program], spend: Any) -> None:
        super().__init__()
        self.programs, self.spend = programs, spend
        self.values_: list[Any] = []

    def __missing__(self, name: str) -> Any:
        value = self[name] = self.spend(self.programs[name], self.values_)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self.programs


class Policy:
    """An admission policy compiled. `broken` says why it cannot be, if it cannot."""

    __slots__ = (
        "annotations",
        "broken",
        "conditions",
        "mutations",
        "name",
        "raw",
        "validations",
        "variables",
    )

    def __init__(
        self, raw: Object, object_type: Type = DYN, collect: list[tuple[str, str]] | None = None
    ) -> None:
        """`object_type` and `collect` are for checking types: what is wrong is then listed as (field, text)."""
        self.raw = raw
        self.name: str = (raw.get("metadata") or {}).get("name", "")
        self.broken = ""
        self.variables: dict[str, Program] = {}
        self.validations: list[tuple[Object, Program, Program | None]] = []
        self.annotations: list[tuple[str, Program]] = []
        self.conditions: list[tuple[str, Program]] = []
        self.mutations: list[tuple[str, Program]] = []  # with their patchType
        spec = raw.get("spec") or {}
        makeable = mutation.makeable if spec.get("mutations") else None
        types = {**BASE, "object": object_type, "oldObject": object_type}
        if spec.get("paramKind"):
            types["params"] = DYN
        for path, item, part, wanted in expressions_of(spec):
            try:
                program = Program(item[part].strip(), types, makeable)
                _expect(program, wanted)
            except CompileError as error:
                if collect is not None:
                    collect.append((f"spec.{path}.{part}", str(error)))
                self.broken = self.broken or f"compilation failed: {error}"
                program = None
            self._keep(path, item, part, program, types)

    def _keep(
        self, path: str, item: Object, part: str, program: Program | None, types: dict[str, Type]
    ) -> None:
        if path.startswith("variables"):
            if program is not None:
                self.variables[item["name"]] = program
            known = {n: p.type for n, p in self.variables.items()}
            types["variables"] = object_of("kubernetes.variables", known)
        elif program is None:
            return
        elif path.startswith("mutations"):
            patch_type = "JSONPatch" if path.endswith("jsonPatch") else "ApplyConfiguration"
            self.mutations.append((patch_type, program))
        elif path.startswith("validations"):
            if part == "expression":
                self.validations.append((item, program, None))
            else:
                self.validations[-1] = (item, self.validations[-1][1], program)
        elif path.startswith("auditAnnotations"):
            self.annotations.append((item["key"], program))
        else:
            self.conditions.append((item["name"], program))


_BOOL, _STRING, _ANY = ("bool",), ("string",), ()


def expressions_of(spec: Object) -> Iterator[tuple[str, Object, str, tuple[str, ...]]]:
    """(path, the entry, its field, types it may have) of every expression in a policy; variables first."""
    for number, item in enumerate(spec.get("matchConditions") or ()):
        if item.get("expression"):
            yield f"matchConditions[{number}]", item, "expression", _BOOL
    for number, item in enumerate(spec.get("variables") or ()):
        if item.get("expression"):
            yield f"variables[{number}]", item, "expression", _ANY
    for number, item in enumerate(spec.get("validations") or ()):
        if item.get("expression"):
            yield f"validations[{number}]", item, "expression", _BOOL
            if (item.get("messageExpression") or "").strip():
                yield f"validations[{number}]", item, "messageExpression", _STRING
    for number, item in enumerate(spec.get("mutations") or ()):
        for field, wanted in (("applyConfiguration", "Object"), ("jsonPatch", "list(JSONPatch)")):
            if (item.get(field) or {}).get("expression"):
                yield f"mutations[{number}].{field}", item[field], "expression", (wanted,)
    for number, item in enumerate(spec.get("auditAnnotations") or ()):
        if item.get("valueExpression"):
            yield f"auditAnnotations[{number}]", item, "valueExpression", ("string", "null")


def _expect(program: Program, wanted: tuple[str, ...]) -> None:
    if wanted and program.type.kind not in (*wanted, "dyn") and str(program.type) not in wanted:
        raise CompileError(f"must evaluate to {' or '.join(wanted)}")


@lru_cache(maxsize=512)
def condition(text: str) -> Program:
    """A webhook's match condition. Raises CompileError."""
    program = Program(text.strip(), CONDITION)
    _expect(program, _BOOL)
    return program


# Before they are stored


def policy_errors(obj: Object) -> list[FieldError]:
    """Expressions of a policy that do not compile."""
    found: list[tuple[str, str]] = []
    policy = Policy(obj, collect=found)
    spec = policy.raw.get("spec") or {}
    texts = {f"spec.{path}.{part}": item[part] for path, item, part, _ in expressions_of(spec)}
    return [_refused(path, texts.get(path, ""), text) for path, text in found]


def webhook_errors(obj: Object) -> list[FieldError]:
    """Match conditions of webhooks that do not compile."""
    errors = []
    for number, hook in enumerate(obj.get("webhooks") or ()):
        for index, item in enumerate(hook.get("matchConditions") or ()):
            text = item.get("expression") or ""
            try:
                if text.strip():
                    condition(text)
            except CompileError as error:
                errors.append(
                    _refused(f"webhooks[{number}].matchConditions[{index}].expression", text, str(error))
                )
    return errors


def _refused(path: str, text: str, why: str) -> FieldError:
    return invalid_value(path, text, f"compilation failed: {why}" if why.startswith("ERROR") else why)


# Type checking: what a policy would trip over, told in its status


def type_warnings(obj: Object, registry: Registry, limit: int = 10) -> list[Object]:
    """`status.typeChecking.expressionWarnings`: expressions against the kinds a policy names outright."""
    warnings: dict[str, list[str]] = {}
    for row in _named_kinds(obj, registry)[:limit]:
        root = schema.for_row(row)
        kind = declared(root, root=True) if root is not None else None
        if kind is None:
            continue
        found: list[tuple[str, str]] = []
        Policy(obj, kind, found)
        shown = f"{row.api_version}, Kind={row.kind}"
        for path, text in found:
            warnings.setdefault(path, []).append(f"{shown}: {text}")
    return [{"fieldRef": path, "warning": "\n".join(texts) + "\n"} for path, texts in warnings.items()]


def _named_kinds(obj: Object, registry: Registry) -> list[Resource]:
    rows: dict[tuple[str, str, str], Resource] = {}
    constraints = (obj.get("spec") or {}).get("matchConstraints") or {}
    for rule in constraints.get("resourceRules") or ():
        for group in rule.get("apiGroups") or ():
            for version in rule.get("apiVersions") or ():
                for resource in rule.get("resources") or ():
                    row = None if "/" in resource else registry.find(group, version, resource)
                    if row is not None:
                        rows[row.group, row.version, row.kind] = row
    return list(rows.values())
