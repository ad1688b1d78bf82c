"""Volumes, claims, classes; what an autoscaler may ask for."""

import pytest
from lines import same

PV, PVC, SC = "persistentvolumes", "persistentvolumeclaims", "storageclasses.storage.k8s.io"
VOLUME = {
    "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}
}
CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.storageClassName", "a.b", []),
        ("spec.hostPath", ..., ["spec: Required value: must specify a volume type"]),
        (
            "spec.nfs",
            {"server": "s", "path": "/"},
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            "spec.capacity",
            {"cpu": "1", "storage": "1Gi"},
            ['spec.capacity: Unsupported value: {"cpu":"1","storage":"1Gi"}'],
        ),
        ("spec.capacity", {"storage": "-1"}, ["must be greater than zero"]),
        ("spec.accessModes", [], ["spec.accessModes: Required value"]),
        (
            "spec.accessModes",
            ["ReadWriteOncePod", "ReadWriteOnce"],
            ["may not use ReadWriteOncePod with other"],
        ),
        ("spec.persistentVolumeReclaimPolicy", "Burn", ['supported values: "Delete", "Recycle", "Retain"']),
    ],
)
def test_a_volume_is_refused_with_the_field_that_is_wrong(judge, put, path, value, expected):
    same(judge.create(PV, put(VOLUME, path, value)), expected)


def test_kinds_of_volumes(judge, put):
    root = put(put(VOLUME, "spec.hostPath.path", "/"), "spec.persistentVolumeReclaimPolicy", "Recycle")
    same(judge.create(PV, root), ["may not be 'recycle' for a hostPath mount of '/'"])
    local = put(put(VOLUME, "spec.hostPath", ...), "spec.local", {"path": "/d"})
    same(judge.create(PV, local), ["spec.nodeAffinity: Required value: Local volume requires node affinity"])
    csi = put(put(VOLUME, "spec.hostPath", ...), "spec.csi", {"driver": "x.io"})
    same(judge.create(PV, csi), ["spec.csi.volumeHandle: Required value"])


def test_the_source_of_a_volume_stays(judge, put):
    assert judge.update(PV, put(VOLUME, "spec.capacity.storage", "2Gi"), VOLUME) == []
    (line,) = judge.update(PV, put(VOLUME, "spec.hostPath.path", "/y"), VOLUME)
    assert line.startswith(
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after"
    )


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.accessModes", [], ["at least 1 access mode is required"]),
        ("spec.resources", {}, ["spec.resources[storage]: Required value"]),
        ("spec.resources.requests.storage", "-1Gi", ["must be greater than zero"]),
        (
            "spec.selector",
            {"matchExpressions": [{"key": "a", "operator": "Like"}]},
            ["not a valid selector operator"],
        ),
        ("spec.volumeMode", "Tape", ['supported values: "Block", "Filesystem"']),
    ],
)
def test_a_claim_is_refused_with_the_field_that_is_wrong(judge, put, path, value, expected):
    same(judge.create(PVC, put(CLAIM, path, value)), expected)


def test_what_of_a_claim_may_change(judge, put):
    bound = put(CLAIM, "status", {"phase": "Bound", "capacity": {"storage": "1Gi"}})
    grown = put(bound, "spec.resources.requests.storage", "2Gi")
    assert judge.update(PVC, put(CLAIM, "spec.volumeName", "v"), CLAIM) == []
    assert judge.update(PVC, put(CLAIM, "spec.storageClassName", "fast"), CLAIM) == []
    assert judge.update(PVC, grown, bound) == []
    same(
        judge.update(PVC, put(CLAIM, "spec.resources.requests.storage", "2Gi"), CLAIM),
        ["spec: Forbidden: spec is immutable"],
    )
    same(
        judge.update(PVC, put(bound, "spec.resources.requests.storage", "500Mi"), bound),
        ["can not be less than"],
    )
    same(
        judge.update(PVC, put(bound, "spec.accessModes", ["ReadOnlyMany"]), bound),
        ["spec: Forbidden: spec is immutable"],
    )


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"provisioner": "X.io/y"}, []),
        ({}, ["provisioner: Required value"]),
        ({"provisioner": "a b"}, ["provisioner: Invalid value"]),
        ({"provisioner": "a", "reclaimPolicy": "Burn"}, ['supported values: "Delete", "Retain"']),
        ({"provisioner": "a", "parameters": {"": "x"}}, ["field can not be empty."]),
    ],
)
def test_a_storage_class_is_refused_with_the_field_that_is_wrong(judge, obj, expected):
    same(judge.create(SC, obj), expected)


def test_a_class_stays(judge):
    same(
        judge.update(SC, {"provisioner": "b"}, {"provisioner": "a"}),
        ["updates to provisioner are forbidden."],
    )


TARGET = {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3}
HPA = "horizontalpodautoscalers.autoscaling"


@pytest.mark.parametrize(
    ("version", "spec", "expected"),
    [
        ("v2", {}, []),
        ("v2", {"maxReplicas": 0}, ["must be greater than 0", "must be greater than or equal to `minReplicas`"]),
        ("v2", {"minReplicas": 5}, ["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"]),
        ("v2", {"metrics": [{"type": "Pods"}]}, ["must populate information for the given metric source"]),
        ("v2", {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Value"}}}]}, ["must set either a target raw value or a target utilization"]),
        ("v2", {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}}, ["must be less than or equal to 3600"]),
        ("v1", {"targetCPUUtilizationPercentage": 0}, ["spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be"]),
        ("v1", {"scaleTargetRef": {"kind": "", "name": "a/b"}}, ["spec.scaleTargetRef.kind: Required value", "may not contain '/'"]),
    ],
)  # fmt: skip
def test_an_autoscaler_is_refused_with_the_field_that_is_wrong(judge, version, spec, expected):
    same(judge.create(HPA, {"spec": TARGET | spec}, version), expected)
