"""Flow schemas and priority levels. Source: API reference, flowcontrol.apiserver.k8s.io/v1; "API Priority and Fairness"."""

from __future__ import annotations

from sampan.api.validate.base import (
    NONE,
    Errors,
    dns_subdomain,
    forbidden_field,
    invalid_value,
    not_supported,
    one_of,
    required,
)
from sampan.base.objects import Object

_VERBS = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
    "connect",
    "head",
    "options",
    "post",
    "put",
)


def flow_schema(errors: Errors, obj: Object) -> None:
    """Precedence 1 is that of `exempt`, which nothing may come before. Source: API reference, FlowSchemaSpec v1."""
    spec = obj.get("spec") or NONE
    order = spec.get("matchingPrecedence", 0)
    if order <= 0:
        errors.append(invalid_value("spec.matchingPrecedence", order, "must be a positive value"))
    elif order > 10000:
        detail = "must not be greater than 10000"
        errors.append(invalid_value("spec.matchingPrecedence", order, detail))
    name = obj["metadata"].get("name", "")
    if order == 1 and name != "exempt":
        detail = "only the schema named 'exempt' may have matchingPrecedence 1"
        errors.append(invalid_value("spec.matchingPrecedence", order, detail))
    method = (spec.get("distinguisherMethod") or NONE).get("type")
    if spec.get("distinguisherMethod") is not None:
        one_of(errors, "spec.distinguisherMethod.type", method or "", ("ByNamespace", "ByUser"))
    level = (spec.get("priorityLevelConfiguration") or NONE).get("name", "")
    if not level:
        errors.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    else:
        dns_subdomain(errors, "spec.priorityLevelConfiguration.name", level)
    for index, rule in enumerate(spec.get("rules") or ()):
        _rule(errors, rule, f"spec.rules[{index}]")


def _rule(errors: Errors, rule: Object, path: str) -> None:
    if not rule.get("subjects"):
        errors.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(rule.get("subjects") or ()):
        _subject(errors, subject, f"{path}.subjects[{index}]")
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        detail = "at least one of resourceRules and nonResourceRules has to be non-empty"
        errors.append(required(path, detail))
    for index, part in enumerate(rule.get("resourceRules") or ()):
        at = f"{path}.resourceRules[{index}]"
        _verbs(errors, part, at)
        for field in ("apiGroups", "resources"):
            _star(errors, part, field, at)
        if not part.get("namespaces") and not part.get("clusterScope"):
            detail = "resource rules that are not cluster scoped must supply at least one namespace"
            errors.append(required(f"{at}.namespaces", detail))
    for index, part in enumerate(rule.get("nonResourceRules") or ()):
        at = f"{path}.nonResourceRules[{index}]"
        _verbs(errors, part, at)
        _star(errors, part, "nonResourceURLs", at)


def _subject(errors: Errors, subject: Object, path: str) -> None:
    kind = subject.get("kind", "")
    field = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}.get(kind)
    if field is None:
        errors.append(not_supported(f"{path}.kind", kind, ("Group", "ServiceAccount", "User")))
        return
    given = subject.get(field)
    if given is None:
        errors.append(required(f"{path}.{field}", f"{field} is required when subject kind is '{kind}'"))
        return
    if not given.get("name"):
        errors.append(required(f"{path}.{field}.name"))
    if kind == "ServiceAccount" and not given.get("namespace"):
        errors.append(required(f"{path}.{field}.namespace", "must specify namespace for service account"))
    for other in ("serviceAccount", "user", "group"):
        if other != field and subject.get(other) is not None:
            detail = f"{other} is forbidden when subject kind is not '{other[0].upper()}{other[1:]}'"
            errors.append(forbidden_field(f"{path}.{other}", detail))


def _verbs(errors: Errors, part: Object, path: str) -> None:
    given = part.get("verbs") or ()
    if not given:
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    elif "*" in given and len(given) > 1:
        detail = "if '*' is present, must not specify other verbs"
        errors.append(invalid_value(f"{path}.verbs", list(given), detail))
    elif "*" not in given and not set(given) <= set(_VERBS):
        errors.append(not_supported(f"{path}.verbs", list(given), sorted(_VERBS)))


def _star(errors: Errors, part: Object, field: str, path: str) -> None:
    given = part.get(field) or ()
    if not given:
        errors.append(required(f"{path}.{field}", f"{field} must contain at least one value"))
    elif "*" in given and len(given) > 1:
        detail = f"if '*' is present, must not specify other {field}"
        errors.append(invalid_value(f"{path}.{field}", list(given), detail))


def flow_schema_update(errors: Errors, new: Object, old: Object) -> None:
    flow_schema(errors, new)


def priority_level(errors: Errors, obj: Object) -> None:
    """Source: API reference, PriorityLevelConfigurationSpec v1."""
    spec = obj.get("spec") or NONE
    kind, limited, exempt = spec.get("type", ""), spec.get("limited"), spec.get("exempt")
    if kind == "Exempt":
        if limited is not None:
            errors.append(forbidden_field("spec.limited", "must be nil if the type is not Limited"))
    elif kind == "Limited":
        if exempt is not None:
            errors.append(forbidden_field("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            errors.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            _limited(errors, limited, "spec.limited")
    else:
        errors.append(not_supported("spec.type", kind, ("Exempt", "Limited")))


def _limited(errors: Errors, limited: Object, path: str) -> None:
    shares = limited.get("nominalConcurrencyShares")
    if shares is not None and shares < 0:
        detail = "must be a non-negative integer"
        errors.append(invalid_value(f"{path}.nominalConcurrencyShares", shares, detail))
    share = limited.get("lendablePercent")
    if share is not None and not 0 <= share <= 100:
        detail = "must be between 0 and 100, inclusive"
        errors.append(invalid_value(f"{path}.lendablePercent", share, detail))
    response = limited.get("limitResponse") or NONE
    kind, queuing = response.get("type", ""), response.get("queuing")
    at = f"{path}.limitResponse"
    if kind == "Reject":
        if queuing is not None:
            errors.append(
                forbidden_field(f"{at}.queuing", "must be nil if limited.limitResponse.type is not Queue")
            )
    elif kind == "Queue":
        if queuing is None:
            errors.append(
                required(f"{at}.queuing", "must not be empty if limited.limitResponse.type is Queue")
            )
        else:
            _queuing(errors, queuing, f"{at}.queuing")
    else:
        errors.append(not_supported(f"{at}.type", kind, ("Queue", "Reject")))


def _queuing(errors: Errors, queuing: Object, path: str) -> None:
    for field in ("queueLengthLimit", "queues", "handSize"):
        value = queuing.get(field, 0)
        if value <= 0:
            errors.append(invalid_value(f"{path}.{field}", value, "must be positive"))
    hand, queues = queuing.get("handSize", 0), queuing.get("queues", 0)
    if hand > queues > 0:
        detail = f"should not be greater than queues ({queues})"
        errors.append(invalid_value(f"{path}.handSize", hand, detail))


def priority_level_update(errors: Errors, new: Object, old: Object) -> None:
    priority_level(errors, new)
