"""Rules in a CustomResourceDefinition before it is accepted: every expression must compile against its schema.

Source: apiextensions.k8s.io/v1 ValidationRule; wording of the original's validation.
"""

from __future__ import annotations

from sampan.api import schema
from sampan.api.cel import estimate
from sampan.api.cel.parser import parse
from sampan.api.cel.program import CompileError
from sampan.api.cel.rules import Rule, message_program, path_names
from sampan.api.cel.types import Type, declared, optional_of
from sampan.api.schema import Node
from sampan.api.status import FieldError, forbidden_field, invalid_value, required
from sampan.base.objects import Object

_KEY = "x-kubernetes-validations"
_TOO_DEAR = (
    "{} exceeds budget by factor of {} (try simplifying the rule, or "
    "adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
)
_SHARE = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
_NAMED = 4  # of the rules that make a schema too dear


class _Findings(list[FieldError]):
    """What is wrong with a schema, and what its rules may cost: (cost, path)."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[tuple[float, str]] = []


def definition_errors(obj: Object, old: Object | None = None) -> list[FieldError]:
    """What is wrong with the rules of a definition; schemas that were stored before are not judged again."""
    found: list[FieldError] = []
    before = {v.get("name"): v.get("schema") for v in ((old or {}).get("spec") or {}).get("versions") or ()}
    versions = (obj.get("spec") or {}).get("versions") or ()
    one = (
        len({str(v.get("schema")) for v in versions}) == 1
    )  # the original's internal form has them at the top then
    for number, version in enumerate(versions):
        text = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(text, dict) or version.get("schema") == before.get(version.get("name")):
            continue
        path = "spec.validation.openAPIV3Schema" if one else f"spec.versions[{number}].schema.openAPIV3Schema"
        errors = _Findings()
        _walk(text, schema.from_openapi(text), path, errors, True, "", 1)
        found += errors
        if (total := sum(cost for cost, _ in errors.costs)) > estimate.SCHEMA_LIMIT:
            dearest = sorted(errors.costs, reverse=True)[:_NAMED]
            found += [forbidden_field(where, _SHARE) for _, where in dearest]
            what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
            found.append(forbidden_field(path, _too_dear(what, total / estimate.SCHEMA_LIMIT)))
        if one:
            break
    return found


def _too_dear(what: str, factor: float) -> str:
    return _TOO_DEAR.format(what, f"{factor:.1f}x" if factor <= 100 else "more than 100x")


def _walk(
    raw: Object, node: Node, path: str, errors: _Findings, root: bool, loose: str, places: float
) -> None:
    """`loose` is the path of a list above whose items cannot be told apart between two writes; `places` in how many
    places of an object this schema may stand."""
    rules = raw.get(_KEY) or ()
    if rules:
        kind = declared(node, root=root)
        for number, rule in enumerate(rules):
            _rule(rule, node, kind, f"{path}.{_KEY}[{number}]", errors, loose, places)
    for key, child in (raw.get("properties") or {}).items():
        below = node.properties.get(key)
        if isinstance(child, dict) and below is not None and below.custom:
            _walk(child, below, f"{path}.properties[{key}]", errors, False, loose, places)
    additional = raw.get("additionalProperties")
    if isinstance(additional, dict) and node.additional is not None:
        many = places * estimate.size(node)
        _walk(additional, node.additional, f"{path}.additionalProperties", errors, False, loose, many)
    items = raw.get("items")
    if isinstance(items, dict) and node.items is not None:
        inner = loose if node.list_type == "map" else loose or path
        _walk(items, node.items, f"{path}.items", errors, False, inner, places * estimate.size(node))


def _rule(
    rule: Object,
    node: Node,
    kind: Type | None,
    path: str,
    errors: _Findings,
    loose: str,
    places: float,
) -> None:
    found = len(errors)
    _texts(rule, path, errors)
    if len(errors) == found and (problem := _field_path_problem(rule.get("fieldPath") or "", node)):
        detail = f"fieldPath must be a valid path: {problem}"
        errors.append(invalid_value(f"{path}.fieldPath", rule["fieldPath"], detail))
    if len(errors) > found or kind is None or not (rule.get("rule") or "").strip():
        return
    try:
        made = Rule({**rule, "messageExpression": "", "fieldPath": ""}, kind)
    except CompileError as error:
        text = str(error)
        detail = f"compilation failed: {text}" if text.startswith("ERROR") else text
        errors.append(_invalid(f"{path}.rule", rule, detail))
        return
    cost = estimate.worst(parse(made.text), node) * places
    errors.costs.append((cost, f"{path}.rule"))
    if cost > estimate.RULE_LIMIT:
        detail = _too_dear("estimated rule cost", cost / estimate.RULE_LIMIT)
        errors.append(forbidden_field(f"{path}.rule", detail))
    if made.uses_old and loose:
        detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {loose}"
        errors.append(invalid_value(f"{path}.rule", rule.get("rule"), detail))
    if not made.uses_old and rule.get("optionalOldSelf") is not None:
        detail = "may not be set if oldSelf is not used in rule"
        errors.append(invalid_value(f"{path}.optionalOldSelf", rule["optionalOldSelf"], detail))
    if expression := (rule.get("messageExpression") or "").strip():
        try:
            message_program(
                expression, {"self": kind, "oldSelf": optional_of(kind) if made.optional_old else kind}
            )
        except CompileError as error:
            text = str(error)
            detail = f"messageExpression compilation failed: {text}" if text.startswith("ERROR") else text
            errors.append(_invalid(f"{path}.messageExpression", rule, detail))


def _texts(rule: Object, path: str, errors: list[FieldError]) -> None:
    """What can be said without compiling, beside what `api.validate.crd_schema` says of every rule."""
    expression = rule.get("messageExpression") or ""
    if expression and not expression.strip():
        errors.append(
            required(f"{path}.messageExpression", "messageExpression must be non-empty if specified")
        )
    field = rule.get("fieldPath") or ""
    if field and not field.strip():
        errors.append(invalid_value(f"{path}.fieldPath", field, "fieldPath must be non-empty if specified"))
    elif "\n" in field:
        errors.append(invalid_value(f"{path}.fieldPath", field, "fieldPath must not contain line breaks"))


def _field_path_problem(text: str, node: Node) -> str:
    try:
        names = path_names(text)
    except CompileError as error:
        return str(error)
    here: Node | None = node
    for name in names:
        here = here.child(name) if here is not None else None
        if here is None:
            return f"does not refer to a valid field: {name}"
    return ""


def _invalid(path: str, rule: Object, detail: str) -> FieldError:
    """The original shows the whole rule, with the names of its internal form."""
    shown = {
        "Rule": rule.get("rule", ""),
        "Message": rule.get("message", ""),
        "MessageExpression": rule.get("messageExpression", ""),
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath", ""),
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }
    return invalid_value(path, shown, detail)
