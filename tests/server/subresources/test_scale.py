"""`/scale`: reading and writing replicas, who owns them, and what admission is shown."""

from __future__ import annotations

import pytest

SETS = "/apis/apps/v1/namespaces/d/replicasets"
ROOT = "/apis/admissionregistration.k8s.io/v1"
APPLY = {"content-type": "application/apply-patch+yaml"}
MERGE = {"content-type": "application/merge-patch+json"}


@pytest.fixture
async def scaled(full):
    """A ReplicaSet `r` of two, applied by `owner`."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec}
    await full.ok("PATCH", f"{SETS}/r?fieldManager=owner", body, headers=APPLY)
    return full


def scale(replicas, **metadata):
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "r", **metadata},
        "spec": {"replicas": replicas},
    }


async def owners(api):
    """Who owns the replicas, and how many there are."""
    found = await api.ok("GET", f"{SETS}/r")
    entries = found["metadata"]["managedFields"]
    return {
        (e["manager"], e["operation"], e.get("subresource", ""))
        for e in entries
        if "f:replicas" in e["fieldsV1"].get("f:spec", {})
    }, found["spec"]["replicas"]


async def test_an_applied_scale_owns_the_replicas_and_may_conflict(scaled):
    path = f"{SETS}/r/scale?fieldManager"
    status, answer = await scaled.call("PATCH", f"{path}=scaler", scale(7), headers=APPLY)
    assert (status, answer["message"]) == (
        409,
        'Apply failed with 1 conflict: conflict with "owner": .spec.replicas',
    )
    forced = await scaled.ok("PATCH", f"{path}=scaler&force=true", scale(7), headers=APPLY)
    assert (forced["kind"], forced["spec"]) == ("Scale", {"replicas": 7})
    assert await owners(scaled) == ({("scaler", "Apply", "scale")}, 7)
    await scaled.ok("PATCH", f"{path}=other", scale(7), headers=APPLY)
    assert await owners(scaled) == ({("scaler", "Apply", "scale"), ("other", "Apply", "scale")}, 7)
    await scaled.ok("PATCH", f"{path}=writer", {"spec": {"replicas": 3}}, headers=MERGE)
    assert await owners(scaled) == ({("writer", "Update", "scale")}, 3)


@pytest.mark.parametrize(
    ("body", "code", "part"),
    [
        (scale(-1), 422, "must be greater than or equal to 0"),
        (scale(1, name="other"), 400, "does not match the name on the URL"),
        (scale(1, resourceVersion="1"), 409, "the object has been modified"),
        (scale(1) | {"kind": "ReplicaSet"}, 400, "cannot be handled as a Scale"),
    ],
)
async def test_applied_scales_that_are_refused(scaled, body, code, part):
    path = f"{SETS}/r/scale?fieldManager=scaler&force=true"
    status, answer = await scaled.call("PATCH", path, body, headers=APPLY)
    assert status == code and part in answer["message"]


@pytest.mark.parametrize(
    "expression",
    [
        "request.kind.kind == 'Scale' && object.kind == 'Scale' && oldObject.kind == 'Scale'",
        "oldObject.spec.replicas == 2 && object.spec.replicas == 5 && !has(object.spec.template)",
    ],
)
async def test_policies_see_the_scale(scaled, expression):
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["UPDATE"],
        "resources": ["replicasets/scale"],
    }
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"!({expression})", "message": "seen"}],
    }
    await scaled.ok(
        "POST", f"{ROOT}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": policy}
    )
    bound = {"policyName": "p", "validationActions": ["Deny"]}
    await scaled.ok(
        "POST", f"{ROOT}/validatingadmissionpolicybindings", {"metadata": {"name": "b"}, "spec": bound}
    )
    await scaled.clock.settle()
    status, answer = await scaled.merge(f"{SETS}/r/scale", {"spec": {"replicas": 5}})
    assert status == 422 and "seen" in answer["message"]


async def test_a_mutated_scale_is_what_is_stored(scaled):
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["UPDATE"],
        "resources": ["replicasets/scale"],
    }
    patch = '[JSONPatch{op: "replace", path: "/spec/replicas", value: 4}]'
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        "reinvocationPolicy": "Never",
    }
    await scaled.ok("POST", f"{ROOT}/mutatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": policy})
    await scaled.ok(
        "POST",
        f"{ROOT}/mutatingadmissionpolicybindings",
        {"metadata": {"name": "b"}, "spec": {"policyName": "p"}},
    )
    await scaled.clock.settle()
    assert (await scaled.merge(f"{SETS}/r/scale", {"spec": {"replicas": 9}}))[1]["spec"] == {"replicas": 4}
    assert (await owners(scaled))[1] == 4
