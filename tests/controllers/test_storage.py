"""Claims and volumes: who gets which, and what happens after."""

import pytest
from world import START, World, node

from sampan.api import meta
from sampan.base.clock import rfc3339
from sampan.client.plan import Delete
from sampan.controllers import persistentvolume

PV, PVC = "persistentvolumes", "persistentvolumeclaims"


def world():
    w = World(*persistentvolume.rules("/data"))
    w.put("nodes", node("n1"))
    return w


def volume(w, name, size="1Gi", labels=None, **spec):
    body = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual"}
    return w.put(PV, {"metadata": {"name": name, "labels": labels or {}}, "spec": body | spec})


def claim(w, name="c", size="1Gi", **spec):
    body = {
        "resources": {"requests": {"storage": size}},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "manual",
    }
    return w.put(PVC, {"metadata": {"name": name}, "spec": body | spec})


def bound(w, name="c"):
    c = w.get(PVC, name, "default")
    return (
        c["spec"].get("volumeName") if c.get("status", {}).get("phase") == "Bound" else c["status"]["phase"]
    )


def test_the_smallest_sufficient_volume_is_bound():
    w = world()
    for name, size in (("big", "10Gi"), ("small", "500Mi"), ("right", "2Gi")):
        volume(w, name, size)
    w.settle()
    assert w.get(PV, "big")["status"]["phase"] == "Available"
    claim(w)
    w.settle()
    assert bound(w) == "right"
    c, v = w.get(PVC, "c", "default"), w.get(PV, "right")
    assert c["status"] == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}}
    assert v["status"]["phase"] == "Bound" and v["spec"]["claimRef"]["uid"] == meta.uid(c)
    assert set(meta.annotations(c)) == {
        "pv.kubernetes.io/bind-completed",
        "pv.kubernetes.io/bound-by-controller",
    }


@pytest.mark.parametrize(
    "wish",
    [
        {"size": "5Gi"},
        {"accessModes": ["ReadWriteMany"]},
        {"storageClassName": "other"},
        {"selector": {"matchLabels": {"a": "b"}}},
    ],
)
def test_what_does_not_fit_stays_pending(wish):
    w = world()
    volume(w, "v")
    claim(w, **wish)
    w.settle()
    assert bound(w) == "Pending" and w.get(PV, "v")["status"]["phase"] == "Available"


def test_a_volume_asked_for_by_name_even_before_it_exists():
    w = world()
    claim(w, volumeName="v")
    volume(w, "other")
    w.settle()
    assert bound(w) == "Pending"
    volume(w, "v")
    w.settle()
    assert bound(w) == "v"
    assert "pv.kubernetes.io/bound-by-controller" not in meta.annotations(w.get(PVC, "c", "default"))


def test_a_released_volume_is_not_given_again():
    w = world()
    volume(w, "v")
    claim(w)
    w.settle()
    w.delete(Delete(PVC, "c", "default"))
    w.settle()
    assert w.get(PV, "v")["status"]["phase"] == "Released"
    claim(w)
    w.objects[PVC]["default", "c"]["metadata"]["uid"] = "another"
    w.settle()
    assert bound(w) == "Pending"


def test_a_lost_volume_is_told():
    w = world()
    volume(w, "v")
    claim(w)
    w.settle()
    w.objects[PV].clear()
    w.settle()
    assert bound(w) == "Lost" and w.events[-1].reason == "ClaimLost"


def test_only_claims_that_may_take_a_volume_look_at_it():
    w = world()
    binder = next(rule for rule in w.rules if rule.resource == PVC)
    waits = {"volumeBindingMode": "WaitForFirstConsumer", "provisioner": "kubernetes.io/no-provisioner"}
    w.put("storageclasses.storage.k8s.io", {"metadata": {"name": "later"}, **waits})
    claim(w, "manual")
    claim(w, "named", volumeName="v")
    claim(w, "of-another-class", storageClassName="other")
    claim(w, "waits", storageClassName="later")
    chosen = claim(w, "chosen", storageClassName="later")

    def woken(v):
        return {key.name for key in binder.watches[PV](v, w)}

    assert woken(volume(w, "v")) == {"manual", "named"}
    assert woken(volume(w, "w", storageClassName="later")) == set()
    assert woken(volume(w, "x", claimRef={"namespace": "default", "name": "waits"})) == {"waits"}
    node_known = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}}
    w.change(PVC, meta.name(chosen), node_known)
    assert woken(volume(w, "y", storageClassName="later")) == {"chosen"}


def test_local_path_waits_for_the_pod_and_is_made_on_its_node():
    w = world()
    storage = {
        "provisioner": "sampan.io/local-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }
    w.put("storageclasses.storage.k8s.io", {"metadata": {"name": "local"}, **storage})
    claim(w, storageClassName="local")
    w.settle()
    assert bound(w) == "Pending" and w.events[-1].reason == "WaitForFirstConsumer"
    w.change(PVC, "c", {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}})
    w.settle()
    assert bound(w) == "pvc-uid-c"
    assert w.get(PV, "pvc-uid-c")["spec"]["hostPath"] == {
        "path": "/data/pvc-uid-c",
        "type": "DirectoryOrCreate",
    }
    w.delete(Delete(PVC, "c", "default"))
    w.settle()
    assert w.list(PV) == []


def test_local_path_makes_a_volume_at_once_where_its_class_allows_it():
    w = world()
    w.put("nodes", {"metadata": {"name": "n2", "labels": {"zone": "b"}}, "spec": {}, "status": {}})
    storage = {
        "provisioner": "sampan.io/local-path",
        "volumeBindingMode": "Immediate",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}],
    }
    w.put("storageclasses.storage.k8s.io", {"metadata": {"name": "local"}, **storage})
    claim(w, storageClassName="local")
    w.settle()
    (term,) = w.get(PV, bound(w))["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["n2"]


def test_a_claim_of_local_path_grows():
    w = world()
    w.put(
        "storageclasses.storage.k8s.io",
        {"metadata": {"name": "local"}, "provisioner": "sampan.io/local-path"},
    )
    claim(w, storageClassName="local")
    w.settle()
    w.change(PVC, "c", {"spec": {"resources": {"requests": {"storage": "3Gi"}}}})
    w.settle()
    assert w.get(PV, "pvc-uid-c")["spec"]["capacity"] == {"storage": "3Gi"}
    assert w.get(PVC, "c", "default")["status"]["capacity"] == {"storage": "3Gi"}
    assert [e.reason for e in w.events].count("VolumeResizeSuccessful") == 1


def test_nobody_can_empty_a_local_volume():
    w = world()
    volume(w, "v", persistentVolumeReclaimPolicy="Delete", local={"path": "/mnt/v"})
    claim(w)
    w.settle()
    w.delete(Delete(PVC, "c", "default"))
    w.settle()
    status = w.get(PV, "v")["status"]
    assert status["phase"] == "Failed" and "no deletable volume plugin matched" in status["message"]
    assert [e.reason for e in w.events].count("VolumeFailedDelete") == 1


def test_what_is_in_use_is_not_removed():
    w = world()
    volume(w, "v")
    w.change(PV, "v", {"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}}, "")
    claim(w)
    w.settle()
    going = {
        "metadata": {"finalizers": ["kubernetes.io/pvc-protection"], "deletionTimestamp": rfc3339(START)}
    }
    w.change(PVC, "c", going)
    w.change(PV, "v", {"metadata": {"deletionTimestamp": rfc3339(START)}}, "")
    uses = [{"name": "x", "persistentVolumeClaim": {"claimName": "c"}}]
    w.put("pods", {"metadata": {"name": "p"}, "spec": {"volumes": uses}})
    w.settle()
    assert w.list(PVC) and w.list(PV)
    w.change("pods", "p", {"status": {"phase": "Succeeded"}})
    w.settle()
    assert w.list(PVC) == [] and w.list(PV) == []
