"""What `sampan.testing` promises to people who test operators with it."""

import asyncio
from functools import partial

import pytest

from sampan.api.status import ApiError
from sampan.client.plan import Create, Plan
from sampan.controllers import Rule
from sampan.testing import Cluster

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: web, readinessProbe: {httpGet: {port: 80}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
NIGHTLY = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  successfulJobsHistoryLimit: 100
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: x, command: [sleep, "20"]}]
"""


def pod(name, command=("sleep", "1000000"), **annotations):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": "x", "command": list(command)}]},
    }


async def busy_day(seed):
    """Everything at once: a rollout, a node that fails and comes back, jobs, deletions."""
    async with Cluster(nodes=3, seed=seed, history=True) as cluster:
        await cluster.apply(WEB, NIGHTLY)
        await cluster.advance(10)
        await cluster.client.patch(
            "deployments.apps", "web", {"spec": {"template": {"metadata": {"labels": {"v": "2"}}}}}, "default"
        )
        await cluster.advance(60)
        await cluster.nodes["node-2"].power_off()
        await cluster.advance(600)
        await cluster.nodes["node-2"].start()
        await cluster.advance(4 * 3600)
        await cluster.client.delete("deployments.apps", "web", "default", propagation="Foreground")
        await cluster.advance(60)
        return cluster.writes


async def test_two_runs_with_one_seed_write_the_same_history_byte_for_byte():
    first, second = await busy_day(7), await busy_day(7)
    assert len(first) > 500
    for one, other in zip(first, second, strict=True):
        assert one == other
    assert [w.value for w in first] != [w.value for w in await busy_day(8)]


async def test_days_of_a_cronjob_passes_at_once():
    async with Cluster(nodes=1) as cluster:
        await cluster.apply(NIGHTLY)
        await cluster.advance(2 * 86400)
        jobs = await cluster.list("jobs")
        assert [job["status"]["startTime"] for job in jobs] == [f"2026-01-0{d}T03:00:00Z" for d in (1, 2)]
        assert all(job["status"]["succeeded"] == 1 for job in jobs)


async def test_logs_and_exec_of_a_simulated_container():
    async with Cluster() as cluster:
        await cluster.apply(pod("p", **{"sampan.dev/simulate": "log='hello there'"}))
        await cluster.settle()
        assert "hello there" in await cluster.logs("p")
        assert (await cluster.exec("p", ["echo", "hi", "you"])).stdout == "hi you\n"
        assert (await cluster.exec("p", ["sh", "-c", "exit 3"], container="c")).code == 3
        with pytest.raises(ApiError, match='pods "none" not found'):
            await cluster.logs("none")
        with pytest.raises(ApiError, match="container d is not valid for pod p"):
            await cluster.exec("p", ["true"], container="d")


async def test_pods_of_a_node_without_power_come_back_elsewhere_and_the_node_clean():
    async with Cluster(nodes=2) as cluster:
        await cluster.apply(WEB)
        await cluster.advance(5)
        await cluster.nodes["node-1"].power_off()
        await cluster.advance(45)
        node = await cluster.get("node", "node-1")
        assert {c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"} == {"Unknown"}
        assert "node.kubernetes.io/unreachable" in {t["key"] for t in node["spec"]["taints"]}
        await cluster.advance(400)
        alive = [p for p in await cluster.list("pods") if "deletionTimestamp" not in p["metadata"]]
        assert [p["spec"]["nodeName"] for p in alive] == ["node-2"] * 3
        await cluster.nodes["node-1"].start()
        await cluster.advance(30)
        assert "taints" not in (await cluster.get("node", "node-1"))["spec"]
        assert len(await cluster.list("pods")) == 3


async def test_a_pod_that_fails_its_probe_leaves_the_service():
    async with Cluster() as cluster:
        await cluster.apply(WEB)
        await cluster.advance(5)
        [first, *_] = await cluster.list("pods")
        cluster.nodes["node-1"].set_ready(first["metadata"]["name"], False)
        await cluster.advance(1)
        [endpoints] = await cluster.list("endpointslices", labels="kubernetes.io/service-name=web")
        assert sorted(e["conditions"]["ready"] for e in endpoints["endpoints"]) == [False, True, True]


async def test_a_controller_of_ones_own_runs_beside_the_others():
    def reconcile(namespace, view, now):
        name = namespace["metadata"]["name"]
        wanted = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "greeting"},
            "data": {"to": name},
        }
        if view.get("configmaps", "greeting", name):
            return Plan()
        return Plan(why="greets").then(Create("configmaps", wanted, name))

    async with Cluster(nodes=0) as cluster:
        greeter = Rule("greeter", "namespaces", reconcile, reads=("configmaps",))
        runner = await cluster.run(greeter)
        await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}})
        await cluster.settle()
        assert (await cluster.get("configmap", "greeting", "new"))["data"] == {"to": "new"}
        assert runner.story.about("namespaces", "", "new")[0].why == "greets"


async def test_rights_are_those_of_the_user():
    async with Cluster(nodes=0) as cluster:
        with pytest.raises(ApiError) as refusal:
            await cluster.client_as("eve").list("secrets", "default")
        assert refusal.value.code == 403


async def test_a_story_tells_a_failing_test_what_happened():
    async with Cluster() as cluster:
        await cluster.apply(WEB)
        await cluster.settle()
        assert "ScalingReplicaSet" not in str(cluster.story("deploy", "web"))
        assert any(
            "create replicasets.apps" in a for e in cluster.story("deploy", "web") for a in e["actions"]
        )


async def test_unknown_kinds_and_settings_are_refused():
    async with Cluster(nodes=0) as cluster:
        with pytest.raises(ValueError, match="does not know Boat in example.org/v1"):
            await cluster.apply({"apiVersion": "example.org/v1", "kind": "Boat", "metadata": {"name": "b"}})
        with pytest.raises(ApiError, match='resource type "boats"'):
            await cluster.list("boats")
    with pytest.raises(TypeError, match="no setting 'node'; is 'nodes' meant?"):
        Cluster(node=3)
    with pytest.raises(TypeError, match="boats"):
        Cluster(boats=3)


async def test_nodes_of_any_shape():
    async with Cluster(nodes=0) as cluster:
        await cluster.add_node("big", capacity={"cpu": "64"}, labels={"disk": "ssd"})
        await cluster.add_node("odd", taints=[{"key": "a", "effect": "NoSchedule"}])
        await cluster.apply(pod("p") | {"spec": pod("p")["spec"] | {"nodeSelector": {"disk": "ssd"}}})
        await cluster.settle()
        assert (await cluster.get("pod", "p"))["spec"]["nodeName"] == "big"
        assert (await cluster.get("node", "big"))["status"]["capacity"]["cpu"] == "64"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"kind": "Pod", "metadata": {"name": "p"}}, "apiVersion, kind and metadata"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {}}, "metadata.name"),
        ("just words", "apiVersion, kind and metadata"),
        ("{apiVersion: x.dev/v1, kind: Foo, metadata: {name: f}}", "does not know Foo in x.dev/v1"),
    ],
)
async def test_what_is_no_object_is_refused_in_words(wrong, told):
    async with Cluster() as cluster:
        with pytest.raises(ValueError, match=told):
            await cluster.apply(wrong)


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        ("exot=1", "knows no word exot"),
        ("exit=one", "cannot read exit=one"),
        ("exit=1 after=soon", "cannot read after=soon"),
        ("ready=no", "cannot read ready=no"),
        ("memory=much", "cannot read memory=much"),
        ("times=x", "cannot be read"),
        ('log="half', "No closing quotation"),
    ],
)
async def test_what_is_wrong_in_the_annotation_is_told(annotation, told):
    async with Cluster() as cluster:
        await cluster.apply(pod("p", **{"sampan.dev/simulate": annotation}))
        await cluster.settle()
        assert any(told in event["message"] for event in await cluster.list("events"))


async def test_a_list_is_its_items():
    async with Cluster() as cluster:
        await cluster.apply({"apiVersion": "v1", "kind": "List", "items": [pod("a"), pod("b")]})
        assert len(await cluster.list("pods")) == 2


async def test_a_cluster_that_is_not_up_says_how_to_use_it():
    cluster = Cluster()
    for ask in (cluster.list("pods"), cluster.apply(pod("p")), cluster.settle(), cluster.add_node()):
        with pytest.raises(RuntimeError, match="use it inside `async with Cluster"):
            await ask
    async with cluster:
        with pytest.raises(RuntimeError, match="has been up already"):
            await cluster.__aenter__()
    with pytest.raises(RuntimeError, match="use it inside"):
        await cluster.get("pod", "p")


def test_a_cluster_of_another_loop_is_refused():
    """A fixture of the session, and tests with loops of their own: nothing would ever move."""
    with asyncio.Runner() as first, asyncio.Runner() as second:
        cluster = Cluster()
        first.run(cluster.__aenter__())
        for ask in (cluster.settle, partial(cluster.list, "pods")):
            with pytest.raises(RuntimeError, match="another event loop.*loop_scope"):
                second.run(ask())
        first.run(cluster.__aexit__())


async def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="0 nodes or more"):
        Cluster(nodes=-1)
    async with Cluster() as cluster:
        with pytest.raises(ValueError, match="time does not go back"):
            await cluster.advance(-1)
        with pytest.raises(ValueError, match="has a node node-1 already"):
            await cluster.add_node("node-1")
        await cluster.apply(pod("p"))
        await cluster.settle()
        with pytest.raises(TypeError, match=r"a list of words: \['ls', '-l'\]"):
            await cluster.exec("p", "ls -l")


async def test_hundreds_of_nodes_have_ranges_of_their_own():
    async with Cluster(nodes=300) as cluster:
        await cluster.apply(WEB.replace("replicas: 3", "replicas: 300"))
        await cluster.advance(10)
        pods = (await cluster.client.list("pods", "default"))["items"]
        assert len({p["spec"]["nodeName"] for p in pods}) == 300
        assert len({p["status"]["podIP"] for p in pods}) == 300
