"""Budgets, quotas, limits, priorities, runtime classes. Source: API reference of each; "Resource Quotas"; "Limit Ranges"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.api import quantity
from sampan.api.validate.affinity import tolerations
from sampan.api.validate.base import (
    IMMUTABLE,
    NONE,
    Errors,
    amount,
    dns_label,
    duplicate,
    forbidden_field,
    immutable,
    int_or_percent,
    invalid_value,
    label_selector,
    labels,
    not_over_hundred,
    one_of,
    qualified,
    required,
)
from sampan.api.validate.resources import is_standard, resource_name, resources
from sampan.base.objects import Object

# PodDisruptionBudget


def budget(errors: Errors, obj: Object) -> None:
    """It says how many must stay, or how many may go, not both. Source: API reference, PodDisruptionBudgetSpec v1."""
    spec = obj.get("spec") or NONE
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if least is not None and most is not None:
        errors.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field, value in (("minAvailable", least), ("maxUnavailable", most)):
        if value is not None:
            int_or_percent(errors, f"spec.{field}", value)
            not_over_hundred(errors, f"spec.{field}", value)
    label_selector(errors, "spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None:
        one_of(errors, "spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))


def budget_update(errors: Errors, new: Object, old: Object) -> None:
    budget(errors, new)


def budget_status(errors: Errors, new: Object, old: Object) -> None:
    status = new.get("status") or NONE
    for field in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        if status.get(field, 0) < 0:
            errors.append(
                invalid_value(f"status.{field}", status[field], "must be greater than or equal to 0")
            )


# ResourceQuota

_POD_RESOURCES = frozenset(
    "cpu memory pods requests.cpu requests.memory requests.ephemeral-storage "
    "limits.cpu limits.memory limits.ephemeral-storage ephemeral-storage".split()
)
_SCOPES = (
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)
_QUOTA_RESOURCES = _POD_RESOURCES | frozenset(
    "requests.storage persistentvolumeclaims resourcequotas services replicationcontrollers secrets configmaps "
    "services.nodeports services.loadbalancers".split()
)
_WHOLE = frozenset(
    "pods resourcequotas services replicationcontrollers secrets configmaps persistentvolumeclaims "
    "services.nodeports services.loadbalancers".split()
)
_CONFLICTS = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))


def quota(errors: Errors, obj: Object) -> None:
    """Source: API reference, ResourceQuotaSpec v1; "Resource Quotas", quota scopes."""
    spec = obj.get("spec") or NONE
    _amounts(errors, spec.get("hard") or {}, "spec.hard")
    scopes = spec.get("scopes") or ()
    if scopes:
        _scopes(errors, scopes, spec.get("hard") or {}, "spec.scopes", list(scopes))
    selector = spec.get("scopeSelector")
    if selector is not None:
        _scope_selector(errors, selector, spec.get("hard") or {})


def _amounts(errors: Errors, given: Object, path: str) -> None:
    for name, text in given.items():
        at = f"{path}[{name}]"
        _quota_name(errors, name, at)
        value = amount(text)
        if value is None:
            continue
        if value.nano < 0:
            errors.append(invalid_value(at, text, "must be greater than or equal to 0"))
        whole = name in _WHOLE or name.startswith("count/")
        if whole and value.nano % quantity.NANO:
            errors.append(invalid_value(at, text, "must be an integer"))


def _quota_name(errors: Errors, name: str, path: str) -> None:
    resource_name(errors, path, name)
    if "/" not in name and name not in _QUOTA_RESOURCES and not _huge(name):
        errors.append(invalid_value(path, name, "must be a standard resource for quota"))


def _huge(name: str) -> bool:
    return name.startswith(("hugepages-", "requests.hugepages-"))


def _fits(scope: str, resource: str) -> bool:
    """Whether a scope can be asked of a resource."""
    if scope == "VolumeAttributesClass":
        return resource in ("persistentvolumeclaims", "requests.storage")
    if scope == "BestEffort":
        return resource == "pods"
    return resource in _POD_RESOURCES or _huge(resource)


def _scopes(errors: Errors, scopes: Sequence[str], hard: Object, path: str, shown: Any) -> None:
    for scope in scopes:
        if scope not in _SCOPES:
            errors.append(invalid_value(path, shown, "unsupported scope"))
            continue
        for resource in hard:
            counted = resource in _QUOTA_RESOURCES or _huge(resource)
            if counted and not _fits(scope, resource):
                errors.append(invalid_value(path, shown, "unsupported scope applied to resource"))
    for pair in _CONFLICTS:
        if set(pair) <= set(scopes):
            errors.append(invalid_value(path, shown, "conflicting scopes"))


_UNVALUED = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
_UNVALUED_TEXT = (
    "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


def _scope_selector(errors: Errors, selector: Object, hard: Object) -> None:
    terms = selector.get("matchExpressions") or ()
    for index, term in enumerate(terms):
        at = f"spec.scopeSelector.matchExpressions[{index}]"
        operator, values = term.get("operator", ""), term.get("values") or ()
        if term.get("scopeName") in _UNVALUED and operator != "Exists":
            errors.append(invalid_value(f"{at}.operator", operator, _UNVALUED_TEXT))
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errors.append(required(f"{at}.values", detail))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                errors.append(invalid_value(f"{at}.values", list(values), detail))
        else:
            errors.append(invalid_value(f"{at}.operator", operator, "not a valid selector operator"))
    names = [t.get("scopeName", "") for t in terms]
    _scopes(errors, names, hard, "spec.scopeSelector.matchExpressions.scopeName", names)


def quota_update(errors: Errors, new: Object, old: Object) -> None:
    """Its scopes stay."""
    quota(errors, new)
    after, before = (new.get("spec") or NONE).get("scopes"), (old.get("spec") or NONE).get("scopes")
    if set(after or ()) != set(before or ()):
        errors.append(invalid_value("spec.scopes", after, IMMUTABLE))


def quota_status(errors: Errors, new: Object, old: Object) -> None:
    status = new.get("status") or NONE
    for field in ("hard", "used"):
        _amounts(errors, status.get(field) or {}, f"status.{field}")


# LimitRange

_SIDES = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")


def limit_range(errors: Errors, obj: Object) -> None:
    """One item for each type. Source: API reference, LimitRangeItem v1."""
    kinds: set[str] = set()
    for index, item in enumerate((obj.get("spec") or NONE).get("limits") or ()):
        at, kind = f"spec.limits[{index}]", item.get("type", "")
        before = len(errors)
        qualified(errors, f"{at}.type", kind)
        if (
            len(errors) == before
            and "/" not in kind
            and kind not in ("Container", "Pod", "PersistentVolumeClaim")
        ):
            errors.append(
                invalid_value(f"{at}.type", kind, "must be a standard limit type or fully qualified")
            )
        if kind in kinds:
            errors.append(duplicate(f"{at}.type", kind))
        kinds.add(kind)
        _limit(errors, item, kind, at)


def _limit(errors: Errors, item: Object, kind: str, path: str) -> None:
    sides = {side: item.get(side) or {} for side in _SIDES}
    for side in ("max", "min"):
        for name in sides[side]:
            _limit_name(errors, name, kind, f"{path}.{side}[{name}]")
    if kind == "Pod":
        for side in ("default", "defaultRequest"):
            if item.get(side):
                errors.append(forbidden_field(f"{path}.{side}", "may not be specified when `type` is 'Pod'"))
    else:
        for side in ("default", "defaultRequest"):
            for name in sides[side]:
                _limit_name(errors, name, kind, f"{path}.{side}[{name}]")
    if kind == "PersistentVolumeClaim" and "storage" not in sides["min"] and "storage" not in sides["max"]:
        detail = "either minimum or maximum storage value is required, but neither was provided"
        errors.append(required(f"{path}.limits", detail))
    for name in sides["maxLimitRequestRatio"]:
        _limit_name(errors, name, kind, f"{path}.maxLimitRequestRatio[{name}]")
    for name in dict.fromkeys(n for side in _SIDES for n in sides[side]):
        _compare(errors, name, sides, path)


def _limit_name(errors: Errors, name: str, kind: str, path: str) -> None:
    resource_name(errors, path, name)
    if kind in ("Container", "Pod") and "/" not in name and not is_standard(name):
        errors.append(invalid_value(path, name, "must be a standard resource for containers"))


def _compare(errors: Errors, name: str, sides: dict[str, Object], path: str) -> None:
    """What is least, asked, given and most of one resource, in rising order."""
    least, most = _value(sides["min"], name), _value(sides["max"], name)
    asked, given = _value(sides["defaultRequest"], name), _value(sides["default"], name)

    def above(side: str, low: Any, low_word: str, high: Any, high_word: str) -> None:
        if low is not None and high is not None and low[0] > high[0]:
            text = f"{low_word} value {low[1]} is greater than {high_word} value {high[1]}"
            errors.append(invalid_value(f"{path}.{side}[{name}]", sides[side][name], text))

    above("min", least, "min", most, "max")
    above("defaultRequest", least, "min", asked, "default request")
    above("defaultRequest", asked, "default request", most, "max")
    above("defaultRequest", asked, "default request", given, "default limit")
    above("default", least, "min", given, "default")
    above("default", given, "default", most, "max")
    _ratio(errors, name, sides, least, most, path)


def _value(side: Object, name: str) -> tuple[quantity.Quantity, str] | None:
    text = side.get(name)
    found = amount(text) if text is not None else None
    return (found, str(text)) if found is not None else None


def _ratio(errors: Errors, name: str, sides: dict[str, Object], least: Any, most: Any, path: str) -> None:
    ratio = _value(sides["maxLimitRequestRatio"], name)
    if ratio is None:
        return
    at = f"{path}.maxLimitRequestRatio[{name}]"
    if ratio[0].nano < quantity.NANO:
        errors.append(invalid_value(at, ratio[1], f"ratio {ratio[1]} is less than 1"))
    if least and most and least[0].nano:
        widest = most[0].nano / least[0].nano
        if ratio[0].nano / quantity.NANO > widest:
            text = f"ratio {ratio[1]} is greater than max/min = {widest:f}"
            errors.append(invalid_value(at, ratio[1], text))


def limit_range_update(errors: Errors, new: Object, old: Object) -> None:
    limit_range(errors, new)


# PriorityClass

_HIGHEST = 1_000_000_000
_SYSTEM = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def priority_class(errors: Errors, obj: Object) -> None:
    """Names with `system-` and values beyond a thousand million are the system's. Source: "Pod Priority and Preemption"."""
    name, value = obj["metadata"].get("name", ""), obj.get("value", 0)
    if name.startswith("system-"):
        if _SYSTEM.get(name) != value or obj.get("globalDefault"):
            detail = "priority class names with 'system-' prefix are reserved for system use only. error: "
            if name not in _SYSTEM:
                detail += f"{name} is not a known system priority class"
            elif _SYSTEM[name] != value:
                detail += f"value of {name} PriorityClass must be {_SYSTEM[name]}"
            else:
                detail += f"globalDefault of {name} PriorityClass must be false"
            errors.append(forbidden_field("metadata.name", detail))
    elif value > _HIGHEST:
        detail = f"maximum allowed value of a user defined priority is {_HIGHEST}"
        errors.append(forbidden_field("value", detail))
    policy = obj.get("preemptionPolicy")
    if policy is not None:
        one_of(errors, "preemptionPolicy", policy, ("Never", "PreemptLowerPriority"))


def priority_class_update(errors: Errors, new: Object, old: Object) -> None:
    if new.get("value", 0) != old.get("value", 0):
        errors.append(forbidden_field("value", "may not be changed in an update."))
    immutable(errors, "preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"))


# RuntimeClass


def runtime_class(errors: Errors, obj: Object) -> None:
    """Source: API reference, RuntimeClass v1."""
    dns_label(errors, "handler", obj.get("handler", ""))
    overhead = (obj.get("overhead") or NONE).get("podFixed")
    if overhead:
        resources(errors, {"limits": overhead}, "overhead.podFixed")
    scheduling = obj.get("scheduling") or NONE
    labels(errors, "scheduling.nodeSelector", scheduling.get("nodeSelector"))
    given = scheduling.get("tolerations") or ()
    tolerations(errors, given, "scheduling.tolerations")
    for index, toleration in enumerate(given):
        if toleration in given[:index]:
            errors.append(duplicate(f"scheduling.tolerations[{index}]", toleration))


def runtime_class_update(errors: Errors, new: Object, old: Object) -> None:
    if new.get("handler") != old.get("handler"):
        errors.append(invalid_value("handler", new.get("handler", ""), IMMUTABLE))
