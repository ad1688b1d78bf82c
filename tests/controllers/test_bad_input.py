"""What cannot be done is told with its cause, tried again ever more slowly, and done as soon as it can be."""

import pytest

from sampan.api import meta
from sampan.testing import Cluster

HOUR = 3600
STRICT = {"metadata": {"name": "strict", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
APP = {"app": "a"}
TEMPLATE = {"metadata": {"labels": APP}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
SET = {"selector": {"matchLabels": APP}, "template": TEMPLATE}
ONCE = {"template": {"spec": TEMPLATE["spec"] | {"restartPolicy": "Never"}}}


async def failures(cluster):
    return {f.name: f.failed for f in cluster.plane.runner.figures()}


@pytest.mark.parametrize(
    "resource, spec, controller, told",
    [
        ("replicasets.apps", SET, "replicaset-controller", "ReplicaFailure"),
        (
            "replicationcontrollers",
            {"selector": APP, "template": TEMPLATE},
            "replication-controller",
            "ReplicaFailure",
        ),
        ("statefulsets.apps", SET | {"serviceName": "a"}, "statefulset-controller", "updateRevision"),
        ("daemonsets.apps", SET, "daemon-set-controller", "numberUnavailable"),
        ("jobs.batch", ONCE, "job-controller", "startTime"),
    ],
)
async def test_pods_that_admission_refuses(resource, spec, controller, told):
    async with Cluster(nodes=1) as cluster:
        await cluster.client.create("namespaces", STRICT)
        await cluster.settle()
        await cluster.client.create(resource, {"metadata": {"name": "x"}, "spec": spec}, "strict")
        await cluster.advance(HOUR)
        tries = (await failures(cluster))[controller]
        assert 5 < tries < 35
        await cluster.advance(HOUR)
        assert (await failures(cluster))[controller] - tries < 15
        events = await cluster.list("events", "strict", fields="reason=FailedCreate")
        assert events and all("violates PodSecurity" in e["message"] for e in events)
        assert told in str((await cluster.get(resource, "x", "strict"))["status"])
        relaxed = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
        await cluster.client.patch("namespaces", "strict", relaxed)
        await cluster.advance(1100)
        assert await cluster.list("pods", "strict")


async def test_a_deployment_repeats_what_its_replica_set_could_not_do():
    async with Cluster(nodes=1) as cluster:
        await cluster.client.create(
            "resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}, "default"
        )
        await cluster.settle()
        spec = SET | {"replicas": 3, "progressDeadlineSeconds": 60}
        await cluster.client.create("deployments.apps", {"metadata": {"name": "d"}, "spec": spec}, "default")
        await cluster.advance(120)
        deployment = await cluster.get("deployments", "d")
        assert "exceeded quota: q" in meta.condition(deployment, "ReplicaFailure")["message"]
        assert meta.condition(deployment, "Progressing")["reason"] == "ProgressDeadlineExceeded"
        assert deployment["status"]["availableReplicas"] == 1
        await cluster.client.delete("resourcequotas", "q", "default")
        await cluster.advance(1100)
        deployment = await cluster.get("deployments", "d")
        assert deployment["status"]["availableReplicas"] == 3
        assert not meta.condition(deployment, "ReplicaFailure")


async def test_a_job_whose_pods_are_refused_still_meets_its_deadline():
    async with Cluster(nodes=1) as cluster:
        await cluster.client.create("namespaces", STRICT)
        await cluster.settle()
        spec = ONCE | {"activeDeadlineSeconds": 60}
        await cluster.client.create("jobs.batch", {"metadata": {"name": "j"}, "spec": spec}, "strict")
        await cluster.advance(120)
        job = await cluster.get("jobs", "j", "strict")
        assert meta.condition(job, "Failed")["reason"] == "DeadlineExceeded"


async def test_an_autoscaler_of_nothing_says_so():
    async with Cluster(nodes=0) as cluster:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}
        spec = {"maxReplicas": 3, "scaleTargetRef": target}
        await cluster.client.create(
            "horizontalpodautoscalers.autoscaling", {"metadata": {"name": "h"}, "spec": spec}, "default"
        )
        await cluster.advance(60)
        condition = meta.condition(await cluster.get("hpa", "h"), "AbleToScale")
        assert (condition["status"], condition["reason"]) == ("False", "FailedGetScale")
        assert "none" in condition["message"]


async def test_a_budget_for_everything_and_one_for_nothing():
    async with Cluster(nodes=1) as cluster:
        await cluster.client.create("replicasets.apps", {"metadata": {"name": "r"}, "spec": SET}, "default")
        for name, selector in (("all", {}), ("none", {"matchLabels": {"no": "one"}})):
            spec = {"maxUnavailable": 1, "selector": selector}
            await cluster.client.create(
                "poddisruptionbudgets.policy", {"metadata": {"name": name}, "spec": spec}, "default"
            )
        await cluster.advance(5)
        status = {n: (await cluster.get("pdb", n))["status"] for n in ("all", "none")}
        assert (status["all"]["expectedPods"], status["all"]["disruptionsAllowed"]) == (1, 1)
        assert (status["none"]["expectedPods"], status["none"]["disruptionsAllowed"]) == (0, 0)


async def test_a_clock_that_jumps_over_three_days_starts_one_job():
    async with Cluster(nodes=0) as cluster:
        spec = {"schedule": "*/10 * * * *", "jobTemplate": {"spec": ONCE}, "suspend": True}
        await cluster.client.create("cronjobs.batch", {"metadata": {"name": "c"}, "spec": spec}, "default")
        await cluster.advance(3 * 86400)
        await cluster.client.patch("cronjobs.batch", "c", {"spec": {"suspend": False}}, "default")
        await cluster.settle()
        assert len(await cluster.list("jobs")) == 1
        assert await cluster.list("events", fields="reason=TooManyMissedTimes")


@pytest.mark.parametrize(
    "wish, told, remedy",
    [
        (
            {"priorityClassName": "grand"},
            "no PriorityClass with name grand was found",
            ("priorityclasses.scheduling.k8s.io", {"metadata": {"name": "grand"}, "value": 5}, ""),
        ),
        (
            {"serviceAccountName": "robot"},
            'serviceaccount "robot" not found',
            ("serviceaccounts", {"metadata": {"name": "robot"}}, "default"),
        ),
        (
            {"runtimeClassName": "thin"},
            'RuntimeClass "thin" not found',
            ("runtimeclasses.node.k8s.io", {"metadata": {"name": "thin"}, "handler": "sampan"}, ""),
        ),
    ],
)
async def test_a_template_that_names_what_is_not_there(wish, told, remedy):
    async with Cluster(nodes=1) as cluster:
        template = TEMPLATE | {"spec": TEMPLATE["spec"] | wish}
        spec = SET | {"template": template, "replicas": 3}
        await cluster.client.create("replicasets.apps", {"metadata": {"name": "r"}, "spec": spec}, "default")
        await cluster.advance(HOUR)
        assert (await failures(cluster))["replicaset-controller"] < 35
        (event, *_) = await cluster.list("events", fields="reason=FailedCreate")
        assert told in event["message"]
        assert told in meta.condition(await cluster.get("replicasets", "r"), "ReplicaFailure")["message"]
        await cluster.client.create(*remedy)
        await cluster.advance(1100)
        assert (await cluster.get("replicasets", "r"))["status"]["readyReplicas"] == 3


async def test_sets_of_one_selector_leave_each_other_their_pods():
    async with Cluster(nodes=1, history=True) as cluster:
        for name, replicas in (("a", 2), ("b", 3)):
            spec = SET | {"replicas": replicas}
            await cluster.client.create(
                "replicasets.apps", {"metadata": {"name": name}, "spec": spec}, "default"
            )
        await cluster.advance(5)
        owners = sorted(meta.owner(p)["name"] for p in await cluster.list("pods"))
        assert owners == ["a", "a", "b", "b", "b"]
        cluster.writes.clear()
        await cluster.advance(60)
        assert {w.resource for w in cluster.writes} <= {"leases.coordination.k8s.io"}


@pytest.mark.parametrize("how, left", [("Background", (0, 0)), ("Foreground", (0, 0)), ("Orphan", (1, 30))])
@pytest.mark.parametrize("turns", [1, 5, 20, 60])
async def test_an_owner_that_goes_while_its_pods_are_being_made(how, left, turns):
    async with Cluster(nodes=1) as cluster:
        spec = SET | {"replicas": 30}
        await cluster.client.create("deployments.apps", {"metadata": {"name": "d"}, "spec": spec}, "default")
        for _ in range(turns):
            await cluster.clock.sleep(0)
        await cluster.client.delete("deployments.apps", "d", "default", propagation=how)
        await cluster.advance(60)
        found = len(await cluster.list("replicasets")), len(await cluster.list("pods"))
        assert found in (left, (0, 0))  # one that went before it had a set leaves nothing behind


async def test_what_others_do_in_the_middle_of_a_rollout_is_made_good():
    async with Cluster(nodes=1) as cluster:
        spec = SET | {"replicas": 6}
        await cluster.client.create("deployments.apps", {"metadata": {"name": "d"}, "spec": spec}, "default")
        await cluster.advance(5)
        template = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}}
        await cluster.client.patch("deployments.apps", "d", template, "default", kind="strategic")
        for _ in range(30):
            await cluster.clock.sleep(0)
        new = max(await cluster.list("replicasets"), key=lambda s: int(s["metadata"]["resourceVersion"]))
        await cluster.client.delete("replicasets.apps", meta.name(new), "default", propagation="Orphan")
        free, doomed, *_ = await cluster.list("pods")
        await cluster.client.patch("pods", meta.name(free), {"metadata": {"labels": {"app": "b"}}}, "default")
        await cluster.client.delete("pods", meta.name(doomed), "default", grace=0)
        await cluster.advance(120)
        status = (await cluster.get("deployments", "d"))["status"]
        assert status["updatedReplicas"] == status["availableReplicas"] == status["replicas"] == 6
        pods = await cluster.list("pods")
        assert sum(meta.labels(p)["app"] == "b" and not meta.owner(p) for p in pods) == 1
        assert len(pods) == 7
