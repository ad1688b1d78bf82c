"""Metadata: names, labels, annotations, owners, finalizers; what of it never changes."""

import pytest

CM = "configmaps"
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, []),
        ({"name": ""}, ["metadata.name: Required value: name or generateName is required"]),
        ({"name": "a-b.c", "labels": {"a": "", "x.io/b": "V_1"}}, []),
        ({"labels": {"a/b/c": "x"}}, ['metadata.labels: Invalid value: "a/b/c": a qualified name']),
        ({"labels": {"a": "x" * 64}}, ["must be no more than 63 bytes"]),
        ({"labels": {"": "x"}}, ["name part must be non-empty", "name part must consist of"]),
        ({"annotations": {"X.IO/a": "b"}}, []),
        (
            {"annotations": {"a": "x" * 262144}},
            ["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        ({"generation": -1}, ["metadata.generation: Invalid value: -1: must be greater than or equal to 0"]),
        ({"finalizers": ["x.io/a", "orphan"]}, []),
        (
            {"finalizers": ["held"]},
            ['metadata.finalizers[0]: Invalid value: "held": name is neither a standard'],
        ),
        ({"finalizers": ["orphan", "foregroundDeletion"]}, ["cannot be both set"]),
        ({"ownerReferences": [OWNER]}, []),
        (
            {"ownerReferences": [OWNER | {"kind": ""}]},
            ['metadata.ownerReferences.kind: Invalid value: "": kind must'],
        ),
        ({"ownerReferences": [OWNER | {"kind": "Event"}]}, ["disallowed from being an owner"]),
        ({"ownerReferences": [OWNER | {"controller": True}] * 2}, ["Only one reference can have Controller"]),
        ({"namespace": "A"}, ['metadata.namespace: Invalid value: "A"']),
    ],
)
def test_of_a_new_object(judge, meta, expected):
    lines = judge.create(CM, {"metadata": meta})
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert part in line


def test_webhooks_leases_and_definitions_have_finalizers_of_any_name(judge):
    hooks = "validatingwebhookconfigurations.admissionregistration.k8s.io"
    for kind in (hooks, "leases.coordination.k8s.io"):
        assert judge.create(kind, {"metadata": {"name": "a", "finalizers": ["held"]}}) == []


def test_names_follow_their_kind(judge):
    assert judge.create("namespaces", {"metadata": {"name": "a.b"}}) == [
        'metadata.name: Invalid value: "a.b": must not contain dots'
    ]
    assert judge.create("roles.rbac.authorization.k8s.io", {"metadata": {"name": "system:A_b"}}) == []
    assert judge.create("roles.rbac.authorization.k8s.io", {"metadata": {"name": "a/b"}}) == [
        "metadata.name: Invalid value: \"a/b\": may not contain '/'"
    ]
    assert judge.create(CM, {"metadata": {"name": "a", "generateName": "AB-"}})[0].startswith(
        'metadata.generateName: Invalid value: "AB-"'
    )


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ({"labels": {"a": "b"}}, {}, []),
        ({"name": "y"}, {}, 'metadata.name: Invalid value: "y": field is immutable'),
        ({"uid": "v"}, {}, 'metadata.uid: Invalid value: "v": field is immutable'),
        (
            {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            {},
            'metadata.deletionTimestamp: Invalid value: "2026-01-01T00:00:00Z": field is immutable',
        ),
        (
            {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x.io/b"]},
            {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
            'found new finalizers []string{"x.io/b"}',
        ),
    ],
)
def test_of_a_changed_object(judge, new, old, expected):
    lines = judge.update(CM, {"metadata": new}, {"metadata": old})
    assert lines == ([expected, expected] if expected else [])
