"""CronJob: a Job at every time its schedule names, in its time zone.

Source: API reference CronJob v1, "CronJob" (schedule syntax, concurrency policy, deadlines, more than 100 missed runs).
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Iterator

from cronsim import CronSim, CronSimError

from sampan.api import duration, meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Event, Plan, View

from . import job as jobs
from .base import Rule, owner_of, seconds, stamp, status_patch

_RESOURCE = "cronjobs.batch"
_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_MANY = 100
_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELD = re.compile(r"^[0-9A-Za-z*?/,-]+$")


def rules() -> list[Rule]:
    return [Rule("cronjob-controller", _RESOURCE, reconcile, {"jobs.batch": owner_of("CronJob")})]


def times(schedule: str, zone: str | None, after: float) -> Iterator[float]:
    """Times after `after`, without end. Raises ValueError for what Kubernetes does not accept (a sixth field, L, #, 7)."""
    if schedule.startswith("@every "):
        step = _every(schedule.removeprefix("@every "))
        while True:
            after += step
            yield after
    text = _NAMES.get(schedule, schedule)
    fields = text.split()
    if (
        len(fields) != 5
        or not all(_FIELD.match(f) for f in fields)
        or "L" in fields[2] + fields[4].replace("JUL", "")
    ):
        raise ValueError(
            f"expected exactly 5 fields, found {len(fields)}: [{schedule}]"
            if len(fields) != 5
            else f"failed to parse schedule: {schedule}"
        )
    if re.search(r"(^|[,/-])7($|[,/-])", fields[4]):
        raise ValueError("end of range (7) above maximum (6): 7")
    try:
        tz = zoneinfo.ZoneInfo(zone) if zone else datetime.UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"unknown time zone {zone}") from error
    try:
        found = CronSim(text.replace("?", "*"), datetime.datetime.fromtimestamp(after, tz))
    except CronSimError as error:
        raise ValueError(f"failed to parse schedule {schedule}: {error}") from error
    for moment in found:
        yield moment.timestamp()


def _every(text: str) -> float:
    try:
        return max(1.0, float(int(duration.seconds(text))))
    except ValueError as error:
        raise ValueError(f"failed to parse duration @every {text}: {error}") from None


def reconcile(cron: Object, view: View, now: float) -> Plan:
    """Starts the run that is due, keeps account of those that run, removes finished ones beyond the history limits.

    Of runs that were missed only the latest is made up for. Source: API reference, CronJobSpec v1 (concurrencyPolicy,
    startingDeadlineSeconds); "CronJob", section "Job creation".
    """
    plan, spec = Plan(), cron["spec"]
    if meta.deleted(cron):
        return plan
    mine = view.owned("jobs.batch", meta.uid(cron))
    _clean_up(plan, cron, mine)
    status = _status(plan, cron, mine)
    if spec.get("suspend"):
        return plan.then(*status_patch(_RESOURCE, cron, status))
    try:
        due, missed, following = _due(cron, now)
    except ValueError as error:
        reason = "UnknownTimeZone" if "time zone" in str(error) else "UnparseableSchedule"
        plan.events.append(
            Event(cron, "Warning", reason, f"unparseable schedule: {spec['schedule']!r}: {error}")
        )
        return plan.then(*status_patch(_RESOURCE, cron, status))
    if following is not None:
        plan.requeue(max(0.001, following - now + 0.1))
    if missed > _MANY:
        text = (
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        )
        plan.events.append(Event(cron, "Warning", "TooManyMissedTimes", text))
    if due is not None:
        _start(plan, cron, mine, status, due, now, view)
    return plan.then(*status_patch(_RESOURCE, cron, status))


def _due(cron: Object, now: float) -> tuple[float | None, int, float | None]:
    """(the latest time that has come and not been served, how many had, the next one)."""
    spec = cron["spec"]
    last = cron.get("status", {}).get("lastScheduleTime")
    earliest = seconds(last or cron["metadata"].get("creationTimestamp"))
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        earliest = max(earliest, now - deadline)
    if now - earliest > 40 * 86400:  # no need to walk through years of missed minutes
        earliest = now - 40 * 86400
    due, missed = None, 0
    for moment in times(spec["schedule"], spec.get("timeZone"), earliest):
        if moment > now:
            return due, missed, moment
        due, missed = moment, missed + 1
    return due, missed, None


def _start(
    plan: Plan, cron: Object, mine: list[Object], status: Object, due: float, now: float, view: View
) -> None:
    spec, namespace = cron["spec"], meta.namespace(cron)
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None and now > due + deadline:
        text = f"Missed scheduled time to start a job: {stamp(due)}"
        plan.events.append(Event(cron, "Warning", "MissSchedule", text))
        return
    active = [j for j in mine if not jobs.finished(j) and not _by_hand(j)]
    policy = spec.get("concurrencyPolicy", "Allow")
    if policy == "Forbid" and active:
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        plan.events.append(Event(cron, "Normal", "JobAlreadyActive", text))
        plan.why = text
        return
    if policy == "Replace":
        for job in active:
            plan.then(
                Delete("jobs.batch", meta.name(job), namespace, uid=meta.uid(job), propagation="Background")
            )
            plan.events.append(Event(cron, "Normal", "SuccessfulDelete", f"Deleted job {meta.name(job)}"))
    name = f"{meta.name(cron)}-{int(due // 60)}"
    if view.get("jobs.batch", name, namespace) is None:
        template = spec["jobTemplate"]
        source = template.get("metadata") or {}
        metadata = {
            "name": name,
            "namespace": namespace,
            "labels": dict(source.get("labels") or {}),
            "annotations": dict(source.get("annotations") or {}) | {_AT: _local(due, spec.get("timeZone"))},
            "ownerReferences": [meta.owner_ref(cron, controller=True)],
        }
        made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
        event = Event(cron, "Normal", "SuccessfulCreate", "Created job {name}")
        plan.then(Create("jobs.batch", made, namespace, event=event))
        plan.events.append(Event(cron, "Warning", "FailedCreate", "Error creating job: {error}"))
        plan.why = f"starts {name}"
    status["lastScheduleTime"] = stamp(due)


def _local(due: float, zone: str | None) -> str:
    tz = zoneinfo.ZoneInfo(zone) if zone else datetime.UTC
    text = datetime.datetime.fromtimestamp(int(due), tz).isoformat()
    return text.replace("+00:00", "Z")


def _by_hand(job: Object) -> bool:
    """From `kubectl create job --from=cronjob/...`: it counts for the history, not for the concurrency policy."""
    return meta.annotations(job).get("cronjob.kubernetes.io/instantiate") == "manual"


def _status(plan: Plan, cron: Object, mine: list[Object]) -> Object:
    """Active Jobs, and the last success; tells of Jobs that ended since."""
    old = cron.get("status", {})
    running = [j for j in mine if not jobs.finished(j) and not _by_hand(j)]
    status = {k: v for k, v in old.items() if k != "active"}
    if running:
        status["active"] = [meta.object_ref(j) for j in running]
        known = {r["uid"]: r for r in old.get("active") or ()}
        status["active"] = [known.get(r["uid"], r) for r in status["active"]]
    before = {r["uid"] for r in old.get("active") or ()}
    for job in mine:
        how = jobs.finished(job)
        if how and meta.uid(job) in before:
            text = f"Saw completed job: {meta.name(job)}, condition: {how}"
            plan.events.append(Event(cron, "Normal", "SawCompletedJob", text))
    ended = [e for j in mine if jobs.finished(j) == "Complete" and (e := j["status"].get("completionTime"))]
    if ended:
        status["lastSuccessfulTime"] = max([*ended, *filter(None, [old.get("lastSuccessfulTime")])])
    return status


def _clean_up(plan: Plan, cron: Object, mine: list[Object]) -> None:
    """Old finished Jobs beyond the history limits go, the oldest first."""
    spec = cron["spec"]
    limits = (
        ("Complete", spec.get("successfulJobsHistoryLimit", 3)),
        ("Failed", spec.get("failedJobsHistoryLimit", 1)),
    )
    for how, limit in limits:
        ended = [j for j in mine if jobs.finished(j) == how and not meta.deleted(j)]
        ended.sort(key=lambda j: (j.get("status", {}).get("startTime") or "", meta.name(j)))
        gone = ended[: max(0, len(ended) - limit)] if limit is not None else []
        namespace = meta.namespace(cron)
        plan.then(
            *(
                Delete("jobs.batch", meta.name(j), namespace, uid=meta.uid(j), propagation="Background")
                for j in gone
            )
        )
        plan.events += [
            Event(cron, "Normal", "SuccessfulDelete", f"Deleted job {meta.name(j)}") for j in gone
        ]
