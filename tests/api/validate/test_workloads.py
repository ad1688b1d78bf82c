"""Workloads: selectors and templates agree, strategies make sense, selectors stay."""

import pytest
from lines import same

TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
SPEC = {"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": TEMPLATE}}
ALL = ["deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps"]
MISMATCH = "`selector` does not match template `labels`"


@pytest.mark.parametrize("kind", ALL)
def test_of_all(judge, put, kind):
    assert judge.create(kind, SPEC) == []
    same(
        judge.create(kind, put(SPEC, "spec.template.metadata.labels", {"app": "y"})),
        [f'spec.template.metadata.labels: Invalid value: {{"app":"y"}}: {MISMATCH}'],
    )
    same(
        judge.create(kind, put(SPEC, "spec.template.spec.restartPolicy", "Never")),
        ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
    )
    same(
        judge.create(kind, put(SPEC, "spec.template.spec.containers", [])),
        ["spec.template.spec.containers: Required value"],
    )
    lines = judge.create(kind, put(SPEC, "spec.template.metadata.labels.b", "c d"))
    same(lines, ['spec.template.labels: Invalid value: "c d": a valid label must be'])


@pytest.mark.parametrize("kind", ["deployments.apps", "replicasets.apps", "daemonsets.apps"])
def test_selectors_stay(judge, put, kind):
    other = put(
        put(SPEC, "spec.selector", {"matchLabels": {"a": "z"}}), "spec.template.metadata.labels.a", "z"
    )
    assert judge.update(kind, other, SPEC) == [
        'spec.selector: Invalid value: {"matchLabels":{"a":"z"}}: field is immutable'
    ]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.selector", ..., ["spec.selector: Required value", MISMATCH]),
        ("spec.selector", {}, ["empty selector is invalid for deployment"]),
        ("spec.replicas", -1, ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        ("spec.progressDeadlineSeconds", 0, ["must be greater than minReadySeconds"]),
        (
            "spec.strategy",
            {"type": "BigBang"},
            ['Unsupported value: {"Type":"BigBang","RollingUpdate":null}'],
        ),
        (
            "spec.strategy",
            {"type": "Recreate", "rollingUpdate": {}},
            ["may not be specified when strategy `type` is"],
        ),
        (
            "spec.strategy.rollingUpdate",
            {"maxSurge": 0, "maxUnavailable": 0},
            ["may not be 0 when `maxSurge` is 0"],
        ),
        (
            "spec.strategy.rollingUpdate",
            {"maxSurge": "1.5%"},
            ["a valid percent string must be a numeric string"],
        ),
        ("spec.strategy.rollingUpdate", {"maxUnavailable": "101%"}, ["must not be greater than 100%"]),
        (
            "spec.template.spec.activeDeadlineSeconds",
            5,
            ["activeDeadlineSeconds in ReplicaSet is not Supported"],
        ),
    ],
)
def test_a_deployment_is_refused_with_the_field_that_is_wrong(judge, put, path, value, expected):
    same(judge.create("deployments.apps", put(SPEC, path, value)), expected)


def test_a_deployment_without_template(judge, put):
    lines = judge.create("deployments.apps", put(SPEC, "spec.template", ...))
    same(
        lines,
        [
            f"spec.template.metadata.labels: Invalid value: null: {MISMATCH}",
            "spec.template.spec.containers: Required value",
        ],
    )


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.podManagementPolicy", "Random", ["must be 'OrderedReady' or 'Parallel'"]),
        ("spec.updateStrategy", {"type": "Slow"}, ["must be 'RollingUpdate' or 'OnDelete'"]),
        ("spec.updateStrategy", {"type": "OnDelete", "rollingUpdate": {"partition": 1}}, ["only allowed for updateStrategy"]),
        ("spec.updateStrategy.rollingUpdate", {"partition": -1}, ["rollingUpdate.partition: Invalid value: -1"]),
        ("spec.ordinals", {"start": -1}, ["spec.ordinals.start: Invalid value: -1"]),
        ("spec.persistentVolumeClaimRetentionPolicy", {"whenScaled": "Burn"}, ["whenScaled: Unsupported value"]),
    ],
)  # fmt: skip
def test_stateful_sets(judge, put, path, value, expected):
    same(judge.create("statefulsets.apps", put(SPEC, path, value)), expected)


def test_claims_of_a_stateful_set_are_volumes_of_its_pods(judge, put):
    mounted = put(SPEC, "spec.template.spec.containers.0.volumeMounts", [{"name": "data", "mountPath": "/d"}])
    same(judge.create("statefulsets.apps", mounted), ['volumeMounts[0].name: Not found: "data"'])
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    assert judge.create("statefulsets.apps", put(mounted, "spec.volumeClaimTemplates", [claim])) == []


def test_what_a_stateful_set_may_change(judge, put):
    for path, value in (("spec.replicas", 5), ("spec.minReadySeconds", 5), ("spec.revisionHistoryLimit", 5)):
        assert judge.update("statefulsets.apps", put(SPEC, path, value), SPEC) == []
    (line,) = judge.update("statefulsets.apps", put(SPEC, "spec.serviceName", "s"), SPEC)
    assert line.startswith(
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals'"
    )


@pytest.mark.parametrize(
    ("rolling", "expected"),
    [
        ({"maxUnavailable": 0, "maxSurge": 1}, []),
        ({"maxUnavailable": 1, "maxSurge": 1}, ["may not be set when maxUnavailable is non-zero"]),
        ({"maxUnavailable": 0, "maxSurge": 0}, ["cannot be 0 when maxSurge is 0"]),
    ],
)
def test_daemon_sets(judge, put, rolling, expected):
    same(judge.create("daemonsets.apps", put(SPEC, "spec.updateStrategy.rollingUpdate", rolling)), expected)


def test_replication_controllers(judge):
    assert judge.create("replicationcontrollers", {"spec": {"template": TEMPLATE}}) == []
    assert judge.create("replicationcontrollers", {"spec": {"selector": {"a": "b"}}}) == [
        "spec.template: Required value"
    ]


def test_counts_of_a_status(judge, put):
    lines = judge.update("replicasets.apps", put(SPEC, "status", {"replicas": -1}), SPEC, "status")
    same(lines, ["status.replicas: Invalid value: -1"])


def test_the_data_of_a_revision_stay(judge, put):
    made = {"revision": 1, "data": {"a": 1}}
    assert judge.create("controllerrevisions.apps", made) == []
    assert judge.create("controllerrevisions.apps", {"revision": 1}) == [
        "data: Required value: data is mandatory"
    ]
    assert (
        "field is immutable" in judge.update("controllerrevisions.apps", put(made, "data", {"a": 2}), made)[0]
    )
