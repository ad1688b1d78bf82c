"""HorizontalPodAutoscalers of either version. Source: API reference, autoscaling/v2; "Horizontal Pod Autoscaling"."""

from __future__ import annotations

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    Errors,
    amount,
    forbidden_field,
    invalid_value,
    label_selector,
    nonnegative,
    not_supported,
    one_of,
    required,
    texts,
)
from sampan.base.objects import Object

_LONGEST_WINDOW, _LONGEST_PERIOD = 3600, 1800
# kind of metric -> the field that describes it
_METRICS = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}


def autoscaler(errors: Errors, obj: Object) -> None:
    """Bounds are numbers above zero, the lower one first. Source: API reference, HorizontalPodAutoscalerSpec v2."""
    spec = obj.get("spec") or NONE
    least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if least is not None and least < 1:
        errors.append(invalid_value("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        errors.append(invalid_value("spec.maxReplicas", most, "must be greater than 0"))
    if least is not None and most < least:
        errors.append(
            invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
        )
    _reference(errors, spec.get("scaleTargetRef") or NONE, "spec.scaleTargetRef")
    for index, metric in enumerate(_metrics(spec)):
        _metric(errors, metric, f"spec.metrics[{index}]")
    _behavior(errors, spec.get("behavior") or NONE)


def _metrics(spec: Object) -> list[Object]:
    """The metrics of either version: v1 has but one."""
    share = spec.get("targetCPUUtilizationPercentage")
    if share is None:
        return spec.get("metrics") or []
    target = {"type": "Utilization", "averageUtilization": share}
    return [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def _reference(errors: Errors, ref: Object, path: str) -> None:
    for field in ("kind", "name"):
        value = ref.get(field, "")
        if not value:
            errors.append(required(f"{path}.{field}"))
        else:
            texts(errors, f"{path}.{field}", value, names.path_segment)


def _metric(errors: Errors, metric: Object, path: str) -> None:
    kind = metric.get("type", "")
    if not kind:
        errors.append(required(f"{path}.type", "must specify a metric source type"))
    elif kind not in _METRICS:
        errors.append(not_supported(f"{path}.type", kind, tuple(_METRICS)))
    given = [f for f in _METRICS.values() if metric.get(f) is not None]
    for field in given[1:]:
        errors.append(forbidden_field(f"{path}.{field}", "may not specify more than one metric source"))
    wanted = _METRICS.get(kind)
    if wanted and wanted not in given:
        text = "must populate information for the given metric source"
        errors.append(required(f"{path}.{wanted}", text))
    for field in given[:1]:
        _source(errors, field, metric[field], f"{path}.{field}")


def _source(errors: Errors, field: str, source: Object, path: str) -> None:
    if field == "object":
        _reference(errors, source.get("describedObject") or NONE, f"{path}.describedObject")
    if field in ("object", "pods", "external"):
        metric = source.get("metric") or NONE
        if not metric.get("name"):
            errors.append(required(f"{path}.metric.name", "must specify a metric name"))
        label_selector(errors, f"{path}.metric.selector", metric.get("selector"))
    else:
        if not source.get("name"):
            errors.append(required(f"{path}.name", "must specify a resource name"))
        if field == "containerResource" and not source.get("container"):
            errors.append(required(f"{path}.container", "must specify a container name"))
    _target(errors, field, source.get("target") or NONE, f"{path}.target")


def _target(errors: Errors, field: str, target: Object, path: str) -> None:
    kind = target.get("type", "")
    if not kind:
        errors.append(required(f"{path}.type", "must specify a metric target type"))
    elif kind not in ("Utilization", "Value", "AverageValue"):
        text = "must be either Utilization, Value, or AverageValue"
        errors.append(invalid_value(f"{path}.type", kind, text))
    share, average, value = (target.get(f) for f in ("averageUtilization", "averageValue", "value"))
    if share is not None and share < 1:
        errors.append(invalid_value(f"{path}.averageUtilization", share, "must be greater than 0"))
    for name, given in (("value", value), ("averageValue", average)):
        size = amount(given) if given is not None else None
        if size is not None and size.nano <= 0:
            errors.append(invalid_value(f"{path}.{name}", given, "must be positive"))
    if field in ("resource", "containerResource"):
        if share is None and average is None:
            text = "must set either a target raw value or a target utilization"
            errors.append(required(f"{path}.averageUtilization", text))
        if share is not None and average is not None:
            text = "may not set both a target raw value and a target utilization"
            errors.append(forbidden_field(f"{path}.averageValue", text))
    elif field == "pods":
        if average is None:
            text = "must specify a positive target averageValue"
            errors.append(required(f"{path}.averageValue", text))
    elif value is None and average is None:
        text = "must set either a target value or averageValue"
        errors.append(required(f"{path}.averageValue", text))


def _behavior(errors: Errors, behavior: Object) -> None:
    for way in ("scaleUp", "scaleDown"):
        rules = behavior.get(way)
        if rules is None:
            continue
        at = f"spec.behavior.{way}"
        window = rules.get("stabilizationWindowSeconds")
        nonnegative(errors, rules, "stabilizationWindowSeconds", at)
        if window is not None and window > _LONGEST_WINDOW:
            text = f"must be less than or equal to {_LONGEST_WINDOW}"
            errors.append(invalid_value(f"{at}.stabilizationWindowSeconds", window, text))
        if rules.get("selectPolicy") is not None:
            one_of(errors, f"{at}.selectPolicy", rules["selectPolicy"], ("Disabled", "Max", "Min"))
        if not rules.get("policies"):
            errors.append(required(f"{at}.policies", "must specify at least one Policy"))
        for index, policy in enumerate(rules.get("policies") or ()):
            _policy(errors, policy, f"{at}.policies[{index}]")


def _policy(errors: Errors, policy: Object, path: str) -> None:
    one_of(errors, f"{path}.type", policy.get("type", ""), ("Percent", "Pods"))
    value, period = policy.get("value", 0), policy.get("periodSeconds", 0)
    if value <= 0:
        errors.append(invalid_value(f"{path}.value", value, "must be greater than zero"))
    if period <= 0:
        errors.append(invalid_value(f"{path}.periodSeconds", period, "must be greater than zero"))
    elif period > _LONGEST_PERIOD:
        text = f"must be less than or equal to {_LONGEST_PERIOD}"
        errors.append(invalid_value(f"{path}.periodSeconds", period, text))


def autoscaler_update(errors: Errors, new: Object, old: Object) -> None:
    autoscaler(errors, new)


def autoscaler_status(errors: Errors, new: Object, old: Object) -> None:
    status = new.get("status") or NONE
    for field in ("currentReplicas", "desiredReplicas"):
        nonnegative(errors, status, field, "status")
