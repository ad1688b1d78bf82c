"""Jobs and CronJobs: counts, selectors the server makes, schedules."""

import pytest
from lines import same

from sampan.api.validate import cron

POD = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
LABELS = {"app": "x"}
JOB = {
    "spec": {
        "manualSelector": True,
        "parallelism": 1,
        "completions": 1,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": POD},
    }
}
CRON = {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": POD}}}}}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.suspend", True, []),
        ("spec.parallelism", -1, ["spec.parallelism: Invalid value: -1"]),
        ("spec.completionMode", "Indexed", []),
        ("spec.completionMode", "Random", ['Unsupported value: "Random": supported values: "NonIndexed", "Indexed"']),
        ("spec.template.spec.restartPolicy", "Always", ['restartPolicy: Required value: valid values: "OnFailure", "Never"']),
        ("spec.template.metadata.labels", {"app": "y"}, ["`selector` does not match template `labels`"]),
        ("spec.backoffLimitPerIndex", 1, ["requires indexed completion mode"]),
        ("spec.podFailurePolicy", {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [2, 1]}}]}, ["must be ordered"]),
        ("spec.podFailurePolicy", {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 1]}}]}, ["Duplicate value: 1"]),
        ("spec.podFailurePolicy", {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]}, ["requires the backoffLimitPerIndex to be set"]),
        ("spec.podFailurePolicy", {"rules": [{"action": "FailJob"}]}, ["specifying one of OnExitCodes and OnPodConditions is required"]),
        ("spec.successPolicy", {"rules": [{"succeededCount": 1}]}, ["requires indexed completion mode"]),
    ],
)  # fmt: skip
def test_a_job_is_refused_with_the_field_that_is_wrong(judge, put, path, value, expected):
    same(judge.create("jobs.batch", put(JOB, path, value)), expected)


def test_an_indexed_job_needs_a_count(judge, put):
    indexed = put(put(JOB, "spec.completionMode", "Indexed"), "spec.completions", ...)
    same(
        judge.create("jobs.batch", indexed),
        ["spec.completions: Required value: when completion mode is Indexed"],
    )


def test_a_selector_that_is_not_the_servers(judge, put):
    same(judge.create("jobs.batch", put(JOB, "spec.manualSelector", ...)), ["`selector` not auto-generated"])


def test_what_of_a_job_stays(judge, put):
    for path, value in (("spec.parallelism", 5), ("spec.suspend", True), ("spec.activeDeadlineSeconds", 9)):
        assert judge.update("jobs.batch", put(JOB, path, value), JOB) == []
    same(
        judge.update("jobs.batch", put(JOB, "spec.completions", 3), JOB),
        ["spec.completions: Invalid value: 3: field is"],
    )
    same(
        judge.update("jobs.batch", put(JOB, "spec.template.spec.containers.0.image", "j"), JOB),
        ["spec.template: Invalid value: {"],
    )
    waits = put(JOB, "spec.suspend", True)
    assert judge.update("jobs.batch", put(waits, "spec.template.spec.nodeSelector", {"a": "b"}), waits) == []


def test_an_elastic_job_scales_as_one(judge, put):
    def sized(count):
        job = put(put(JOB, "spec.completionMode", "Indexed"), "spec.completions", count)
        return put(job, "spec.parallelism", count)

    assert judge.update("jobs.batch", sized(3), sized(2)) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.timeZone", "Europe/Berlin", []),
        ("spec.timeZone", "Mars/Base", ["unknown time zone Mars/Base"]),
        ("spec.timeZone", "Local", ["timeZone must be an explicit time zone as defined in"]),
        ("spec.schedule", "", ["spec.schedule: Required value"]),
        (
            "spec.schedule",
            "TZ=UTC * * * * *",
            ["cannot use TZ or CRON_TZ in schedule, use timeZone field instead"],
        ),
        ("spec.schedule", "* * * * * *", ["expected exactly 5 fields, found 6: [* * * * * *]"]),
        ("spec.concurrencyPolicy", "Maybe", ['supported values: "Allow", "Forbid", "Replace"']),
        (
            "spec.jobTemplate.spec.manualSelector",
            True,
            ['Unsupported value: true: supported values: "nil", "false"'],
        ),
        ("metadata.name", "x" * 53, ["must be no more than 52 characters"]),
    ],
)
def test_cron_jobs(judge, put, path, value, expected):
    same(judge.create("cronjobs.batch", put(CRON, path, value)), expected)


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        ("*/5 0-6/2 1,15 jan-MAR mon", ""),
        ("0 0 ? * *", ""),
        ("@hourly", ""),
        ("@every 1h30m", ""),
        ("@reboot", "unrecognized descriptor: @reboot"),
        ("0 0 L * *", 'failed to parse int from L: strconv.Atoi: parsing "L": invalid syntax'),
        ("0 0 * * 1#2", 'failed to parse int from 1#2: strconv.Atoi: parsing "1#2": invalid syntax'),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("9-3 * * * *", "beginning of range (9) beyond end of range (3): 9-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
    ],
)
def test_a_schedule_is_refused_with_what_is_wrong_in_it(schedule, wrong):
    assert cron.problem(schedule) == wrong
