"""Deployments, ReplicaSets, StatefulSets, DaemonSets and what they share. Source: API reference, apps/v1; core/v1."""

from __future__ import annotations

from typing import Any

from sampan.api import selectors
from sampan.api.validate import pod
from sampan.api.validate.base import (
    IMMUTABLE,
    NONE,
    Errors,
    forbidden_field,
    immutable,
    int_or_percent,
    invalid_value,
    label_selector,
    nonnegative,
    not_over_hundred,
    not_supported,
    one_of,
    percentage,
    required,
)
from sampan.base.objects import Object

_MISMATCH = "`selector` does not match template `labels`"


def _template(errors: Errors, spec: Object, selector: selectors.LabelSelector | None, kind: str) -> None:
    """A template whose labels its selector finds, and whose pods run for good."""
    template = spec.get("template") or NONE
    found = (template.get("metadata") or NONE).get("labels")
    if selector is not None and not selector.empty and not selector.matches(found):
        errors.append(invalid_value("spec.template.metadata.labels", found, _MISMATCH))
    pod.template(errors, template, "spec.template")
    inner = template.get("spec") or NONE
    policy = inner.get("restartPolicy", "")
    if policy != "Always":
        errors.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if inner.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {kind} is not Supported"
        errors.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", detail))


def _selector(errors: Errors, spec: Object, kind: str) -> selectors.LabelSelector | None:
    """The selector, which must select something; None when it cannot be read."""
    given = spec.get("selector")
    if given is None:
        errors.append(required("spec.selector"))
        return selectors.NOTHING
    label_selector(errors, "spec.selector", given)
    if not given.get("matchLabels") and not given.get("matchExpressions"):
        errors.append(invalid_value("spec.selector", given, f"empty selector is invalid for {kind}"))
    return _read(errors, given)


def _read(errors: Errors, given: Object | None) -> selectors.LabelSelector | None:
    try:
        return selectors.from_object(given)
    except ValueError:
        errors.append(invalid_value("spec.selector", given, "invalid label selector"))
        return None


# Deployments


def deployment(errors: Errors, obj: Object) -> None:
    """A pod must have time to become available before the rollout counts as stuck. Source: API reference, DeploymentSpec v1."""
    spec = obj.get("spec") or NONE
    nonnegative(errors, spec, "replicas", "spec")
    selector = _selector(errors, spec, "deployment")
    _template(errors, spec, selector, "ReplicaSet")
    _strategy(errors, spec.get("strategy") or NONE)
    nonnegative(errors, spec, "minReadySeconds", "spec")
    nonnegative(errors, spec, "revisionHistoryLimit", "spec")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        nonnegative(errors, spec, "progressDeadlineSeconds", "spec")
        if deadline <= spec.get("minReadySeconds", 0):
            errors.append(
                invalid_value(
                    "spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"
                )
            )


def _strategy(errors: Errors, strategy: Object) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            errors.append(forbidden_field("spec.strategy.rollingUpdate", detail))
    elif kind == "RollingUpdate":
        at = "spec.strategy.rollingUpdate"
        if rolling is None:
            errors.append(required(at, "this should be defaulted and never be nil"))
            return
        missing, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        int_or_percent(errors, f"{at}.maxUnavailable", missing)
        int_or_percent(errors, f"{at}.maxSurge", surge)
        if _count(missing) == 0 and _count(surge) == 0:
            errors.append(invalid_value(f"{at}.maxUnavailable", missing, "may not be 0 when `maxSurge` is 0"))
        not_over_hundred(errors, f"{at}.maxUnavailable", missing)
    else:
        shown = {"Type": kind, "RollingUpdate": rolling}
        errors.append(not_supported("spec.strategy", shown, ("Recreate", "RollingUpdate")))


def _count(value: int | str) -> int:
    """A count or the number before a percent sign; what is neither counts as not zero."""
    if isinstance(value, int):
        return value
    share = percentage(value)
    return share if share is not None else 1


def deployment_update(errors: Errors, new: Object, old: Object) -> None:
    deployment(errors, new)
    _fixed_selector(errors, new, old)


def _fixed_selector(errors: Errors, new: Object, old: Object) -> None:
    after, before = (new.get("spec") or NONE).get("selector"), (old.get("spec") or NONE).get("selector")
    if after != before:
        errors.append(invalid_value("spec.selector", after, IMMUTABLE))


# ReplicaSets and ReplicationControllers


def replica_set(errors: Errors, obj: Object) -> None:
    """Source: API reference, ReplicaSetSpec v1."""
    spec = obj.get("spec") or NONE
    nonnegative(errors, spec, "replicas", "spec")
    nonnegative(errors, spec, "minReadySeconds", "spec")
    selector = _selector(errors, spec, "deployment")  # the original's word
    _template(errors, spec, selector, "ReplicaSet")


def replica_set_update(errors: Errors, new: Object, old: Object) -> None:
    replica_set(errors, new)
    _fixed_selector(errors, new, old)


def replication_controller(errors: Errors, obj: Object) -> None:
    """Its selector is a map of labels, as before there were expressions. Source: API reference, ReplicationControllerSpec v1."""
    spec = obj.get("spec") or NONE
    nonnegative(errors, spec, "minReadySeconds", "spec")
    if not spec.get("selector"):
        errors.append(required("spec.selector"))
    nonnegative(errors, spec, "replicas", "spec")
    if spec.get("template") is None:
        errors.append(required("spec.template"))
        return
    _template(errors, spec, selectors.from_map(spec.get("selector")), "ReplicationController")


def replication_controller_update(errors: Errors, new: Object, old: Object) -> None:
    replication_controller(errors, new)


# StatefulSets


def stateful_set(errors: Errors, obj: Object) -> None:
    """Its template may mount claims by the names of their templates. Source: API reference, StatefulSetSpec v1."""
    spec = obj.get("spec") or NONE
    policy = spec.get("podManagementPolicy", "")
    if not policy:
        errors.append(required("spec.podManagementPolicy"))
    elif policy not in ("OrderedReady", "Parallel"):
        errors.append(
            invalid_value("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'")
        )
    _stateful_strategy(errors, spec.get("updateStrategy") or NONE)
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or NONE
    for field in ("whenDeleted", "whenScaled"):
        if field in retention:
            at = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
            one_of(errors, at, retention[field], ("Retain", "Delete"))
    nonnegative(errors, spec, "replicas", "spec")
    nonnegative(errors, spec, "minReadySeconds", "spec")
    nonnegative(errors, spec, "revisionHistoryLimit", "spec")
    nonnegative(errors, spec.get("ordinals") or NONE, "start", "spec.ordinals")
    selector = _selector(errors, spec, "statefulset")
    claims = [_claim_volume(c) for c in spec.get("volumeClaimTemplates") or ()]
    _template(errors, _with_volumes(spec, claims), selector, "StatefulSet")


def _claim_volume(claim: Object) -> Object:
    """What a claim template is for the pods: a volume of its name."""
    name = (claim.get("metadata") or NONE).get("name", "")
    return {"name": name, "persistentVolumeClaim": {"claimName": name}}


def _with_volumes(spec: Object, claims: list[Object]) -> Object:
    """The spec with its claims as volumes of the template; a claim wins over a volume of its name."""
    if not claims or not isinstance(spec.get("template"), dict):
        return spec
    template = dict(spec["template"])
    inner = dict(template.get("spec") or NONE)
    named = {c["name"] for c in claims}
    own = [v for v in inner.get("volumes") or () if v.get("name") not in named]
    inner["volumes"] = [*own, *claims]
    template["spec"] = inner
    return {**spec, "template": template}


def _stateful_strategy(errors: Errors, strategy: Object) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    at = "spec.updateStrategy"
    if not kind:
        errors.append(required(at))
    elif kind == "OnDelete":
        if rolling is not None:
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            errors.append(invalid_value(f"{at}.rollingUpdate", rolling, detail))
    elif kind == "RollingUpdate":
        if rolling is None:
            return
        nonnegative(errors, rolling, "partition", f"{at}.rollingUpdate")
        missing = rolling.get("maxUnavailable")
        if missing is not None:
            int_or_percent(errors, f"{at}.rollingUpdate.maxUnavailable", missing)
            if _count(missing) == 0:
                errors.append(invalid_value(f"{at}.rollingUpdate.maxUnavailable", missing, "cannot be 0"))
            not_over_hundred(errors, f"{at}.rollingUpdate.maxUnavailable", missing)
    else:
        shown = {"Type": kind, "RollingUpdate": rolling}
        errors.append(invalid_value(at, shown, "must be 'RollingUpdate' or 'OnDelete'"))


_STATEFUL_OPEN = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def stateful_set_update(errors: Errors, new: Object, old: Object) -> None:
    """Few fields may change; the message names them."""
    after, before = new.get("spec") or NONE, old.get("spec") or NONE
    if any(after.get(f) != before.get(f) for f in (after.keys() | before.keys()).difference(_STATEFUL_OPEN)):
        listed = ", ".join(f"'{f}'" for f in _STATEFUL_OPEN[:-1]) + f" and '{_STATEFUL_OPEN[-1]}'"
        detail = f"updates to statefulset spec for fields other than {listed} are forbidden"
        errors.append(forbidden_field("spec", detail))
    stateful_set(errors, new)


# DaemonSets


def daemon_set(errors: Errors, obj: Object) -> None:
    """Its selector chooses its own template, and not simply everything. Source: API reference, DaemonSetSpec v1."""
    spec = obj.get("spec") or NONE
    given = spec.get("selector")
    label_selector(errors, "spec.selector", given)
    selector = _read(errors, given)
    labels = ((spec.get("template") or NONE).get("metadata") or NONE).get("labels")
    if selector is not None and not selector.matches(labels):
        errors.append(invalid_value("spec.template.metadata.labels", labels, _MISMATCH))
    if given is not None and not given.get("matchLabels") and not given.get("matchExpressions"):
        errors.append(invalid_value("spec.selector", given, "empty selector is invalid for daemonset"))
    _template(errors, spec, None, "DaemonSet")
    _daemon_strategy(errors, spec.get("updateStrategy") or NONE)
    nonnegative(errors, spec, "minReadySeconds", "spec")
    nonnegative(errors, spec, "revisionHistoryLimit", "spec")


def _daemon_strategy(errors: Errors, strategy: Object) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    at = "spec.updateStrategy.rollingUpdate"
    if kind == "OnDelete":
        return
    if kind != "RollingUpdate":
        shown: Any = {"Type": kind, "RollingUpdate": rolling}
        errors.append(not_supported("spec.updateStrategy", shown, ("RollingUpdate", "OnDelete")))
        return
    if rolling is None:
        errors.append(required(at))
        return
    missing, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    int_or_percent(errors, f"{at}.maxUnavailable", missing)
    int_or_percent(errors, f"{at}.maxSurge", surge)
    if _count(missing) and _count(surge):
        errors.append(
            invalid_value(f"{at}.maxSurge", surge, "may not be set when maxUnavailable is non-zero")
        )
    elif not _count(missing) and not _count(surge):
        errors.append(required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    not_over_hundred(errors, f"{at}.maxUnavailable", missing)
    not_over_hundred(errors, f"{at}.maxSurge", surge)


def daemon_set_update(errors: Errors, new: Object, old: Object) -> None:
    daemon_set(errors, new)
    _fixed_selector(errors, new, old)


# Statuses


def status_counts(*fields: str) -> Any:
    """The judge of a status whose `fields` are counts."""

    def check(errors: Errors, new: Object, old: Object) -> None:
        status = new.get("status") or NONE
        for field in fields:
            nonnegative(errors, status, field, "status")
        collisions, before = status.get("collisionCount"), (old.get("status") or NONE).get("collisionCount")
        if before is not None and (collisions is None or collisions < before):
            errors.append(invalid_value("status.collisionCount", collisions, "cannot be decremented"))

    return check


# ControllerRevisions and PodTemplates


def controller_revision(errors: Errors, obj: Object) -> None:
    """Source: API reference, ControllerRevision v1."""
    if obj.get("data") is None:
        errors.append(required("data", "data is mandatory"))
    revision = obj.get("revision", 0)
    if revision < 0:
        errors.append(invalid_value("revision", revision, "must be greater than or equal to 0"))


def controller_revision_update(errors: Errors, new: Object, old: Object) -> None:
    controller_revision(errors, new)
    immutable(errors, "data", new.get("data"), old.get("data"))


def pod_template(errors: Errors, obj: Object) -> None:
    pod.template(errors, obj.get("template"), "template")


def pod_template_update(errors: Errors, new: Object, old: Object) -> None:
    pod_template(errors, new)
