"""Jobs and CronJobs: counting, giving up, and when the next one is."""

import itertools

import pytest
from world import START, World, template

from sampan.api import meta
from sampan.base.clock import rfc3339, rfc3339_parse
from sampan.controllers import cronjob, job, job_policy

APP = {"app": "a"}


def world(**spec):
    w = World(*job.rules())
    body = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "selector": {"matchLabels": APP},
        "template": template(APP),
    }
    w.put("jobs.batch", {"metadata": {"name": "j"}, "spec": body | spec})
    w.settle()
    return w


def end(w, pod, phase="Succeeded", code=0):
    status = {"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": rfc3339(w.now)}}}
    w.change("pods", meta.name(pod), {"status": {"phase": phase, "containerStatuses": [status]}})


def active(w):
    return [
        p
        for p in w.list("pods")
        if p.get("status", {}).get("phase") not in ("Succeeded", "Failed") and not meta.deleted(p)
    ]


def status(w):
    return w.get("jobs.batch", "j", "default")["status"]


def conditions(w):
    return {c["type"]: c["reason"] for c in status(w).get("conditions", ()) if c["status"] == "True"}


def test_success_is_counted_once_and_pods_are_released():
    w = world(completions=2)
    assert status(w)["active"] == 1 and status(w)["startTime"]
    (pod,) = active(w)
    assert meta.finalizers(pod) == ["batch.kubernetes.io/job-tracking"]
    end(w, pod)
    w.settle()
    assert (status(w)["succeeded"], status(w)["active"]) == (1, 1)
    assert status(w)["uncountedTerminatedPods"] == {}
    assert meta.finalizers(w.get("pods", meta.name(pod), "default")) == []
    end(w, active(w)[0])
    w.settle()
    assert conditions(w) == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    assert status(w)["succeeded"] == 2 and "active" not in status(w) and status(w)["completionTime"]


def test_no_more_pods_than_are_still_needed():
    w = world(completions=3, parallelism=2)
    assert len(active(w)) == 2
    for p in active(w):
        end(w, p)
    w.settle()
    assert len(active(w)) == 1


def test_work_queue():
    w = world(completions=None, parallelism=2)
    end(w, active(w)[0])
    w.settle()
    assert len(active(w)) == 1 and not conditions(w)
    end(w, active(w)[0])
    w.settle()
    assert "Complete" in conditions(w) and status(w)["succeeded"] == 2


def test_gives_up_at_the_backoff_limit():
    w = world(backoffLimit=0)
    end(w, active(w)[0], "Failed", 1)
    w.settle()
    assert conditions(w) == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
    assert len(w.list("pods")) == 1 and status(w)["failed"] == 1


def test_backs_off_between_failures():
    w = world()
    for delay in (10, 20, 40):
        end(w, active(w)[0], "Failed", 1)
        w.settle()
        assert active(w) == [] and w.timers[0][2] == pytest.approx(delay)
        w.now += delay
        w.settle()
        assert len(active(w)) == 1


def test_a_job_fails_at_its_deadline():
    w = world(activeDeadlineSeconds=60)
    assert w.timers[0][2] == 60
    w.now += 60
    w.settle()
    assert conditions(w)["Failed"] == "DeadlineExceeded" and active(w) == []


def test_parallelism_changes_and_suspension():
    w = world(completions=5, parallelism=3)
    for number in (1, 4, 0):
        w.change("jobs.batch", "j", {"spec": {"parallelism": number}})
        w.settle()
        assert len(active(w)) == number
    w.change("jobs.batch", "j", {"spec": {"parallelism": 2, "suspend": True}})
    w.settle()
    assert "failed" not in status(w)  # pods that were merely too many are no failures
    assert active(w) == [] and conditions(w) == {"Suspended": "JobSuspended"} and "startTime" not in status(w)
    w.change("jobs.batch", "j", {"spec": {"suspend": False}})
    w.settle()
    assert len(active(w)) == 2 and not conditions(w)


def test_each_index_has_a_pod_of_its_own():
    w = world(completions=3, parallelism=3, completionMode="Indexed")
    found = {job_policy.index_of(p): p for p in active(w)}
    assert sorted(found) == [0, 1, 2] and found[1]["spec"]["hostname"] == "j-1"
    assert meta.name(found[2]).startswith("j-2-")
    end(w, found[0])
    end(w, found[2])
    w.settle()
    assert status(w)["completedIndexes"] == "0,2"
    end(w, found[1], "Failed", 1)
    w.settle()
    w.now += 10
    w.settle()
    assert [job_policy.index_of(p) for p in active(w)] == [1]


def test_a_deleted_pod_is_replaced_after_the_back_off_like_one_that_failed():
    w = world()
    for delay in (10, 20):
        (pod,) = active(w)
        held = [*meta.finalizers(pod), "x.io/held"]
        w.change(
            "pods", meta.name(pod), {"metadata": {"deletionTimestamp": rfc3339(w.now), "finalizers": held}}
        )
        w.settle()
        end(w, pod)  # it obeys the signal, which makes it no success
        w.settle()
        del w.objects["pods"]["default", meta.name(pod)]  # only the controller knows of it now
        w.now += delay - 1
        w.settle()
        assert active(w) == []
        w.now += 1
        w.settle()
    assert len(active(w)) == 1 and status(w)["failed"] == 2


def test_a_job_that_takes_the_name_of_another_does_not_wait_for_its_failures():
    w = world()
    end(w, active(w)[0], "Failed", 1)
    w.settle()
    assert active(w) == []
    spec = w.objects["jobs.batch"].pop(("default", "j"))["spec"]
    w.put("jobs.batch", {"metadata": {"name": "j", "uid": "another"}, "spec": spec})
    w.settle()
    assert len(active(w)) == 1


def test_backoff_limit_per_index():
    w = world(
        completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=0, backoffLimit=2**31 - 1
    )
    found = {job_policy.index_of(p): p for p in active(w)}
    end(w, found[0], "Failed", 1)
    end(w, found[1])
    w.settle()
    assert status(w)["failedIndexes"] == "0" and conditions(w)["Failed"] == "FailedIndexes"


PER_INDEX = {"completionMode": "Indexed", "backoffLimit": 2**31 - 1}


def of_index(w, number):
    return next((p for p in active(w) if job_policy.index_of(p) == number), None)


def test_each_index_waits_for_itself_and_remembers_its_failures():
    w = world(completions=2, parallelism=2, backoffLimitPerIndex=2, **PER_INDEX)
    for failures, delay in enumerate((10, 20)):
        end(w, of_index(w, 0), "Failed", 1)
        w.settle()
        assert of_index(w, 0) is None and of_index(w, 1)
        assert w.timers[0][2] == pytest.approx(delay)
        held = [p for p in w.list("pods") if meta.finalizers(p) and job_policy.index_of(p) == 0]
        assert (
            len(held) == 1 and status(w).get("failed", 0) == failures
        )  # its last failure is kept until replaced
        w.now += delay
        w.settle()
        count = meta.annotations(of_index(w, 0))["batch.kubernetes.io/job-index-failure-count"]
        assert count == str(failures + 1) and status(w)["failed"] == failures + 1
    end(w, of_index(w, 0), "Failed", 1)
    end(w, of_index(w, 1))
    w.settle()
    assert (status(w)["failedIndexes"], status(w)["completedIndexes"], status(w)["failed"]) == ("0", "1", 3)
    assert not any(meta.finalizers(p) for p in w.list("pods"))


def test_ignored_failures_of_an_index_do_not_count_towards_its_limit():
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}
    policy = {"rules": [rule]}
    w = world(completions=1, parallelism=1, backoffLimitPerIndex=0, podFailurePolicy=policy, **PER_INDEX)
    end(w, of_index(w, 0), "Failed", 42)
    w.settle()
    w.now += 10
    w.settle()
    notes = meta.annotations(of_index(w, 0))
    assert notes["batch.kubernetes.io/job-index-failure-count"] == "0"
    assert notes["batch.kubernetes.io/job-index-ignored-failure-count"] == "1"
    assert "failed" not in status(w) and not conditions(w)


def test_an_indexed_job_that_is_made_smaller_drops_the_highest_indexes_uncounted():
    w = world(completions=3, parallelism=3, completionMode="Indexed")
    w.change("jobs.batch", "j", {"spec": {"completions": 1, "parallelism": 1}})
    w.settle()
    assert [job_policy.index_of(p) for p in active(w)] == [0] and "failed" not in status(w)


@pytest.mark.parametrize(
    "rules, done, met",
    [
        ([{"succeededIndexes": "0"}], {0}, 0),
        ([{"succeededIndexes": "0"}], {1}, None),
        ([{"succeededIndexes": "3-4"}, {"succeededCount": 2}], {0, 1}, 1),
        ([{"succeededIndexes": "0-3", "succeededCount": 2}], {0, 5}, None),
        ([{"succeededIndexes": "0-3", "succeededCount": 2}], {0, 3}, 0),
    ],
)
def test_which_success_rule_is_met(rules, done, met):
    assert job_policy.enough({"spec": {"successPolicy": {"rules": rules}}}, done) == met


@pytest.mark.parametrize(
    "action, failed, done", [("FailJob", 1, True), ("Ignore", None, False), ("Count", 1, False)]
)
def test_pod_failure_policy(action, failed, done):
    rule = {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}
    w = world(podFailurePolicy={"rules": [rule]})
    end(w, active(w)[0], "Failed", 42)
    w.settle()
    assert status(w).get("failed") == failed and ("Failed" in conditions(w)) == done


def test_success_policy():
    rule = {"succeededIndexes": "0"}
    w = world(completions=3, parallelism=3, completionMode="Indexed", successPolicy={"rules": [rule]})
    end(w, next(p for p in active(w) if job_policy.index_of(p) == 0))
    w.settle()
    assert conditions(w)["Complete"] == "SuccessPolicy" and active(w) == []


@pytest.mark.parametrize("indexes, text", [({1, 3, 4, 5}, "1,3-5"), ({1, 2}, "1,2"), (set(), "")])
def test_index_text(indexes, text):
    assert job_policy.text(indexes) == text and job_policy.parse(text) == indexes


def upcoming(schedule, zone=None, after="2024-03-09T11:59:00Z", count=2):
    return [rfc3339(t) for t in itertools.islice(cronjob.times(schedule, zone, rfc3339_parse(after)), count)]


@pytest.mark.parametrize(
    "schedule, zone, expected",
    [
        ("*/5 * * * *", None, ["2024-03-09T12:00:00Z", "2024-03-09T12:05:00Z"]),
        ("@hourly", None, ["2024-03-09T12:00:00Z", "2024-03-09T13:00:00Z"]),
        ("0 9 * * 1-5", "Asia/Shanghai", ["2024-03-11T01:00:00Z", "2024-03-12T01:00:00Z"]),
        ("0 12 * * SUN", "America/New_York", ["2024-03-10T16:00:00Z", "2024-03-17T16:00:00Z"]),
        ("@every 90s", None, ["2024-03-09T12:00:30Z", "2024-03-09T12:02:00Z"]),
    ],
)
def test_a_schedule_says_when_jobs_start(schedule, zone, expected):
    assert upcoming(schedule, zone) == expected


@pytest.mark.parametrize(
    "bad", ["* * * * * *", "0 0 L * *", "0 0 * * 5#3", "0 0 * * 7", "61 * * * *", "x", "@never"]
)
def test_schedules_that_kubernetes_refuses(bad):
    with pytest.raises(ValueError):
        upcoming(bad)


def cron(**spec):
    w = World(*cronjob.rules())
    body = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template(APP)}}, **spec}
    w.put("cronjobs.batch", {"metadata": {"name": "c"}, "spec": body})
    w.settle()
    return w


def finish(w, name, how="Complete"):
    done = {"type": how, "status": "True"}
    w.change("jobs.batch", name, {"status": {"conditions": [done], "completionTime": rfc3339(w.now)}})


def test_a_job_a_minute_and_its_history():
    w = cron(successfulJobsHistoryLimit=1)
    assert w.list("jobs.batch") == []
    for _ in range(3):
        w.now += 60
        w.settle()
        for name in w.names("jobs.batch"):
            finish(w, name)
        w.settle()
    (left,) = w.list("jobs.batch")
    assert meta.name(left) == f"c-{int((START + 180) // 60)}"
    assert {e.reason for e in w.events} == {"SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"}
    assert w.get("cronjobs.batch", "c", "default")["status"]["lastSuccessfulTime"]


@pytest.mark.parametrize("policy, jobs", [("Allow", 2), ("Forbid", 1), ("Replace", 1)])
def test_a_run_that_lasts_meets_the_next_as_the_policy_says(policy, jobs):
    w = cron(concurrencyPolicy=policy)
    for _ in range(2):
        w.now += 60
        w.settle()
    assert len(w.list("jobs.batch")) == jobs


def test_missed_runs_start_one_job_only():
    w = cron()
    w.now += 3600
    w.settle()
    assert len(w.list("jobs.batch")) == 1
    w.now += 3 * 3600
    w.settle()
    assert len(w.list("jobs.batch")) == 2 and "TooManyMissedTimes" in {e.reason for e in w.events}


def test_a_suspended_cron_job_starts_nothing():
    w = cron(suspend=True)
    w.now += 3600
    w.settle()
    assert w.list("jobs.batch") == [] and w.timers == []
