"""ValidatingAdmissionPolicies and match conditions of webhooks, through the API."""

from __future__ import annotations

import pytest

GROUP = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/d/configmaps"
RULE = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE", "UPDATE"],
    "resources": ["configmaps"],
}


class World:
    def __init__(self, api):
        self.api = api

    async def policy(self, *validations, name="p", actions=("Deny",), binding=None, **spec):
        spec.setdefault("matchConstraints", {"resourceRules": [RULE]})
        body = {"metadata": {"name": name}, "spec": {"validations": list(validations), **spec}}
        await self.api.ok("POST", f"{GROUP}/validatingadmissionpolicies", body)
        bound = {"policyName": name, "validationActions": list(actions), **(binding or {})}
        body = {"metadata": {"name": f"{name}-b"}, "spec": bound}
        await self.api.ok("POST", f"{GROUP}/validatingadmissionpolicybindings", body)
        await self.api.clock.settle()

    async def make(self, name="a", data=None, **more):
        return await self.api.call("POST", MAPS, {"metadata": {"name": name}, "data": data or {}}, **more)


@pytest.fixture
def world(full):
    return World(full)


async def test_a_policy_refuses_and_lets_pass(world):
    await world.policy({"expression": "size(object.data) < 2"})
    assert (await world.make(data={"k": "v"}))[0] == 201
    status, answer = await world.make("b", data={"k": "v", "l": "w"})
    text = "ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: failed expression: size(object.data) < 2"
    assert (status, answer["reason"]) == (422, "Invalid")
    assert answer["message"] == f'configmaps "b" is forbidden: {text}'
    assert answer["details"]["causes"] == [{"message": text}]


@pytest.mark.parametrize(
    ("validation", "code", "text"),
    [
        ({"expression": "false", "message": "never", "reason": "Forbidden"}, 403, "denied request: never"),
        (
            {"expression": "false", "messageExpression": "'for ' + object.metadata.name"},
            422,
            "request: for a",
        ),
        (
            {"expression": "false", "message": "m", "messageExpression": "object.nope"},
            422,
            "denied request: m",
        ),
        (
            {"expression": "object.nope == 1"},
            422,
            "expression 'object.nope == 1' resulted in error: no such key: nope",
        ),
        ({"expression": "request.userInfo.username == 'admin' && request.operation == 'CREATE'"}, 201, ""),
        ({"expression": "namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == 'd'"}, 201, ""),
        ({"expression": "oldObject == null"}, 201, ""),
        ({"expression": "request.namespace == 'd'"}, 201, ""),
        ({"expression": "false", "messageExpression": "'in ' + request.namespace"}, 422, "request: in d"),
        (
            {"expression": "authorizer.group('').resource('pods').namespace('d').check('create').allowed()"},
            201,
            "",
        ),
        ({"expression": "authorizer.requestResource.check('create').allowed()"}, 201, ""),
        (
            {
                "expression": "authorizer.serviceAccount('d', 'x').group('').resource('pods').check('get').allowed()"
            },
            422,
            "failed expression",
        ),
    ],
)
async def test_what_expressions_see_and_say(world, validation, code, text):
    await world.policy(validation)
    status, answer = await world.make()
    assert status == code
    assert text in answer.get("message", "")


async def test_variables_are_made_when_needed(world):
    await world.policy(
        {"expression": "variables.double == 'aa' || variables.broken == 1"},
        variables=[
            {"name": "name", "expression": "object.metadata.name"},
            {"name": "double", "expression": "variables.name + variables.name"},
            {"name": "broken", "expression": "1 / 0"},
        ],
    )
    assert (await world.make())[0] == 201
    assert "division by zero" in (await world.make("b"))[1]["message"]


async def test_failures_may_be_ignored(world):
    await world.policy({"expression": "object.nope == 1"}, failurePolicy="Ignore")
    assert (await world.make())[0] == 201


async def test_warnings_do_not_refuse(world):
    await world.policy({"expression": "false", "message": "careful"}, actions=("Warn", "Audit"))
    path = MAPS
    response = await world.api.response("POST", path, {"metadata": {"name": "a"}})
    assert response.status == 201
    text = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-b': careful"
    assert response.headers["warning"] == f'299 - "{text}"'


async def test_match_conditions_and_exclusions(world):
    await world.policy(
        {"expression": "false"},
        matchConditions=[{"name": "not-me", "expression": "object.metadata.name != 'me'"}],
        matchConstraints={
            "resourceRules": [RULE],
            "excludeResourceRules": [{**RULE, "resourceNames": ["skipped"]}],
        },
    )
    assert (await world.make("me"))[0] == 201
    assert (await world.make("you"))[0] == 422
    assert (await world.make("skipped"))[0] == 201


async def test_bindings_narrow_what_is_watched(world):
    selector = {"namespaceSelector": {"matchLabels": {"watched": "yes"}}}
    await world.policy({"expression": "false"}, binding={"matchResources": selector})
    assert (await world.make())[0] == 201
    await world.api.merge("/api/v1/namespaces/d", {"metadata": {"labels": {"watched": "yes"}}})
    assert (await world.make("b"))[0] == 422


async def test_a_policy_reads_its_parameters(world):
    await world.api.ok("POST", MAPS, {"metadata": {"name": "limits"}, "data": {"most": "1"}})
    await world.policy(
        {"expression": "size(object.data) <= int(params.data.most)"},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        binding={"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}},
    )
    assert (await world.make("a", {"k": "v"}))[0] == 201
    assert (await world.make("b", {"k": "v", "l": "w"}))[0] == 422
    await world.api.ok("DELETE", f"{MAPS}/limits")
    status, answer = await world.make("c")
    assert "no params found for policy binding with `Deny` parameterNotFoundAction" in answer["message"]


async def test_params_by_selector_may_be_missing(world):
    reference = {"selector": {"matchLabels": {"use": "me"}}, "parameterNotFoundAction": "Allow"}
    await world.policy(
        {"expression": "params.data.ok == 'yes'"},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        binding={"paramRef": reference},
    )
    assert (await world.make())[0] == 201
    made = {"metadata": {"name": "q", "labels": {"use": "me"}}, "data": {"ok": "no"}}
    assert (await world.api.call("POST", MAPS, made))[0] == 201
    assert (await world.make("b"))[0] == 422


async def test_a_removed_policy_is_asked_no_more(world):
    await world.policy({"expression": "false"})
    assert (await world.make())[0] == 422
    await world.api.ok("DELETE", f"{GROUP}/validatingadmissionpolicybindings/p-b")
    assert (await world.make())[0] == 201


async def test_updates_see_the_old_object(world):
    await world.make(data={"k": "v"})
    await world.policy(
        {"expression": "oldObject == null || object.data.k == oldObject.data.k", "message": "fixed"}
    )
    assert (await world.api.merge(f"{MAPS}/a", {"metadata": {"labels": {"x": "y"}}}))[0] == 200
    assert (await world.api.merge(f"{MAPS}/a", {"data": {"k": "w"}}))[0] == 422


async def test_work_is_limited(world):
    big = "[0,1,2,3,4,5,6,7,8,9]"
    deep = f"{big}.all(a, {big}.all(b, {big}.all(c, {big}.all(d, {big}.all(e, a + b + c + d + e >= 0)))))"
    await world.policy({"expression": deep})
    assert "actual cost limit exceeded" in (await world.make())[1]["message"]


async def test_wrong_expressions_are_refused(world):
    body = {
        "metadata": {"name": "x"},
        "spec": {
            "matchConstraints": {"resourceRules": [RULE]},
            "validations": [{"expression": "request.nope"}, {"expression": "1"}],
            "matchConditions": [{"name": "c", "expression": "variables.x == 1"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "true"}],
        },
    }
    status, answer = await world.api.call("POST", f"{GROUP}/validatingadmissionpolicies", body)
    assert status == 422
    found = {c["field"]: c["message"] for c in answer["details"]["causes"]}
    assert "undefined field 'nope'" in found["spec.validations[0].expression"]
    assert "must evaluate to bool" in found["spec.validations[1].expression"]
    assert "undeclared reference to 'variables'" in found["spec.matchConditions[0].expression"]
    assert "must evaluate to string or null" in found["spec.auditAnnotations[0].valueExpression"]


async def test_types_are_checked_against_the_kinds_a_policy_names(world):
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}
    await world.policy({"expression": "object.spec.replicaz > 1"}, matchConstraints={"resourceRules": [rule]})
    policy = await world.api.ok("GET", f"{GROUP}/validatingadmissionpolicies/p")
    [warning] = policy["status"]["typeChecking"]["expressionWarnings"]
    assert policy["status"]["observedGeneration"] == 1
    assert warning["fieldRef"] == "spec.validations[0].expression"
    assert warning["warning"].startswith(
        "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicaz'"
    )


# Webhooks


def hook(**more):
    return {
        "metadata": {"name": "h"},
        "webhooks": [
            {
                "name": "h.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "rules": [RULE],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                **more,
            }
        ],
    }


async def _hooked(world, *expressions, **more):
    conditions = [{"name": f"c{i}", "expression": e} for i, e in enumerate(expressions)]
    body = hook(matchConditions=conditions, **more)
    await world.api.ok("POST", f"{GROUP}/validatingwebhookconfigurations", body)


async def test_a_webhook_is_called_when_its_conditions_hold(world):
    await _hooked(
        world,
        "object.metadata.name == 'watched' && request.namespace == 'd'",
        "request.userInfo.username == 'admin'",
    )
    assert (await world.make("other"))[0] == 201
    status, answer = await world.make("watched")
    assert status == 500
    assert "failed calling webhook" in answer["message"]


async def test_a_condition_that_fails_refuses_unless_failures_are_ignored(world):
    await _hooked(world, "object.nope == 1")
    status, answer = await world.make()
    assert (status, answer["message"]) == (
        403,
        "configmaps \"a\" is forbidden: expression 'object.nope == 1' resulted in error: no such key: nope",
    )


async def test_a_condition_that_fails_is_ignored_when_the_policy_says_so(world):
    await _hooked(world, "object.nope == 1", failurePolicy="Ignore")
    assert (await world.make())[0] == 201


async def test_wrong_conditions_are_refused(world):
    body = hook(matchConditions=[{"name": "c", "expression": "nope"}])
    status, answer = await world.api.call("POST", f"{GROUP}/validatingwebhookconfigurations", body)
    assert status == 422
    assert "undeclared reference to 'nope'" in answer["message"]
