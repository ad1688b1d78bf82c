"""Defaults of Jobs and CronJobs. Source: API reference, group batch/v1."""

from __future__ import annotations

from sampan.api.defaults.pod import Json, template

_NO_LIMIT = 2**31 - 1  # with a limit for each index there is none for the whole


def job(obj: Json) -> None:
    """One pod, unless it says how many. With a failure policy a pod is replaced when it has ended, for the policy must see how
    (KEP-3939).
    """
    spec = obj.setdefault("spec", {})
    template(spec)
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _NO_LIMIT if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    _failure_policy(spec)
    metadata = obj.setdefault("metadata", {})
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)


def cron_job(obj: Json) -> None:
    """The job inside takes its own defaults only when it is created."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    inner = spec.get("jobTemplate")
    if inner is not None:
        inner.setdefault("metadata", {})
        template(inner.setdefault("spec", {}))
        _failure_policy(inner["spec"])


def _failure_policy(spec: Json) -> None:
    for rule in (spec.get("podFailurePolicy") or {}).get("rules", ()):
        for pattern in rule.get("onPodConditions", ()):
            pattern.setdefault("status", "True")
