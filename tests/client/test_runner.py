"""Controllers are carried out: keys wake, writes happen side by side, failures back off, nothing is done twice."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from sampan.api.status import ApiError
from sampan.client.plan import Create, Delete, Event, Key, Patch, Plan, Update
from sampan.client.runner import Runner


def owner_keys(obj, view):
    for ref in obj["metadata"].get("ownerReferences", ()):
        if ref.get("controller"):
            yield Key(obj["metadata"]["namespace"], ref["name"])


def scale(rs, view, now):
    """A ReplicaSet reduced to its bone."""
    pods = view.owned("pods", rs["metadata"]["uid"])
    wanted = rs["spec"]["replicas"]
    meta = rs["metadata"]
    plan = Plan(why=f"{len(pods)} of {wanted}")
    ref = {"kind": "ReplicaSet", "name": meta["name"], "uid": meta["uid"], "controller": True}
    plan.then(
        *[
            Create(
                "pods",
                {"metadata": {"generateName": meta["name"] + "-", "ownerReferences": [ref]}, "spec": {}},
                meta["namespace"],
                event=Event(rs, "Normal", "SuccessfulCreate", "Created pod: {name}"),
            )
            for _ in range(wanted - len(pods))
        ]
    )
    plan.then(*[Delete("pods", p["metadata"]["name"], meta["namespace"]) for p in pods[wanted:]])
    if rs.get("status", {}).get("replicas") != len(pods):
        plan.then(
            Patch("replicasets.apps", meta["name"], {"status": {"replicas": len(pods)}}, meta["namespace"])
        )
    plan.events.append(Event(rs, "Warning", "FailedCreate", "Error creating: {error}"))
    return plan


@dataclass
class Rule:
    name: str = "replicaset"
    resource: str = "replicasets.apps"
    reconcile: object = scale
    watches: dict = field(default_factory=lambda: {"pods": owner_keys})
    removed: object = lambda key, view, now: Plan()


def replica_set(name="web", replicas=3):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"replicas": replicas}}


@pytest.fixture
async def run(client, clock, ids):
    runners = []

    async def start(*controllers, **options):
        runner = Runner(client, controllers, clock=clock, ids=ids, **options)
        runners.append(runner)
        await runner.start()
        await clock.settle()
        return runner

    yield start
    for runner in runners:
        await runner.stop()


async def pods(client):
    return (await client.list("pods"))["items"]


async def events(client):
    found = (await client.list("events"))["items"]
    return [(e["reason"], e["message"], e["count"]) for e in found]


async def test_what_is_wanted_comes_to_be_and_stays(run, client, clock):
    await client.create("replicasets.apps", replica_set())
    runner = await run(Rule())
    found = await pods(client)
    assert len(found) == 3 and runner.idle
    await client.delete("pods", found[0]["metadata"]["name"], "default")
    await clock.settle()
    assert len(await pods(client)) == 3
    await client.patch("replicasets.apps", "web", {"spec": {"replicas": 1}}, "default")
    await clock.settle()
    assert len(await pods(client)) == 1
    assert (await client.get("replicasets.apps", "web", "default"))["status"] == {"replicas": 1}


async def test_five_hundred_pods_cost_little(run, client, clock):
    await run(Rule())
    await client.create("replicasets.apps", replica_set(replicas=500))
    began = time.process_time()
    await clock.settle()
    took = time.process_time() - began
    assert len(await pods(client)) == 500
    assert took < 1.0  # 0.1 s on a quiet machine


async def test_a_refusal_stops_the_phase_early_is_told_and_tried_again(run, client, clock, server):
    def quota(request):
        if request.method == "POST" and request.path.endswith("/pods"):
            raise ApiError(403, "Forbidden", "exceeded quota")

    server.refuse = quota
    await client.create("replicasets.apps", replica_set(replicas=100))
    await run(Rule())
    posts = [entry for entry in server.log if entry == ("POST", "/api/v1/namespaces/default/pods")]
    assert len(posts) == 1
    await clock.advance(1)
    (told,) = await events(client)
    assert told[:2] == ("FailedCreate", "Error creating: exceeded quota")
    assert told[2] == 8  # at 0, 5, 15, 35 ... 635 ms
    server.refuse = lambda request: None
    await clock.advance(5)
    assert len(await pods(client)) == 100


async def test_what_goes_with_its_namespace_is_not_tried_again(run, client, clock, server):
    def ends(request):
        if request.method == "POST" and request.path.endswith("/pods"):
            raise ApiError(403, "Forbidden", "it ends", {"causes": [{"reason": "NamespaceTerminating"}]})

    server.refuse = ends
    await client.create("replicasets.apps", replica_set())
    await run(Rule())
    await clock.advance(100)
    assert server.log.count(("POST", "/api/v1/namespaces/default/pods")) == 1


async def test_events_name_what_was_made(run, client, clock):
    await client.create("replicasets.apps", replica_set(replicas=1))
    await run(Rule())
    (pod,) = await pods(client)
    assert await events(client) == [("SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", 1)]


async def test_the_first_conflict_is_tried_again_at_once_on_fresh_state(run, client, clock):
    seen = []

    def touch(rs, view, now):
        seen.append(rs["metadata"]["resourceVersion"])
        if "done" in rs["metadata"].get("labels", {}):
            return Plan()
        stale = {**rs, "metadata": {**rs["metadata"], "labels": {"done": "yes"}}}
        if len(seen) == 1:
            stale["metadata"]["resourceVersion"] = "1"
        return Plan().then(Update("replicasets.apps", stale))

    await client.create("replicasets.apps", replica_set())
    await run(Rule(reconcile=touch, watches={}))
    assert (await client.get("replicasets.apps", "web", "default"))["metadata"]["labels"] == {"done": "yes"}


async def test_a_reconcile_that_raises_backs_off_and_others_go_on(run, client, clock):
    tries = []

    def broken(rs, view, now):
        if rs["metadata"]["name"] == "bad":
            tries.append(now)
            raise ValueError("no")
        return scale(rs, view, now)

    await client.create("replicasets.apps", replica_set("bad"))
    await client.create("replicasets.apps", replica_set("good", 2))
    runner = await run(Rule(reconcile=broken))
    assert len(await pods(client)) == 2
    await clock.advance(10)
    gaps = [later - before for before, later in zip(tries, tries[1:], strict=False)]
    assert len(tries) == 11 and all(1.7 < b / a < 2.3 for a, b in zip(gaps, gaps[1:], strict=False))
    assert runner.story.about(name="bad")[-1].outcome == "ValueError('no')"


async def test_requeue_after_is_the_latest_word(run, client, clock):
    times = []

    def tick(rs, view, now):
        times.append(now)
        return Plan().requeue(10)

    start = clock.now()
    await client.create("replicasets.apps", replica_set())
    await run(Rule(reconcile=tick, watches={}))
    await clock.advance(5)
    await client.patch("replicasets.apps", "web", {"spec": {"replicas": 1}}, "default")
    await clock.advance(20)
    assert [t - start for t in times] == [0, 5, 15, 25]


async def test_removed_is_asked_when_an_object_is_gone(run, client, clock):
    def gone(key, view, now):
        return Plan().then(Create("nodes", {"metadata": {"name": f"grave-of-{key.name}"}}, exists_ok=True))

    await client.create("replicasets.apps", replica_set(replicas=0))
    await run(Rule(removed=gone))
    await client.delete("replicasets.apps", "web", "default")
    await clock.settle()
    assert (await client.get("nodes", "grave-of-web"))["metadata"]["name"] == "grave-of-web"


async def test_reads_and_effects_are_fetched_for_the_controller(run, client, clock):
    asked = []

    def curious(rs, view, now):
        reads = [("pods", "default", "x"), ("pods", "default", "nobody"), ("effect:sign", "default", "web")]
        if reads[0] not in view.fetched:
            return Plan(reads=reads)
        asked.append([view.fetched[r] for r in reads])
        return Plan()

    async def sign(namespace, name):
        return f"signed {name}"

    pod = await client.create("pods", {"metadata": {"name": "x", "namespace": "default"}})
    await client.create("replicasets.apps", replica_set())
    await run(Rule(reconcile=curious, watches={}), effects={"sign": sign})
    assert asked == [[pod, None, "signed web"]]


async def test_rescue_steps_say_what_failed(run, client, clock, server):
    def plan(rs, view, now):
        if rs.get("status"):
            return Plan()
        status = Patch("replicasets.apps", "web", {"status": {"why": "because {error}"}}, "default")
        return Plan(rescue=[status]).then(Create("pods", {"metadata": {"name": "x"}}, "default"))

    def refuse(request):
        if request.path.endswith("/pods"):
            raise ApiError(403, "Forbidden", "not today")

    server.refuse = lambda r: refuse(r) if r.method == "POST" else None
    await client.create("replicasets.apps", replica_set())
    await run(Rule(reconcile=plan, watches={}))
    assert (await client.get("replicasets.apps", "web", "default"))["status"] == {"why": "because not today"}


async def test_the_story_tells_what_was_done_and_why(run, client, clock):
    await client.create("replicasets.apps", replica_set(replicas=1))
    runner = await run(Rule())
    (pod,) = await pods(client)
    (entry,) = runner.story.about("pods", "default", pod["metadata"]["name"])
    told = entry.as_json()
    assert told["cause"] == "replicasets.apps default/web created" and told["why"] == "0 of 1"
    assert told["actions"][0] == f"create pods default/{pod['metadata']['name']}"


async def test_two_runs_with_one_seed_write_the_same(clock, server, client, ids, run):
    from sampan.base.clock import VirtualClock
    from sampan.base.ids import Ids
    from sampan.client.client import Client

    fake = type(server)
    histories = []
    for _ in range(2):
        clock, ids = VirtualClock(), Ids(3)
        server = fake(clock, ids)
        client = Client(server, server.registry)
        runner = Runner(client, [Rule()], clock=clock, ids=ids)
        await runner.start()
        for name in ("a", "b", "c"):
            await client.create("replicasets.apps", replica_set(name, 5))
        await clock.advance(10)
        await runner.stop()
        histories.append([server.log, [i.value for i in server.store.list("pods").items]])
    assert histories[0] == histories[1]


async def test_figures_become_prometheus_metrics(run, client, clock):
    from prometheus_client import CollectorRegistry, generate_latest

    from sampan.client.metrics import Collector

    await client.create("replicasets.apps", replica_set())
    runner = await run(Rule())
    registry = CollectorRegistry()
    registry.register(Collector(runner.figures))
    text = generate_latest(registry).decode()
    assert 'workqueue_depth{name="replicaset"} 0.0' in text
    assert 'workqueue_queue_duration_seconds_count{name="replicaset"}' in text
    assert 'workqueue_unfinished_work_seconds{name="replicaset"} 0.0' in text
    assert 'workqueue_longest_running_processor_seconds{name="replicaset"} 0.0' in text
    assert 'controller_runtime_reconcile_total{controller="replicaset",result="error"} 0.0' in text


async def test_a_controller_that_gives_from_a_common_stock_works_alone(client, clock, ids, run):
    """Each takes the smallest number nobody has, as far as the view tells."""

    def number(rs, view, now):
        if rs.get("status", {}).get("replicas"):
            return Plan()
        taken = {o.get("status", {}).get("replicas") for o in view.list("replicasets.apps")}
        free = next(n for n in range(1, 100) if n not in taken)
        return Plan().then(
            Patch("replicasets.apps", rs["metadata"]["name"], {"status": {"replicas": free}}, "default")
        )

    @dataclass
    class Alone(Rule):
        reconcile: object = number
        alone: bool = True

    for name in "abcdef":
        await client.create("replicasets.apps", replica_set(name, 0), "default")
    await run(Alone(watches={}))
    listed = (await client.list("replicasets.apps"))["items"]
    assert sorted(o["status"]["replicas"] for o in listed) == [1, 2, 3, 4, 5, 6]


async def test_only_changes_that_concern_a_controller_wake_it(client, run, clock):
    seen = []

    def look(obj, view, now):
        seen.append(obj["spec"]["replicas"])
        return Plan()

    rule = Rule(reconcile=look, watches={})
    rule.concerns = lambda obj: obj["spec"]["replicas"] > 1
    await client.create("replicasets.apps", replica_set(replicas=1))
    await run(rule)
    for replicas in (0, 2, 1, 0):  # the last but one: what concerned it does so no more
        await client.patch("replicasets.apps", "web", {"spec": {"replicas": replicas}}, "default")
        await clock.settle()
    assert seen == [2, 1]


async def test_nobody_is_asked_whom_a_change_concerns_where_there_is_nobody(run, client, clock):
    asked = []

    def keys(obj, view):
        asked.append(obj["metadata"]["name"])
        return ()

    await run(Rule(watches={"pods": keys}, removed=None))
    await client.create("pods", {"metadata": {"name": "p1"}}, "default")
    await clock.settle()
    await client.create("replicasets.apps", replica_set(replicas=0))
    await clock.settle()
    await client.create("pods", {"metadata": {"name": "p2"}}, "default")
    await clock.settle()
    assert asked == ["p2"]
