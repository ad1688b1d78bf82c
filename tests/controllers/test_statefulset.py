"""StatefulSets: order, numbers, revisions, and whom the claims go with."""

import pytest
from world import World, template

from sampan.api import meta
from sampan.base.clock import rfc3339
from sampan.controllers import statefulset

RULES = statefulset.rules()
APP = {"app": "s"}
CLAIM = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}


def world(replicas=3, ready=True, **spec):
    w = World(*RULES)
    body = {
        "replicas": replicas,
        "serviceName": "s",
        "selector": {"matchLabels": APP},
        "template": template(APP),
    }
    w.put("statefulsets.apps", {"metadata": {"name": "s"}, "spec": body | spec})
    for _ in range(replicas if ready else 0):
        w.settle()
        w.all_ready()
    w.settle()
    return w


def change(w, **spec):
    w.change("statefulsets.apps", "s", {"spec": spec})


def update(w, image="img:2", **spec):
    change(w, template=template(APP, image), **spec)


def status(w):
    return w.get("statefulsets.apps", "s", "default")["status"]


def live(w):
    return [meta.name(p) for p in w.list("pods") if not meta.deleted(p)]


def images(w):
    return {meta.name(p): p["spec"]["containers"][0]["image"][-1] for p in w.list("pods")}


def pod(w, number):
    return w.get("pods", f"s-{number}", "default")


def run(w, rounds=12):
    """Nodes do their part: what is deleted goes, what is there gets ready."""
    for _ in range(rounds):
        w.settle()
        for p in w.list("pods"):
            if meta.deleted(p):
                del w.objects["pods"]["default", meta.name(p)]
        w.all_ready()
    w.settle()


def on_node(w):
    """Deletions take time from now on."""
    for p in w.list("pods"):
        w.change("pods", meta.name(p), {"spec": {"nodeName": "n"}})


@pytest.mark.parametrize(
    "policy, first, second",
    [("OrderedReady", ["s-0"], ["s-0", "s-1"]), ("Parallel", ["s-0", "s-1", "s-2"], ["s-0", "s-1", "s-2"])],
)
def test_up_one_after_another_or_all_at_once(policy, first, second):
    w = world(ready=False, podManagementPolicy=policy)
    assert live(w) == first
    w.ready(pod(w, 0))
    w.settle()
    assert live(w) == second


def test_a_pod_has_its_number_everywhere():
    w = world(1, volumeClaimTemplates=[CLAIM], ordinals={"start": 5})
    labels = meta.labels(pod(w, 5))
    assert labels["apps.kubernetes.io/pod-index"] == "5"
    assert labels["statefulset.kubernetes.io/pod-name"] == "s-5"
    assert labels["controller-revision-hash"] == status(w)["updateRevision"]
    spec = pod(w, 5)["spec"]
    assert (spec["hostname"], spec["subdomain"]) == ("s-5", "s")
    assert spec["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-s-5"}}]
    assert w.names("persistentvolumeclaims") == ["data-s-5"]


def test_down_waits_for_the_unhealthy():
    w = world(3)
    on_node(w)
    w.ready(pod(w, 1), state=False)
    change(w, replicas=0)
    w.settle()
    assert live(w) == ["s-0", "s-1"]  # the highest is healthy and goes
    del w.objects["pods"]["default", "s-2"]
    w.settle()
    assert live(w) == ["s-0"]  # the first unhealthy one may go as well
    w.ready(pod(w, 0), state=False)
    w.settle()
    assert live(w) == ["s-0"]
    del w.objects["pods"]["default", "s-1"]
    w.settle()
    assert live(w) == []


@pytest.mark.parametrize("partition, updated", [(0, "222"), (2, "112"), (3, "111")])
def test_the_partition_keeps_lower_numbers_old(partition, updated):
    w = world(3, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": partition}})
    update(w)
    run(w)
    assert "".join(images(w).values()) == updated
    whole = updated == "222"
    assert (status(w)["currentRevision"] == status(w)["updateRevision"]) == whole
    assert status(w).get("updatedReplicas", 0) == updated.count("2")
    del w.objects["pods"]["default", "s-0"]  # a lost pod comes back in the revision of its number
    run(w, 3)
    assert images(w)["s-0"] == updated[0]


@pytest.mark.parametrize("unavailable, gone", [(1, ["s-3"]), (2, ["s-2", "s-3"]), ("50%", ["s-2", "s-3"])])
def test_no_more_are_away_than_may_be(unavailable, gone):
    rolling = {"partition": 0, "maxUnavailable": unavailable}
    w = world(
        4, updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling}, podManagementPolicy="Parallel"
    )
    on_node(w)
    update(w)
    w.settle()
    assert sorted({"s-0", "s-1", "s-2", "s-3"} - set(live(w))) == gone


def test_on_delete_leaves_it_to_the_user():
    w = world(2, updateStrategy={"type": "OnDelete"})
    update(w)
    run(w)
    assert images(w) == {"s-0": "1", "s-1": "1"}
    del w.objects["pods"]["default", "s-0"]
    run(w, 3)
    assert images(w) == {"s-0": "2", "s-1": "1"}


def test_a_template_that_comes_back_is_its_old_revision_with_a_new_number():
    w = world(1)
    first = status(w)["currentRevision"]
    update(w)
    run(w)
    change(w, template=template(APP))
    run(w)
    assert status(w)["currentRevision"] == first
    assert {meta.name(r): r["revision"] for r in w.list("controllerrevisions.apps")}[first] == 3


@pytest.mark.parametrize(
    "phase, reason", [("Failed", "RecreatingFailedPod"), ("Succeeded", "RecreatingTerminatedPod")]
)
def test_an_ended_pod_is_made_anew(phase, reason):
    w = world(1)
    born = meta.uid(pod(w, 0)), w.now
    w.now += 60
    w.change("pods", "s-0", {"status": {"phase": phase}})
    run(w, 2)
    assert pod(w, 0)["metadata"]["creationTimestamp"] == rfc3339(w.now) != born[1]
    assert reason in {e.reason for e in w.events}


def test_a_pod_that_fails_as_it_is_born_is_not_made_anew_in_a_hot_loop():
    w = world(1, ready=False)
    w.change("pods", "s-0", {"status": {"phase": "Failed"}})
    w.settle()
    assert live(w) == ["s-0"] and w.timers[0][2] == pytest.approx(2)
    w.now += 2
    assert w.act(RULES[0], "statefulsets.apps", "s").phases and live(w) == []


@pytest.mark.parametrize(
    "deleted, scaled, kept, away",
    [
        ("Retain", "Retain", [], []),
        ("Delete", "Retain", ["StatefulSet"], ["StatefulSet"]),
        ("Retain", "Delete", [], ["Pod"]),
        ("Delete", "Delete", ["StatefulSet"], ["Pod"]),
    ],
)
def test_whom_claims_go_with(deleted, scaled, kept, away):
    w = world(2, volumeClaimTemplates=[CLAIM])
    change(w, persistentVolumeClaimRetentionPolicy={"whenDeleted": deleted, "whenScaled": scaled})
    w.settle()

    def owners(number):
        return [
            r["kind"] for r in meta.owners(w.get("persistentvolumeclaims", f"data-s-{number}", "default"))
        ]

    assert owners(0) == owners(1) == kept  # those that were there before, too
    on_node(w)
    change(w, replicas=1)
    w.settle()
    assert (owners(0), owners(1)) == (kept, away)
    change(w, replicas=2)
    run(w, 3)
    assert owners(1) == kept  # back again: no longer to be deleted


def test_an_adopted_pod_gets_the_labels_of_its_number():
    w = world(1)
    refs = {"metadata": {"ownerReferences": None, "labels": {"apps.kubernetes.io/pod-index": None}}}
    w.change("pods", "s-0", refs)
    w.settle()
    assert (
        meta.owner(pod(w, 0))["name"] == "s" and meta.labels(pod(w, 0))["apps.kubernetes.io/pod-index"] == "0"
    )


def test_conditions_that_others_set_stay():
    w = world(1)
    theirs = [{"type": "Checked", "status": "True"}]
    w.change("statefulsets.apps", "s", {"status": {"conditions": theirs}})
    update(w)
    run(w)
    assert status(w)["conditions"] == theirs
