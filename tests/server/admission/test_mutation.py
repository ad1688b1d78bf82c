"""MutatingAdmissionPolicies through the API."""

from __future__ import annotations

import pytest

GROUP = "/apis/admissionregistration.k8s.io/v1"
DEPLOYMENTS = "/apis/apps/v1/namespaces/d/deployments"
MAPS = "/api/v1/namespaces/d/configmaps"
RULE = {
    "apiGroups": ["", "apps", "example.com"],
    "apiVersions": ["v1"],
    "operations": ["CREATE", "UPDATE"],
    "resources": ["configmaps", "deployments", "foos"],
}
FIELDS = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
ANNOTATE = 'Object{metadata: Object.metadata{annotations: {"mutated-by": "policy"}}}'


def web(**template):
    labels = {"app": "web"}
    spec = {"containers": [{"name": "web", "image": "web"}], **template}
    return {
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


class World:
    def __init__(self, api):
        self.api = api

    async def policy(self, *expressions, kind="ApplyConfiguration", name="p", binding=None, **spec):
        field = FIELDS[kind]
        body = {
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [RULE]},
                "mutations": [{"patchType": kind, field: {"expression": e}} for e in expressions],
                "reinvocationPolicy": "Never",
                **spec,
            },
        }
        status, answer = await self.api.call("POST", f"{GROUP}/mutatingadmissionpolicies", body)
        if status == 201:
            bound = {"metadata": {"name": f"{name}-b"}, "spec": {"policyName": name, **(binding or {})}}
            await self.api.ok("POST", f"{GROUP}/mutatingadmissionpolicybindings", bound)
            await self.api.clock.settle()
        return status, answer

    async def make(self, **data):
        return await self.api.call("POST", MAPS, {"metadata": {"name": "a"}, "data": data})


@pytest.fixture
def world(full):
    return World(full)


async def test_an_apply_configuration_is_laid_over_the_object(world):
    sidecar = """Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
        initContainers: [Object.spec.template.spec.initContainers{
            name: "mesh", image: "mesh:1", args: ["proxy"], restartPolicy: "Always"}],
        containers: [Object.spec.template.spec.containers{
            name: "web", env: [Object.spec.template.spec.containers.env{name: "A", value: "1"}]}]}}}}"""
    await world.policy(ANNOTATE, name="a")
    # a list of arguments can only be replaced as a whole: it is refused further below
    await world.policy(
        sidecar.replace('args: ["proxy"], ', ""),
        name="b",
        matchConditions=[{"name": "web", "expression": "object.metadata.name == 'web'"}],
    )
    made = await world.api.ok("POST", DEPLOYMENTS, web())
    assert made["metadata"]["annotations"]["mutated-by"] == "policy"
    pod = made["spec"]["template"]["spec"]
    assert [c["name"] for c in pod["containers"]] == ["web"]
    assert pod["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    assert pod["initContainers"][0]["terminationMessagePolicy"] == "File"  # defaults come after mutation
    assert (await world.policy(sidecar, name="c"))[0] == 201
    status, answer = await world.api.merge(f"{DEPLOYMENTS}/web", {"spec": {"replicas": 2}})
    why = "may not mutate atomic arrays, maps or structs: .spec.template.spec.initContainers[0].args"
    assert status == 422 and answer["message"].endswith(why)


async def test_a_json_patch_is_applied_and_later_mutations_see_it(world):
    await world.policy(
        '[JSONPatch{op: "test", path: "/data/k", value: "v"}, JSONPatch{op: "add", path: "/data/n", value: "1"}]',
        'has(object.data.n) ? [JSONPatch{op: "add", path: "/metadata/labels", value: {"seen": object.data.n}}] : []',
        '[JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("example.com/a"), value: "x"}]',
        kind="JSONPatch",
    )
    status, made = await world.make(k="v")
    assert status == 201, made["message"]
    assert made["data"] == {"k": "v", "n": "1"}
    assert made["metadata"]["labels"] == {"seen": "1", "example.com/a": "x"}


async def test_variables_parameters_and_the_request_are_there(world):
    await world.api.ok("POST", MAPS, {"metadata": {"name": "settings"}, "data": {"team": "blue"}})
    await world.policy(
        'Object{metadata: Object.metadata{labels: {"team": variables.team, "by": request.userInfo.username}}}',
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        variables=[{"name": "team", "expression": "params.data.team"}],
        binding={
            "paramRef": {"name": "settings", "namespace": "d", "parameterNotFoundAction": "Deny"},
            "matchResources": {
                "objectSelector": {"matchExpressions": [{"key": "no", "operator": "DoesNotExist"}]}
            },
        },
    )
    _, made = await world.make()
    assert made["metadata"]["labels"] == {"team": "blue", "by": "admin"}
    other = {"metadata": {"name": "o", "labels": {"no": ""}}}
    assert (await world.api.ok("POST", MAPS, other))["metadata"]["labels"] == {"no": ""}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("Object{metadata: Object.spec{}}", 'unexpected type name "Object.spec", expected "Object.metadata"'),
        ('Object{nope: "x"}', ".nope: field not declared in schema"),
        ("Object{metadata: Object.metadata{labels: object.nope}}", "resulted in error: no such key: nope"),
    ],
)
async def test_what_fails_is_refused_or_passed_over(world, expression, text):
    await world.policy(expression)
    status, answer = await world.make()
    assert status == 422 and text in answer["message"]
    assert "policy 'p' with binding 'p-b' denied request: " in answer["message"]
    patch = {"spec": {"failurePolicy": "Ignore"}}
    assert (await world.api.merge(f"{GROUP}/mutatingadmissionpolicies/p", patch))[0] == 200
    await world.api.clock.settle()
    assert (await world.make())[0] == 201


@pytest.mark.parametrize(
    ("kind", "expression", "text"),
    [
        ("ApplyConfiguration", "{'a': 'b'}", "must evaluate to Object"),
        ("JSONPatch", "Object{}", "must evaluate to list(JSONPatch)"),
        ("JSONPatch", "[JSONPatch{nope: 1}]", "undefined field 'nope'"),
        (
            "JSONPatch",
            "[JSONPatch{op: 1}]",
            "expected type of field 'op' is 'string' but provided type is 'int'",
        ),
        ("ApplyConfiguration", "Other{}", "undeclared reference to 'Other' (in container '')"),
        ("ApplyConfiguration", "Object{", "Syntax error"),
    ],
)
async def test_expressions_are_compiled_before_they_are_stored(world, kind, expression, text):
    status, answer = await world.policy(expression, kind=kind)
    assert status == 422 and text in answer["message"], answer["message"]
    field = FIELDS[kind]
    assert f"spec.mutations[0].{field}.expression: Invalid value" in answer["message"]


async def test_a_policy_is_asked_again_when_a_later_one_changed_the_object(world):
    count = 'Object{data: Object.data{%s: has(object.data) ? string(size(object.data)) : "0"}}'
    await world.policy(count % "a", name="a", reinvocationPolicy="IfNeeded")
    await world.policy(count % "b", name="b")
    _, made = await world.make()
    assert made["data"] == {"a": "2", "b": "1"}


async def test_custom_resources_are_mutated_and_pruned(world):
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "items": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
                        },
                    }
                },
            }
        },
    }
    definition = {
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }
    await world.api.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    await world.policy('Object{spec: Object.spec{items: [Object.spec.items{name: "a", size: 3}]}}')
    more = 'JSONPatch{op: "add", path: "/spec/unknown", value: "x"}'
    await world.policy(f"[{more}]", kind="JSONPatch", name="q")
    foo = {
        "apiVersion": "example.com/v1",
        "kind": "Foo",
        "metadata": {"name": "f"},
        "spec": {"items": [{"name": "b"}, {"name": "a", "size": 1}]},
    }
    made = await world.api.ok("POST", "/apis/example.com/v1/namespaces/d/foos", foo)
    assert made["spec"] == {"items": [{"name": "b"}, {"name": "a", "size": 3}]}
