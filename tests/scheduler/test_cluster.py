"""Scheduling through the API: what users see of pods that wait, take another's place, or are held back."""

import asyncio

import pytest

from sampan.api import meta
from sampan.client.client import read_body
from sampan.testing import Cluster

FOO = "example.com/foo"


def pod(name, *, labels=None, finalizers=None, foo=0, **spec):
    container = {"name": "c", "image": "i"}
    if foo:
        container["resources"] = {"requests": {FOO: str(foo)}, "limits": {FOO: str(foo)}}
    metadata = {"name": name, "labels": labels or {}, "finalizers": finalizers or []}
    return {"metadata": metadata, "spec": {"containers": [container]} | spec}


async def make(cluster, *pods):
    for p in pods:
        await cluster.client.create("pods", p, "default")
    await cluster.settle()


async def priorities(cluster, **values):
    for name, value in values.items():
        await cluster.client.create(
            "priorityclasses.scheduling.k8s.io", {"metadata": {"name": name}, "value": value}
        )


async def node_of(cluster, name):
    return (await cluster.get("pods", name))["spec"].get("nodeName", "")


async def why(cluster, name):
    condition = meta.condition(await cluster.get("pods", name), "PodScheduled") or {}
    return condition.get("reason", ""), condition.get("message", "")


async def test_a_resource_that_an_administrator_advertises_is_allocatable_and_preempted():
    async with Cluster(nodes=2) as cluster:
        for name in cluster.nodes:
            change = {"status": {"capacity": {FOO: "5"}}}
            await cluster.client.patch("nodes", name, change, subresource="status")
        await cluster.advance(301)
        node = await cluster.get("nodes", "node-1")
        assert node["status"]["allocatable"][FOO] == "5"
        await priorities(cluster, low=1, high=1000)
        for number in range(4):
            name = f"low-{number}"
            await make(cluster, pod(name, foo=2, priorityClassName="low", finalizers=["example.com/test"]))
        await make(cluster, pod("high", foo=4, priorityClassName="high"))
        high = await cluster.get("pods", "high")
        assert high["status"].get("nominatedNodeName") or high["spec"].get("nodeName")
        await cluster.advance(60)
        where = await node_of(cluster, "high")
        lows = await cluster.list("pods", fields="metadata.name!=high")
        victims = [p for p in lows if meta.deleted(p)]
        assert len(victims) == 2 and {p["spec"]["nodeName"] for p in victims} == {where}
        for victim in victims:
            condition = meta.condition(victim, "DisruptionTarget")
            assert (condition["status"], condition["reason"]) == ("True", "PreemptionByScheduler")
        await cluster.client.patch(
            "nodes", "node-1", {"status": {"capacity": {FOO: None}}}, subresource="status"
        )
        await cluster.advance(301)
        assert FOO not in (await cluster.get("nodes", "node-1"))["status"]["allocatable"]


async def test_a_victim_without_grace_leaves_its_place_at_once():
    async with Cluster(nodes=1) as cluster:
        await priorities(cluster, low=1, high=1000)
        big = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}]
        low = pod("low", priorityClassName="low", containers=big, terminationGracePeriodSeconds=0)
        low["metadata"]["annotations"] = {"sampan.dev/simulate": "stop=5s"}
        await make(cluster, low)
        await make(cluster, pod("high", priorityClassName="high", containers=big))
        await cluster.advance(1)
        assert [meta.name(p) for p in await cluster.list("pods")] == ["high"]
        assert (await cluster.get("pods", "high"))["status"]["phase"] == "Running"


async def test_the_more_important_takes_the_room_that_was_kept_for_others():
    """Victims that take their time, pods that were promised their places, and then others that matter more."""
    async with Cluster(nodes=2) as cluster:
        for name in cluster.nodes:
            change = {"status": {"capacity": {FOO: "4"}, "allocatable": {FOO: "4"}}}
            await cluster.client.patch("nodes", name, change, subresource="status")
        await priorities(cluster, low=1, medium=100, high=1000)
        lows = [
            pod(f"low-{n}", foo=1, priorityClassName="low", terminationGracePeriodSeconds=80)
            for n in range(8)
        ]
        for low in lows:
            low["metadata"]["annotations"] = {"sampan.dev/simulate": "stop=79s"}
        await make(cluster, *lows)
        await make(cluster, *(pod(f"medium-{n}", foo=1, priorityClassName="medium") for n in range(8)))
        assert all(meta.deleted(p) for p in await cluster.list("pods") if meta.name(p).startswith("low"))
        await make(cluster, *(pod(f"high-{n}", foo=1, priorityClassName="high") for n in range(4)))
        waiting = await cluster.list("pods")
        nominated = {meta.name(p) for p in waiting if p["status"].get("nominatedNodeName")}
        assert {f"high-{n}" for n in range(4)} <= nominated
        assert len(nominated) == 8  # and as many others as there is room for
        await cluster.advance(120)
        pods = {meta.name(p): p for p in await cluster.list("pods")}
        assert all(pods[f"high-{n}"]["spec"].get("nodeName") for n in range(4))
        assert sum("nodeName" in pods[f"medium-{n}"]["spec"] for n in range(8)) == 4
        assert not any(p["status"].get("nominatedNodeName") for p in pods.values())


def claiming(name, claim):
    return pod(name, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claim}}])


def claim(name, storage):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": {"name": name}, "spec": spec | {"storageClassName": storage}}


async def test_pods_that_start_at_once_get_volumes_of_their_own():
    async with Cluster(nodes=2) as cluster:
        local = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
        await cluster.client.create("storageclasses.storage.k8s.io", {"metadata": {"name": "local"}} | local)
        for n in range(4):
            at = {"key": "kubernetes.io/hostname", "operator": "In", "values": [f"node-{n % 2 + 1}"]}
            spec = {
                "storageClassName": "local",
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "local": {"path": "/disks"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [at]}]}},
            }
            await cluster.client.create("persistentvolumes", {"metadata": {"name": f"v{n}"}, "spec": spec})
            await cluster.client.create("persistentvolumeclaims", claim(f"c{n}", "local"), "default")
        await cluster.settle()
        pods = [claiming(f"p{n}", f"c{n}") for n in range(4)]
        await asyncio.gather(*(cluster.client.create("pods", p, "default") for p in pods))
        await cluster.settle()
        assert sorted([await node_of(cluster, f"p{n}") for n in range(4)]) == ["node-1"] * 2 + ["node-2"] * 2
        bound = {c["spec"]["volumeName"] for c in await cluster.list("persistentvolumeclaims")}
        assert bound == {f"v{n}" for n in range(4)}


async def test_pods_that_share_a_claim_start_where_its_volume_is_made():
    async with Cluster(nodes=3) as cluster:
        await cluster.client.create("persistentvolumeclaims", claim("c", "local-path"), "default")
        pods = [claiming(f"p{n}", "c") for n in range(3)]
        await asyncio.gather(*(cluster.client.create("pods", p, "default") for p in pods))
        await cluster.advance(5)
        assert len({await node_of(cluster, f"p{n}") for n in range(3)} - {""}) == 1


async def test_who_never_preempts_waits():
    async with Cluster(nodes=1) as cluster:
        await priorities(cluster, low=1)
        polite = {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}
        await cluster.client.create("priorityclasses.scheduling.k8s.io", polite)
        big = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}]
        for name in ("low", "high"):
            await make(cluster, pod(name, priorityClassName=name, containers=big))
        assert "not eligible due to preemptionPolicy=Never" in (await why(cluster, "high"))[1]
        assert await node_of(cluster, "low")


async def test_gates_hold_a_pod_back_until_the_last_is_gone():
    async with Cluster(nodes=1) as cluster:
        await make(cluster, pod("p", schedulingGates=[{"name": "a"}, {"name": "b"}]))
        await cluster.advance(1)
        assert (await why(cluster, "p"))[0] == "SchedulingGated" and not await node_of(cluster, "p")
        for left in ([{"name": "b"}], []):
            current = await cluster.get("pods", "p")
            assert not current["spec"].get("nodeName")
            current["spec"]["schedulingGates"] = left
            await cluster.client.update("pods", current)
            await cluster.settle()
        assert await node_of(cluster, "p") == "node-1"


@pytest.mark.parametrize(
    "spec, change, reason",
    [
        (
            {"nodeSelector": {"disk": "ssd"}},
            {"metadata": {"labels": {"disk": "ssd"}}},
            "node affinity/selector",
        ),
        ({}, {"spec": {"unschedulable": False}}, "were unschedulable"),
        ({}, {"spec": {"taints": None}}, "untolerated taint"),
    ],
)
async def test_a_pod_that_fits_nowhere_says_why_and_goes_where_it_fits_at_last(spec, change, reason):
    async with Cluster(nodes=1) as cluster:
        if "unschedulable" in reason:
            await cluster.client.patch("nodes", "node-1", {"spec": {"unschedulable": True}})
        elif "taint" in reason:
            taints = [{"key": "gpu", "effect": "NoSchedule"}]
            await cluster.client.patch("nodes", "node-1", {"spec": {"taints": taints}})
        await cluster.settle()
        await make(cluster, pod("p", **spec))
        told = await why(cluster, "p")
        assert (
            told[0] == "Unschedulable"
            and told[1].startswith("0/1 nodes are available: 1 ")
            and reason in told[1]
        )
        events = await cluster.list("events", fields="reason=FailedScheduling")
        assert [e["message"] for e in events] == [told[1]]
        await cluster.client.patch("nodes", "node-1", change)
        await cluster.settle()
        assert await node_of(cluster, "p") == "node-1"


async def test_back_off_is_no_longer_when_the_clock_is_set_back():
    async with Cluster(nodes=1) as cluster:
        await cluster.client.patch("nodes", "node-1", {"spec": {"unschedulable": True}})
        await cluster.settle()
        await make(cluster, pod("p"))
        for count in range(5):
            await cluster.client.patch("nodes", "node-1", {"metadata": {"labels": {"try": str(count)}}})
            await cluster.settle()
        cluster.clock.set_wall(cluster.now - 3600)
        await cluster.client.patch("nodes", "node-1", {"spec": {"unschedulable": False}})
        await cluster.advance(11)
        assert await node_of(cluster, "p") == "node-1"


async def test_host_ports_of_several_addresses_and_protocols_share_a_node():
    async with Cluster(nodes=1) as cluster:

        def with_port(name, ip, protocol="TCP"):
            port = {"containerPort": 80, "hostPort": 54323, "hostIP": ip, "protocol": protocol}
            made = pod(name)
            made["spec"]["containers"][0]["ports"] = [port]
            return made

        await make(
            cluster,
            with_port("a", "127.0.0.1"),
            with_port("b", "10.0.0.9"),
            with_port("c", "10.0.0.9", "UDP"),
            with_port("d", ""),
        )
        assert [bool(await node_of(cluster, n)) for n in "abcd"] == [True, True, True, False]
        assert "didn't have free ports" in (await why(cluster, "d"))[1]


async def test_domains_are_filled_evenly():
    async with Cluster(nodes=4) as cluster:
        for number, name in enumerate(cluster.nodes):
            await cluster.client.patch("nodes", name, {"metadata": {"labels": {"zone": f"z{number % 2}"}}})
        await cluster.settle()
        rule = {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "a"}},
        }
        for number in range(6):
            await make(cluster, pod(f"p{number}", labels={"app": "a"}, topologySpreadConstraints=[rule]))
        nodes = [await node_of(cluster, f"p{number}") for number in range(6)]
        zones = [int(n[-1]) % 2 for n in nodes]
        assert zones.count(0) == zones.count(1) == 3


async def test_the_more_important_of_waiting_pods_comes_first():
    async with Cluster(nodes=0) as cluster:
        await priorities(cluster, low=1, high=1000)
        for name in ("low", "high"):
            big = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}]
            await make(cluster, pod(name, priorityClassName=name, containers=big))
        await cluster.add_node()
        await cluster.advance(20)
        assert (await node_of(cluster, "high"), await node_of(cluster, "low")) == ("node-1", "")


async def test_pods_of_another_scheduler_are_left_alone():
    async with Cluster(nodes=1) as cluster:
        await make(cluster, pod("p", schedulerName="mine"))
        await cluster.advance(60)
        assert not await node_of(cluster, "p") and await why(cluster, "p") == ("", "")


async def test_figures_for_prometheus():
    async with Cluster(nodes=1) as cluster:
        await make(cluster, pod("p"), pod("q", nodeSelector={"disk": "ssd"}))
        response = await cluster.client.request("GET", "/metrics")
        text = (await read_body(response)).decode()
        for line in (
            'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1.0',
            'scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"}',
            'scheduler_pending_pods{queue="active"} 0.0',
            'scheduler_pending_pods{queue="unschedulable"} 1.0',
        ):
            assert line in text
