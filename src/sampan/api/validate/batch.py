"""Jobs and CronJobs. Source: API reference, batch/v1; "Jobs"; "CronJob"."""

from __future__ import annotations

import zoneinfo
from collections.abc import Container
from functools import lru_cache

from sampan.api import selectors
from sampan.api.validate import cron, pod
from sampan.api.validate.base import (
    IMMUTABLE,
    NONE,
    Errors,
    duplicate,
    invalid_value,
    invalid_whole,
    label_selector,
    nonnegative,
    not_supported,
    one_of,
    qualified,
    required,
    required_one_of,
    too_many,
)
from sampan.api.validate.meta import template_meta
from sampan.base.objects import Object

_MISMATCH = "`selector` does not match template `labels`"
_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_CRON_NAME_LIMIT = 52  # 11 characters are added to make the names of jobs


def job(errors: Errors, obj: Object) -> None:
    """Its selector is generated, and must be; with `manualSelector` it need only fit its template. Source: JobSpec v1."""
    spec = obj.get("spec") or NONE
    if not spec.get("manualSelector"):
        _generated_selector(errors, obj, spec)
    _spec(errors, spec, "spec")
    given = spec.get("selector")
    if given is None:
        errors.append(required("spec.selector"))
    else:
        label_selector(errors, "spec.selector", given)
    labels = ((spec.get("template") or NONE).get("metadata") or NONE).get("labels")
    try:
        if not selectors.from_object(given).matches(labels):
            errors.append(invalid_value("spec.template.metadata.labels", labels, _MISMATCH))
    except ValueError:
        pass  # said above


def _generated_selector(errors: Errors, obj: Object, spec: Object) -> None:
    """A selector that the server makes finds the job's own pods and nothing more is asked of it."""
    given, meta = spec.get("selector"), obj["metadata"]
    if given is None:
        return
    expected = {}
    for prefix in ("", "batch.kubernetes.io/"):
        expected[f"{prefix}controller-uid"] = meta.get("uid", "")
        expected[f"{prefix}job-name"] = meta.get("name", "")
    try:
        fits = selectors.from_object(given).matches(expected)
    except ValueError:
        return
    if not fits:
        errors.append(invalid_value("spec.selector", given, "`selector` not auto-generated"))


def _spec(errors: Errors, spec: Object, path: str) -> None:
    for field in _COUNTS:
        nonnegative(errors, spec, field, path)
    mode = spec.get("completionMode")
    if mode is not None:
        if mode not in ("NonIndexed", "Indexed"):
            errors.append(not_supported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed")))
        elif mode == "Indexed" and spec.get("completions") is None:
            errors.append(required(f"{path}.completions", "when completion mode is Indexed"))
    _per_index(errors, spec, path)
    template = spec.get("template") or NONE
    inner = template.get("spec") or NONE
    policy = inner.get("restartPolicy", "")
    if spec.get("podFailurePolicy") is not None:
        _failure_policy(errors, spec, inner, f"{path}.podFailurePolicy")
    if spec.get("successPolicy") is not None:
        _success_policy(errors, spec, f"{path}.successPolicy")
    if spec.get("podReplacementPolicy") is not None:
        allowed = (
            ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
        )
        one_of(errors, f"{path}.podReplacementPolicy", spec["podReplacementPolicy"], allowed)
    pod.template(errors, template, f"{path}.template")
    at = f"{path}.template.spec.restartPolicy"
    if policy in ("", "Always"):
        errors.append(required(at, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errors.append(not_supported(at, policy, ("OnFailure", "Never")))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        errors.append(
            invalid_value(at, policy, 'only "Never" is supported when podFailurePolicy is specified')
        )


def _per_index(errors: Errors, spec: Object, path: str) -> None:
    """Source: "Backoff limit per index"."""
    most = spec.get("maxFailedIndexes")
    if spec.get("backoffLimitPerIndex") is None:
        if most is not None:
            errors.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
        return
    if spec.get("completionMode") != "Indexed":
        detail = "requires indexed completion mode"
        errors.append(invalid_value(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], detail))
    if most is not None and most > (spec.get("completions") or 0):
        detail = "must be less than or equal to completions"
        errors.append(invalid_value(f"{path}.maxFailedIndexes", most, detail))


_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def _failure_policy(errors: Errors, spec: Object, inner: Object, path: str) -> None:
    """Source: "Pod failure policy"."""
    rules = spec["podFailurePolicy"].get("rules") or ()
    if len(rules) > 20:
        errors.append(too_many(f"{path}.rules", len(rules), 20))
    known = {c.get("name") for f in ("containers", "initContainers") for c in inner.get(f) or ()}
    for index, rule in enumerate(rules):
        at, action = f"{path}.rules[{index}]", rule.get("action", "")
        if not action:
            errors.append(required(f"{at}.action", 'valid values: "Count", "FailIndex", "FailJob", "Ignore"'))
        elif action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            detail = "requires the backoffLimitPerIndex to be set"
            errors.append(invalid_value(f"{at}.action", action, detail))
        else:
            one_of(errors, f"{at}.action", action, _ACTIONS)
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is not None:
            _exit_codes(errors, codes, known, f"{at}.onExitCodes")
        if codes is not None and conditions:
            detail = "specifying both OnExitCodes and OnPodConditions is not supported"
            errors.append(invalid_whole(at, detail))
        if codes is None and not conditions:
            detail = "specifying one of OnExitCodes and OnPodConditions is required"
            errors.append(invalid_whole(at, detail))
        for number, pattern in enumerate(conditions or ()):
            where = f"{at}.onPodConditions[{number}]"
            qualified(errors, f"{where}.type", pattern.get("type", ""))
            if not pattern.get("status"):
                errors.append(required(f"{where}.status"))
            else:
                one_of(errors, f"{where}.status", pattern["status"], ("False", "True", "Unknown"))


def _exit_codes(errors: Errors, rule: Object, known: Container[str], path: str) -> None:
    operator, values = rule.get("operator", ""), rule.get("values") or ()
    if not operator:
        errors.append(required(f"{path}.operator", 'valid values: "In", "NotIn"'))
    else:
        one_of(errors, f"{path}.operator", operator, ("In", "NotIn"))
    name = rule.get("containerName")
    if name is not None and name not in known:
        errors.append(
            invalid_value(
                f"{path}.containerName",
                name,
                "must be one of the container or initContainer names in the pod template",
            )
        )
    if not values:
        errors.append(invalid_value(f"{path}.values", list(values), "at least one value is required"))
    elif len(values) > 255:
        errors.append(too_many(f"{path}.values", len(values), 255))
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(invalid_value(f"{path}.values[{index}]", 0, "must not be 0 for the In operator"))
        if value in values[:index]:
            errors.append(duplicate(f"{path}.values[{index}]", value))
    if list(values) != sorted(values):
        errors.append(invalid_value(f"{path}.values", list(values), "must be ordered"))


def _success_policy(errors: Errors, spec: Object, path: str) -> None:
    """Source: "Success policy"."""
    if spec.get("completionMode") != "Indexed":
        errors.append(invalid_value(path, spec["successPolicy"], "requires indexed completion mode"))
        return
    rules = spec["successPolicy"].get("rules") or ()
    if not rules:
        errors.append(required(f"{path}.rules", "at least one rules must be specified"))
    if len(rules) > 20:
        errors.append(too_many(f"{path}.rules", len(rules), 20))
    for index, rule in enumerate(rules):
        if rule.get("succeededCount") is None and rule.get("succeededIndexes") is None:
            detail = "at least one of succeededCount or succeededIndexes must be specified"
            errors.append(required(f"{path}.rules[{index}]", detail))
        nonnegative(errors, rule, "succeededCount", f"{path}.rules[{index}]")


_FROZEN = (
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
)


def job_update(errors: Errors, new: Object, old: Object) -> None:
    """What may change: parallelism, suspend; completions with it when it is Indexed (KEP-3715); where its pods go,
    before it has started.
    """
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    job(errors, new)
    if after.get("completions") != before.get("completions") and not _elastic(after, before):
        errors.append(invalid_value("spec.completions", after.get("completions"), IMMUTABLE))
    for field in _FROZEN[:1]:
        _frozen(errors, after, before, field)
    if after.get("template") != before.get("template") and not _may_move(new, old):
        errors.append(invalid_value("spec.template", after.get("template"), IMMUTABLE))
    for field in _FROZEN[1:]:
        _frozen(errors, after, before, field)


def _frozen(errors: Errors, after: Object, before: Object, field: str) -> None:
    if after.get(field) != before.get(field):
        errors.append(invalid_value(f"spec.{field}", after.get(field), IMMUTABLE))


def _elastic(after: Object, before: Object) -> bool:
    """An indexed job scales by changing completions and parallelism as one. Source: "Elastic Indexed Jobs"."""
    return (
        after.get("completionMode") == "Indexed"
        and after.get("completions") is not None
        and before.get("completions") is not None
        and after["completions"] == after.get("parallelism")
        and before["completions"] == before.get("parallelism")
    )


_DIRECTIVES = ("nodeSelector", "affinity", "tolerations", "schedulingGates")


def _may_move(new: Object, old: Object) -> bool:
    """A suspended job that has not started may change where its pods go. Source: "Mutable Scheduling Directives"."""
    if not (old.get("spec") or NONE).get("suspend") or (old.get("status") or NONE).get("startTime"):
        return False
    return _stripped(new["spec"].get("template")) == _stripped(old["spec"].get("template"))


def _stripped(template: Object | None) -> Object:
    template = dict(template or NONE)
    template["spec"] = {k: v for k, v in (template.get("spec") or NONE).items() if k not in _DIRECTIVES}
    template["metadata"] = None
    return template


def job_status(errors: Errors, new: Object, old: Object) -> None:
    """A Job is not both complete and failed."""
    status = new.get("status") or NONE
    for field in ("active", "succeeded", "failed", "ready", "terminating"):
        nonnegative(errors, status, field, "status")
    ended = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    if {"Complete", "Failed"} <= ended:
        detail = "cannot set both Complete and Failed conditions"
        errors.append(invalid_value("status.conditions", status["conditions"], detail))


# CronJobs


def cron_job(errors: Errors, obj: Object) -> None:
    """Source: API reference, CronJobSpec v1."""
    _cron_spec(errors, obj)
    name = obj["metadata"].get("name", "")
    if len(name) > _CRON_NAME_LIMIT:
        errors.append(
            invalid_value("metadata.name", name, f"must be no more than {_CRON_NAME_LIMIT} characters")
        )


def _cron_spec(errors: Errors, obj: Object) -> None:
    spec = obj.get("spec") or NONE
    _schedule(errors, spec)
    nonnegative(errors, spec, "startingDeadlineSeconds", "spec")
    policy = spec.get("concurrencyPolicy", "")
    required_one_of(errors, "spec.concurrencyPolicy", policy, ("Allow", "Forbid", "Replace"))
    template = spec.get("jobTemplate") or NONE
    inner = template.get("spec") or NONE
    template_meta(errors, template.get("metadata"), "spec.jobTemplate")
    _spec(errors, inner, "spec.jobTemplate.spec")
    if inner.get("selector") is not None:
        label_selector(errors, "spec.jobTemplate.spec.selector", inner["selector"])
    if inner.get("manualSelector"):
        errors.append(not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
    nonnegative(errors, spec, "successfulJobsHistoryLimit", "spec")
    nonnegative(errors, spec, "failedJobsHistoryLimit", "spec")


def _schedule(errors: Errors, spec: Object) -> None:
    schedule, zone = spec.get("schedule", ""), spec.get("timeZone")
    if not schedule:
        errors.append(required("spec.schedule"))
    elif "TZ" in schedule:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        errors.append(invalid_value("spec.schedule", schedule, detail))
    else:
        wrong = cron.problem(schedule)
        if wrong:
            errors.append(invalid_value("spec.schedule", schedule, wrong))
    if zone is None:
        return
    if not zone:
        errors.append(invalid_value("spec.timeZone", zone, "timeZone must be nil or non-empty string"))
    elif zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        errors.append(invalid_value("spec.timeZone", zone, detail))
    elif not _is_zone(zone):
        errors.append(invalid_value("spec.timeZone", zone, f"unknown time zone {zone}"))


@lru_cache(maxsize=256)
def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return True


def cron_job_update(errors: Errors, new: Object, old: Object) -> None:
    _cron_spec(errors, new)
