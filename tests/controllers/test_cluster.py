"""The mind through the API: the memory fidelity with simulated nodes and a virtual clock."""

import pytest

from sampan.api import meta
from sampan.api.status import ApiError
from sampan.testing.cluster import Cluster

APP = {"app": "a"}


def template(labels=APP, image="img:1", **spec):
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}], **spec}}


def workload(kind, name="d", **spec):
    body = {"selector": {"matchLabels": APP}, "template": template(), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body}


async def names(cluster, resource, **selection):
    return [meta.name(o) for o in (await cluster.client.list(resource, **selection))["items"]]


async def items(cluster, resource, namespace="default"):
    return (await cluster.client.list(resource, namespace))["items"]


async def images(cluster):
    return sorted(p["spec"]["containers"][0]["image"] for p in await items(cluster, "pods"))


async def test_a_deployment_runs_is_updated_and_goes():
    async with Cluster(nodes=2) as cluster:
        await cluster.client.create("deployments.apps", workload("Deployment", replicas=3), "default")
        await cluster.advance(5)
        d = await cluster.client.get("deployments.apps", "d", "default")
        assert d["status"]["availableReplicas"] == 3
        assert meta.condition(d, "Progressing")["reason"] == "NewReplicaSetAvailable"
        await cluster.client.patch(
            "deployments.apps", "d", {"spec": {"template": template(image="img:2")}}, "default"
        )
        await cluster.advance(60)
        assert await images(cluster) == ["img:2"] * 3
        await cluster.client.delete("deployments.apps", "d", "default")
        await cluster.advance(60)
        assert await items(cluster, "pods") == [] and await items(cluster, "replicasets.apps") == []


@pytest.mark.parametrize("how, left", [("Orphan", 2), ("Foreground", 0), ("Background", 0)])
async def test_dependents_go_or_stay_as_the_propagation_policy_says(how, left):
    async with Cluster(nodes=1) as cluster:
        await cluster.client.create("replicasets.apps", workload("ReplicaSet", replicas=2), "default")
        await cluster.advance(5)
        await cluster.client.delete("replicasets.apps", "d", "default", propagation=how)
        await cluster.advance(60)
        assert await items(cluster, "replicasets.apps") == []
        pods = await items(cluster, "pods")
        assert len(pods) == left and not any(meta.owners(p) for p in pods)


async def test_a_circle_of_owners_that_wait_for_each_other_goes_too():
    async with Cluster(nodes=0) as cluster:
        uids = {}
        for name in ("a", "b", "c"):
            made = await cluster.client.create("configmaps", {"metadata": {"name": name}}, "default")
            uids[name] = made["metadata"]["uid"]
        for name, owner in (("a", "c"), ("b", "a"), ("c", "b")):
            ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uids[owner]}
            metadata = {"ownerReferences": [ref | {"blockOwnerDeletion": True}]}
            await cluster.client.patch("configmaps", name, {"metadata": metadata}, "default")
        await cluster.settle()
        await cluster.client.delete("configmaps", "a", "default", propagation="Foreground")
        await cluster.advance(60)
        left = {c["metadata"]["name"] for c in await items(cluster, "configmaps")}
        assert left & set(uids) == set()


async def test_pods_of_a_lost_node_come_back_elsewhere():
    async with Cluster(nodes=3, toleration_seconds=30) as cluster:
        await cluster.client.create("deployments.apps", workload("Deployment", replicas=3), "default")
        await cluster.advance(5)
        pod = (await items(cluster, "pods"))[0]
        lost = pod["spec"]["nodeName"]
        await cluster.nodes[lost].stop()
        await cluster.advance(60)
        node = await cluster.client.get("nodes", lost)
        assert meta.condition(node, "Ready")["status"] == "Unknown"
        await cluster.advance(60)
        running = [
            p for p in await items(cluster, "pods") if not meta.deleted(p) and meta.is_true(p, "Ready")
        ]
        assert len(running) == 3 and lost not in {p["spec"]["nodeName"] for p in running}
        assert any(meta.deleted(p) for p in await items(cluster, "pods"))
        await cluster.nodes[lost].start()
        await cluster.advance(60)
        assert meta.is_true(await cluster.client.get("nodes", lost), "Ready")
        assert len(await items(cluster, "pods")) == 3
        assert not (await cluster.client.get("nodes", lost))["spec"].get("taints")


async def test_a_namespace_goes_with_all_that_is_in_it():
    async with Cluster(nodes=1) as cluster:
        await cluster.client.create("namespaces", {"metadata": {"name": "x"}})
        await cluster.client.create("deployments.apps", workload("Deployment", replicas=2), "x")
        await cluster.client.create("configmaps", {"metadata": {"name": "c"}}, "x")
        await cluster.advance(5)
        assert await names(cluster, "serviceaccounts", namespace="x") == ["default"]
        await cluster.client.delete("namespaces", "x")
        await cluster.advance(60)
        with pytest.raises(ApiError, match="not found"):
            await cluster.client.get("namespaces", "x")


async def test_stateful_and_daemon_sets():
    async with Cluster(nodes=2) as cluster:
        await cluster.client.create(
            "statefulsets.apps", workload("StatefulSet", "s", replicas=3, serviceName="s"), "default"
        )
        await cluster.client.create(
            "daemonsets.apps",
            workload("DaemonSet", "ds", selector={"matchLabels": {"d": "s"}}, template=template({"d": "s"})),
            "default",
        )
        await cluster.advance(30)
        s = await cluster.client.get("statefulsets.apps", "s", "default")
        assert (
            s["status"]["readyReplicas"] == 3
            and s["status"]["currentRevision"] == s["status"]["updateRevision"]
        )
        assert await names(cluster, "pods", labels="app=a") == ["s-0", "s-1", "s-2"]
        ds = await cluster.client.get("daemonsets.apps", "ds", "default")
        assert ds["status"]["numberAvailable"] == 2
        await cluster.client.patch(
            "statefulsets.apps", "s", {"spec": {"template": template(image="img:2")}}, "default"
        )
        await cluster.client.patch(
            "daemonsets.apps", "ds", {"spec": {"template": template({"d": "s"}, "img:2")}}, "default"
        )
        await cluster.add_node()
        await cluster.advance(300)
        assert await images(cluster) == ["img:2"] * 6
        await cluster.client.patch("statefulsets.apps", "s", {"spec": {"replicas": 1}}, "default")
        await cluster.advance(120)
        assert await names(cluster, "pods", labels="app=a") == ["s-0"]


async def test_an_unschedulable_pod_says_why_and_runs_when_it_can():
    async with Cluster(nodes=1) as cluster:
        spec = {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100"}}}]}
        await cluster.client.create("pods", {"metadata": {"name": "p"}, "spec": spec}, "default")
        await cluster.advance(1)
        pod = await cluster.client.get("pods", "p", "default")
        assert meta.condition(pod, "PodScheduled")["message"] == (
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
            "1 Preemption is not helpful for scheduling."
        )
        events = await items(cluster, "events")
        assert "FailedScheduling" in {e["reason"] for e in events}
        await cluster.add_node(capacity={"cpu": "200"})
        await cluster.advance(20)
        assert (await cluster.client.get("pods", "p", "default"))["status"]["phase"] == "Running"


async def test_a_more_important_pod_takes_the_place_of_another():
    async with Cluster(nodes=1) as cluster:
        for name, value in (("low", 1), ("high", 1000)):
            await cluster.client.create(
                "priorityclasses.scheduling.k8s.io", {"metadata": {"name": name}, "value": value}
            )
        for name in ("low", "high"):
            container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}
            spec = {"priorityClassName": name, "containers": [container]}
            await cluster.client.create("pods", {"metadata": {"name": name}, "spec": spec}, "default")
            await cluster.advance(2)
        await cluster.advance(60)
        assert "Preempted" in {e["reason"] for e in await items(cluster, "events")}
        assert await names(cluster, "pods") == ["high"]
        assert (await cluster.client.get("pods", "high", "default"))["status"]["phase"] == "Running"


async def test_the_same_seed_gives_the_same_history():
    async def history():
        async with Cluster(nodes=2, seed=7) as cluster:
            await cluster.client.create("deployments.apps", workload("Deployment", replicas=4), "default")
            await cluster.advance(30)
            return [
                (meta.name(p), meta.uid(p), meta.resource_version(p)) for p in await items(cluster, "pods")
            ]

    assert await history() == await history()


async def test_jobs_and_cronjobs_run_to_their_end():
    async with Cluster(nodes=1) as cluster:
        run = {"template": template({}, restartPolicy="Never"), "completions": 3, "parallelism": 2}
        run["template"]["metadata"] = {}
        run["template"]["spec"]["containers"][0]["args"] = ["sleep", "5"]
        await cluster.client.create("jobs.batch", {"metadata": {"name": "j"}, "spec": run}, "default")
        cron = {"schedule": "*/10 * * * *", "jobTemplate": {"spec": run}}
        await cluster.client.create("cronjobs.batch", {"metadata": {"name": "c"}, "spec": cron}, "default")
        await cluster.advance(3700)
        done = await cluster.client.get("jobs.batch", "j", "default")
        assert meta.is_true(done, "Complete") and done["status"]["succeeded"] == 3
        cron = await cluster.client.get("cronjobs.batch", "c", "default")
        assert cron["status"]["lastScheduleTime"] == "2026-01-01T01:00:00Z"
        assert len(await names(cluster, "jobs.batch")) == 1 + 3  # and its history of three
        pods = await items(cluster, "pods")
        assert len(pods) == 4 * 3 and not any(meta.finalizers(p) for p in pods)


async def test_a_job_made_by_hand_from_a_cronjob_holds_nothing_up():
    async with Cluster(nodes=1) as cluster:
        run = {"template": template({}, restartPolicy="Never")}
        run["template"]["metadata"] = {}
        cron = {"schedule": "*/10 * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": run}}
        made = await cluster.client.create(
            "cronjobs.batch", {"metadata": {"name": "c"}, "spec": cron}, "default"
        )
        hand = {
            "name": "hand",
            "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
            "ownerReferences": [meta.owner_ref(made, controller=True)],
        }
        await cluster.client.create("jobs.batch", {"metadata": hand, "spec": run}, "default")
        await cluster.advance(1)
        assert "active" not in (await cluster.client.get("cronjobs.batch", "c", "default")).get("status", {})
        await cluster.advance(600)
        assert len(await names(cluster, "jobs.batch")) == 2


async def test_an_autoscaler_without_metrics_still_keeps_its_bounds():
    async with Cluster(nodes=1) as cluster:
        await cluster.client.create("deployments.apps", workload("Deployment", replicas=1), "default")
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        spec = {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5}
        await cluster.client.create(
            "horizontalpodautoscalers.autoscaling", {"metadata": {"name": "h"}, "spec": spec}, "default"
        )
        await cluster.advance(20)
        assert len(await items(cluster, "pods")) == 3


async def test_a_claim_of_the_local_path_class_is_made_where_its_pod_runs():
    async with Cluster(nodes=2) as cluster:
        made = {"metadata": {"name": "local"}, "provisioner": "sampan.io/local-path"}
        await cluster.client.create(
            "storageclasses.storage.k8s.io", made | {"volumeBindingMode": "WaitForFirstConsumer"}
        )
        spec = {"storageClassName": "local", "accessModes": ["ReadWriteOnce"]}
        spec["resources"] = {"requests": {"storage": "1Gi"}}
        await cluster.client.create(
            "persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec}, "default"
        )
        await cluster.advance(5)
        claim = await cluster.client.get("persistentvolumeclaims", "c", "default")
        assert claim["status"]["phase"] == "Pending"
        pod = template()["spec"] | {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}
        await cluster.client.create("pods", {"metadata": {"name": "p"}, "spec": pod}, "default")
        await cluster.advance(10)
        claim = await cluster.client.get("persistentvolumeclaims", "c", "default")
        node = (await cluster.client.get("pods", "p", "default"))["spec"]["nodeName"]
        volume = await cluster.client.get("persistentvolumes", claim["spec"]["volumeName"])
        assert claim["status"]["phase"] == "Bound" and node in str(volume["spec"]["nodeAffinity"])
        await cluster.client.delete("persistentvolumeclaims", "c", "default")
        await cluster.advance(10)
        assert await names(cluster, "persistentvolumeclaims") == ["c"]  # held by its pod
        await cluster.client.delete("pods", "p", "default")
        await cluster.advance(60)
        assert (
            await names(cluster, "persistentvolumeclaims") == [] == await names(cluster, "persistentvolumes")
        )
