"""What a user sees of ReplicaSets and ReplicationControllers."""

import pytest
from world import World, template

from sampan.api import meta
from sampan.client.plan import Create, Delete
from sampan.controllers import pods, replicaset

RS, RC = replicaset.rules()
APP = {"app": "a"}


def world(replicas=3, **spec):
    w = World(RS)
    body = {"replicas": replicas, "selector": {"matchLabels": APP}, "template": template(APP), **spec}
    w.put("replicasets.apps", {"metadata": {"name": "r"}, "spec": body})
    return w


def pod(name, **more):
    return {
        "metadata": {"name": name, "labels": APP},
        "spec": {"nodeName": "n1", **more},
        "status": {"phase": "Running"},
    }


def status(w):
    return w.get("replicasets.apps", "r", "default")["status"]


def test_creates_its_pods_and_says_so():
    w = world()
    w.settle()
    assert len(w.list("pods")) == 3
    assert status(w) == {
        "replicas": 3,
        "fullyLabeledReplicas": 3,
        "observedGeneration": 1,
        "terminatingReplicas": 0,
    }
    assert [e.reason for e in w.events] == ["SuccessfulCreate"] * 3
    assert w.events[0].message == f"Created pod: {w.names('pods')[0]}"
    made = w.list("pods")[0]
    assert meta.owner(made)["kind"] == "ReplicaSet" and meta.owner(made)["blockOwnerDeletion"]


def test_adopts_and_trims():
    w = world(replicas=1)
    for name in "abc":
        w.put("pods", pod(name))
    w.ready(w.get("pods", "b", "default"))
    w.settle()
    assert [n for n in w.names("pods") if not meta.deleted(w.get("pods", n, "default"))] == ["b"]


def test_does_not_adopt_when_the_server_knows_it_as_deleted():
    w = world(replicas=1)
    w.put("pods", pod("a"))
    w.live_only["replicasets.apps", "default", "r"] = {"metadata": {"uid": "another"}}
    plan = w.plan(RS, "replicasets.apps", "r")
    assert [type(s) for phase in plan.phases for s in phase] == [Create]


def test_releases_what_is_labelled_away_and_takes_it_back():
    w = world(replicas=1)
    w.settle()
    first = w.names("pods")[0]
    w.change("pods", first, {"metadata": {"labels": {"app": "b"}}})
    w.settle()
    assert meta.owner(w.get("pods", first, "default")) is None
    assert len(w.list("pods")) == 2
    w.change("pods", first, {"metadata": {"labels": APP}})
    w.settle()
    assert len(w.list("pods")) == 1


def test_finished_pods_are_neither_counted_nor_touched():
    w = world(replicas=1)
    w.settle()
    first = w.names("pods")[0]
    w.change("pods", first, {"status": {"phase": "Failed"}})
    w.settle()
    assert len(w.list("pods")) == 2
    assert status(w)["replicas"] == 1


def test_min_ready_seconds():
    w = world(replicas=1, minReadySeconds=10)
    w.settle()
    w.all_ready()
    w.settle()
    assert status(w)["readyReplicas"] == 1 and "availableReplicas" not in status(w)
    assert w.timers[0][2] == 10
    w.now += 10
    w.settle()
    assert status(w)["availableReplicas"] == 1


def test_refused_creation_is_told_in_condition_and_event():
    plan = world().plan(RS, "replicasets.apps", "r")
    (condition,) = plan.rescue[0].patch["status"]["conditions"]
    assert (condition["type"], condition["reason"], condition["message"]) == (
        "ReplicaFailure",
        "FailedCreate",
        "{error}",
    )
    assert ("Warning", "FailedCreate", "Error creating: {error}") in [
        (e.type, e.reason, e.message) for e in plan.events
    ]


def test_replication_controller_takes_a_plain_selector():
    w = World(RC)
    w.put(
        "replicationcontrollers",
        {"metadata": {"name": "r"}, "spec": {"replicas": 2, "selector": APP, "template": template(APP)}},
    )
    w.settle()
    assert len(w.list("pods")) == 2
    w.change("replicationcontrollers", "r", {"spec": {"replicas": 0}})
    w.settle()
    assert w.list("pods") == []


def test_replaces_a_pod_under_deletion_at_once():
    w = world(replicas=1)
    w.put("pods", pod("a"))
    w.settle()
    w.delete(Delete("pods", "a", "default"))
    w.settle()
    assert len(w.list("pods")) == 2
    assert status(w)["terminatingReplicas"] == 1


NOW = 1_700_000_000.0


def _ranked(name, *, node="n1", phase="Running", ready=None, cost=None, restarts=0, born=NOW - 1000):
    from sampan.base.clock import rfc3339

    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(ready)}] if ready else []
    annotations = {"controller.kubernetes.io/pod-deletion-cost": cost} if cost else {}
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "annotations": annotations,
            "creationTimestamp": rfc3339(born),
        },
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


@pytest.mark.parametrize(
    "first, second",
    [
        ({"node": ""}, {"phase": "Pending"}),
        ({"phase": "Pending"}, {}),
        ({}, {"ready": NOW - 10}),
        ({"ready": NOW - 10, "cost": "-5"}, {"ready": NOW - 10}),
        ({"ready": NOW - 10}, {"ready": NOW - 100}),
        ({"restarts": 3}, {"restarts": 1}),
        ({"born": NOW - 10}, {"born": NOW - 1000}),
    ],
)
def test_who_goes_first(first, second):
    a, b = _ranked("z", **first), _ranked("a", **second)
    assert pods.by_deletion_order([b, a], [], NOW) == [a, b]


def test_the_crowded_node_gives_first():
    a, b, c = _ranked("a", node="n1"), _ranked("b", node="n2"), _ranked("c", node="n2")
    assert pods.by_deletion_order([a, b, c], [a, b, c], NOW)[-1] == a
