"""What a user sees of Deployments: rollouts, scaling, history, conditions. Numbers as the real controllers give."""

import pytest
from world import World, template

from sampan.api import meta
from sampan.controllers import deployment, replicaset, revisions, rolling

APP = {"app": "a"}
RULES = (*deployment.rules(), *replicaset.rules())


def world(replicas=3, strategy=None, image="img:1", **spec):
    w = World(*RULES)
    body = {
        "replicas": replicas,
        "selector": {"matchLabels": APP},
        "template": template(APP, image),
        "strategy": strategy
        or {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        **spec,
    }
    w.put("deployments.apps", {"metadata": {"name": "d"}, "spec": body})
    w.settle()
    return w


def surge(s, u):
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": s, "maxUnavailable": u}}


def image(w, text):
    w.change("deployments.apps", "d", {"spec": {"template": template(APP, text)}})


def roll(w):
    """To the end: every pod that comes up becomes ready, terminating ones go."""
    for _ in range(30):
        before = len(w.log)
        w.settle()
        for p in w.list("pods"):
            if meta.deleted(p):
                del w.objects["pods"]["default", meta.name(p)]
        w.all_ready()
        w.settle()
        if len(w.log) == before:
            return


def sizes(w):
    """{image: (size, status.replicas)}"""
    return {
        s["spec"]["template"]["spec"]["containers"][0]["image"]: s["spec"]["replicas"]
        for s in w.list("replicasets.apps")
    }


def status(w):
    return w.get("deployments.apps", "d", "default")["status"]


def condition(w, kind):
    c = meta.condition(w.get("deployments.apps", "d", "default"), kind)
    return (c["status"], c["reason"]) if c else None


def messages(w):
    return [e.message for e in w.events if e.reason == "ScalingReplicaSet"]


def test_first_rollout():
    w = world()
    (rs,) = w.list("replicasets.apps")
    hashed = meta.labels(rs)["pod-template-hash"]
    assert meta.name(rs) == f"d-{hashed}"
    assert rs["spec"]["selector"]["matchLabels"] == APP | {"pod-template-hash": hashed}
    assert all(meta.labels(p) == APP | {"pod-template-hash": hashed} for p in w.list("pods"))
    assert meta.annotations(rs) == {
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
        "deployment.kubernetes.io/revision": "1",
    }
    assert revisions.text(w.get("deployments.apps", "d", "default")) == "1"
    assert {k: v for k, v in status(w).items() if k != "conditions"} == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "unavailableReplicas": 3,
        "terminatingReplicas": 0,
    }
    assert condition(w, "Available") == ("False", "MinimumReplicasUnavailable")
    assert condition(w, "Progressing") == ("True", "ReplicaSetUpdated")
    assert messages(w) == [f"Scaled up replica set d-{hashed} from 0 to 3"]
    w.all_ready()
    w.settle()
    assert condition(w, "Available") == ("True", "MinimumReplicasAvailable")
    assert condition(w, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert "unavailableReplicas" not in status(w)


@pytest.mark.parametrize(
    "replicas, strategy, expected",
    [
        (4, surge(1, 0), {"img:1": 4, "img:2": 1}),
        (4, surge("25%", "25%"), {"img:1": 3, "img:2": 2}),
        (10, surge("25%", "25%"), {"img:1": 8, "img:2": 5}),
        (4, surge(0, "100%"), {"img:1": 0, "img:2": 4}),
        (4, surge("100%", 0), {"img:1": 4, "img:2": 4}),
        (1, surge("0%", "25%"), {"img:1": 0, "img:2": 1}),
    ],
)
def test_where_a_rollout_stands_before_new_pods_are_ready(replicas, strategy, expected):
    w = world(replicas, strategy)
    roll(w)
    image(w, "img:2")
    w.settle()
    assert sizes(w) == expected


def test_rollout_keeps_its_two_promises_to_the_end():
    w = world(10)
    roll(w)
    image(w, "img:2")
    for _ in range(40):
        w.settle()
        alive = [p for p in w.list("pods") if not meta.deleted(p)]
        available = [p for p in alive if meta.is_true(p, "Ready")]
        assert len(alive) <= 13 and len(available) >= 8
        pending = [p for p in alive if not meta.is_true(p, "Ready")]
        w.ready(*pending[:1])
    assert sizes(w) == {"img:1": 0, "img:2": 10}
    assert condition(w, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert revisions.text(w.get("deployments.apps", "d", "default")) == "2"


def test_unready_old_pods_go_first():
    w = world(4, surge(0, 1))
    roll(w)
    w.ready(w.list("pods")[2], state=False)
    w.settle()
    image(w, "img:2")
    w.settle()
    assert sizes(w) == {"img:1": 3, "img:2": 1}
    assert all(
        meta.is_true(p, "Ready") for p in w.list("pods") if p["spec"]["containers"][0]["image"] == "img:1"
    )


def test_scaling_in_mid_rollout_is_proportional():
    w = world(10, surge(3, 2))
    roll(w)
    image(w, "img:2")
    w.settle()
    assert sizes(w) == {"img:1": 8, "img:2": 5}
    w.change("deployments.apps", "d", {"spec": {"replicas": 15}})
    w.settle()
    assert sizes(w) == {"img:1": 11, "img:2": 7}


def test_scale_up_and_down_and_to_zero():
    w = world(1)
    roll(w)
    for n in (5, 2, 0):
        w.change("deployments.apps", "d", {"spec": {"replicas": n}})
        roll(w)
        assert len(w.list("pods")) == n
        (rs,) = w.list("replicasets.apps")
        assert rolling.desired(rs) == n or n == 0
    assert messages(w)[-1].endswith("from 2 to 0")


def test_recreate_waits_for_terminating_pods():
    w = world(2, {"type": "Recreate"})
    assert meta.annotations(w.list("replicasets.apps")[0])[rolling.MAXIMUM] == "2"
    for p in w.list("pods"):
        w.change("pods", meta.name(p), {"spec": {"nodeName": "n1"}})
    roll(w)
    image(w, "img:2")
    w.settle()
    assert sizes(w) == {"img:1": 0}
    assert all(meta.deleted(p) for p in w.list("pods"))
    roll(w)
    assert sizes(w) == {"img:1": 0, "img:2": 2}
    assert condition(w, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_a_paused_deployment_scales_but_does_not_roll():
    w = world(2)
    roll(w)
    w.change("deployments.apps", "d", {"spec": {"paused": True, "template": template(APP, "img:2")}})
    w.settle()
    assert sizes(w) == {"img:1": 2}
    assert condition(w, "Progressing") == ("Unknown", "DeploymentPaused")
    w.change("deployments.apps", "d", {"spec": {"replicas": 4}})
    w.settle()
    assert sizes(w) == {"img:1": 4}
    w.change("deployments.apps", "d", {"spec": {"paused": None}})
    roll(w)
    assert sizes(w) == {"img:1": 0, "img:2": 4}


def test_paused_from_the_beginning():
    w = world(2, paused=True)
    assert w.list("replicasets.apps") == []


def test_progress_deadline_and_recovery():
    w = world(1, progressDeadlineSeconds=60)
    assert w.timers[0][2] == 61
    w.now += 61
    w.settle()
    assert condition(w, "Progressing") == ("False", "ProgressDeadlineExceeded")
    w.all_ready()
    w.settle()
    assert condition(w, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_rollback_uses_the_old_set_with_a_new_number():
    w = world(1)
    roll(w)
    image(w, "img:2")
    roll(w)
    image(w, "img:1")
    roll(w)
    assert sizes(w) == {"img:1": 1, "img:2": 0}
    back = next(s for s in w.list("replicasets.apps") if s["spec"]["replicas"])
    assert revisions.text(back) == "3"
    assert meta.annotations(back)[revisions.HISTORY] == "1"


@pytest.mark.parametrize("limit, left", [(0, {"img:3"}), (1, {"img:2", "img:3"})])
def test_revision_history_limit(limit, left):
    w = world(1, revisionHistoryLimit=limit)
    roll(w)
    for text in ("img:2", "img:3"):
        image(w, text)
        roll(w)
    assert set(sizes(w)) == left


def test_adopts_a_set_of_the_same_template():
    w = World(*RULES)
    hashed = APP | {"pod-template-hash": "x"}
    body = {"replicas": 1, "selector": {"matchLabels": hashed}, "template": template(hashed)}
    w.put("replicasets.apps", {"metadata": {"name": "own", "labels": hashed}, "spec": body})
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": APP},
        "template": template(APP),
        "progressDeadlineSeconds": 600,
    }
    w.put("deployments.apps", {"metadata": {"name": "d"}, "spec": spec})
    w.settle()
    assert w.names("replicasets.apps") == ["own"]
    assert meta.owner(w.list("replicasets.apps")[0])["name"] == "d"


def test_a_taken_name_counts_a_collision():
    w = World(*RULES)
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": APP},
        "template": template(APP),
        "progressDeadlineSeconds": 600,
    }
    d = w.put("deployments.apps", {"metadata": {"name": "d"}, "spec": spec})
    other = {"replicas": 0, "selector": {"matchLabels": {"x": "y"}}, "template": template({"x": "y"})}
    w.put("replicasets.apps", {"metadata": {"name": revisions.set_name(d)}, "spec": other})
    w.settle()
    assert status(w)["collisionCount"] == 1
    assert len(w.list("replicasets.apps")) == 2


def test_refused_pods_show_as_replica_failure():
    w = world(1)
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "quota",
        "lastTransitionTime": "2024-01-01T00:00:00Z",
    }
    (rs,) = w.list("replicasets.apps")
    w.change("replicasets.apps", meta.name(rs), {"status": {"conditions": [failure]}})
    deploy = RULES[0]
    w.act(deploy, "deployments.apps", "d")
    assert condition(w, "ReplicaFailure") == ("True", "FailedCreate")
