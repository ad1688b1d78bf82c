import base64
import copy

import orjson
import pytest

from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.client.messages import User
from sampan.server.admission import Admission, Attrs, Context
from sampan.server.auth.authorize import Authorizer
from sampan.server.egress.callout import CalloutError

BOB = User("bob", ("system:authenticated",), "1")
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}


class Hooks:
    """Stands where the network is: answers by webhook URL, and keeps what it was sent."""

    def __init__(self, facts):
        self.facts = facts
        self.answers = {}
        self.sent = []
        self.versions = []
        context = Context(facts.lookup, facts.clock, facts.ids, Authorizer(facts.lookup), BUILTIN, self.call)
        self.admission = Admission(context)

    async def call(self, config, review, seconds):
        self.sent.append(copy.deepcopy(review["request"]))
        self.versions.append(review["apiVersion"])
        answer = self.answers.get(config["url"], {"allowed": True})
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(review["request"])
        response = {"uid": review["request"]["uid"], **answer}
        return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}

    def add(self, name="w.test", kind="Validating", answer=None, rule=None, **more):
        self.answers[f"https://{name}"] = answer or {"allowed": True}
        hook = {
            "name": name,
            "clientConfig": {"url": f"https://{name}"},
            "rules": [rule or RULE],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "timeoutSeconds": 2,
            **more,
        }
        self.facts.make(f"{kind}WebhookConfiguration", f"c-{name}", webhooks=[hook])

    async def submit(
        self, op="CREATE", resource="configmaps", labels=None, old=None, subresource="", dry_run=False
    ):
        obj = {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {"name": "a", "namespace": "x", "labels": labels or {}},
        }
        obj = None if op == "DELETE" else obj
        attrs = Attrs(op, BUILTIN.get(resource), subresource, "x", "a", obj, old, BOB, dry_run)
        await self.admission.mutate(attrs)
        await self.admission.judge(attrs)
        return obj, attrs


@pytest.fixture
def hooks(facts):
    facts.make("Namespace", "x", labels={"zone": "z"})
    return Hooks(facts)


def patch(*steps):
    return {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(orjson.dumps(steps)).decode(),
    }


async def test_a_webhook_sees_the_request(hooks):
    hooks.add()
    await hooks.submit()
    [sent] = hooks.sent
    assert sent["object"]["metadata"]["name"] == "a"
    assert sent["userInfo"] == {"username": "bob", "uid": "1", "groups": ["system:authenticated"]}
    assert (sent["operation"], sent["name"], sent["namespace"], sent["dryRun"]) == ("CREATE", "a", "x", False)
    assert sent["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert sent["options"] == {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        ({"allowed": False}, 400, 'admission webhook "w.test" denied the request without explanation'),
        (
            {"allowed": False, "status": {"code": 403, "message": "no"}},
            403,
            'admission webhook "w.test" denied the request: no',
        ),
        (
            CalloutError('Post "https://w.test?timeout=2s": context deadline exceeded'),
            500,
            'Internal error occurred: failed calling webhook "w.test": failed to call webhook: Post '
            '"https://w.test?timeout=2s": context deadline exceeded',
        ),
    ],
)
@pytest.mark.parametrize("kind", ["Validating", "Mutating"])
async def test_refusals_and_failures(hooks, kind, answer, code, text):
    hooks.add(kind=kind, answer=answer)
    with pytest.raises(ApiError) as caught:
        await hooks.submit()
    assert (caught.value.code, caught.value.message) == (code, text)


async def test_failures_may_be_ignored(hooks):
    hooks.add(answer=CalloutError("down"), failurePolicy="Ignore")
    await hooks.submit()


async def test_mutation_warnings_and_order(hooks):
    hooks.add("b.test", "Mutating", patch({"op": "replace", "path": "/data/k", "value": "b"}))
    hooks.add(
        "a.test",
        "Mutating",
        {**patch({"op": "add", "path": "/data", "value": {"k": "a"}}), "warnings": ["careful"]},
    )
    obj, attrs = await hooks.submit()
    assert obj["data"] == {"k": "b"}
    assert attrs.warnings == ["careful"]


async def test_unknown_fields_that_a_patch_adds_are_dropped(hooks):
    hooks.add(kind="Mutating", answer=patch({"op": "add", "path": "/nope", "value": {"k": "v"}}))
    obj, _ = await hooks.submit()
    assert "nope" not in obj


@pytest.mark.parametrize(
    ("versions", "spoken"), [(["v1", "v1beta1"], "v1"), (["v2", "v1beta1", "v1"], "v1beta1"), (None, "v1")]
)
async def test_reviews_are_in_the_first_version_that_both_know(hooks, versions, spoken):
    more = {"admissionReviewVersions": versions} if versions else {}
    hooks.add(kind="Mutating", **more)
    await hooks.submit()
    assert hooks.versions == [f"admission.k8s.io/{spoken}"]


async def test_an_old_review_may_be_answered_without_uid_and_patch_type(hooks):
    answer = {**patch({"op": "add", "path": "/data", "value": {"k": "v"}}), "uid": "", "patchType": None}
    hooks.add(kind="Mutating", answer=answer, admissionReviewVersions=["v1beta1"])
    obj, _ = await hooks.submit()
    assert obj["data"] == {"k": "v"}


async def test_reinvocation_after_a_later_change(hooks):
    count = {"op": "add", "path": "/metadata/labels/seen", "value": "yes"}
    hooks.add("a.test", "Mutating", patch(count), reinvocationPolicy="IfNeeded")
    hooks.add("b.test", "Mutating", patch({"op": "add", "path": "/data", "value": {"k": "v"}}))
    await hooks.submit()
    assert [s["object"].get("data") for s in hooks.sent] == [None, None, {"k": "v"}]


@pytest.mark.parametrize(
    ("more", "submitted", "asked"),
    [
        ({"objectSelector": {"matchLabels": {"only": "me"}}}, {}, False),
        ({"objectSelector": {"matchLabels": {"only": "me"}}}, {"labels": {"only": "me"}}, True),
        (
            {"objectSelector": {"matchLabels": {"only": "me"}}, "rule": {**RULE, "operations": ["DELETE"]}},
            {"op": "DELETE", "old": {"metadata": {"labels": {"only": "me"}}}},
            True,
        ),
        ({"namespaceSelector": {"matchLabels": {"zone": "z"}}}, {}, True),
        ({"namespaceSelector": {"matchLabels": {"zone": "other"}}}, {}, False),
        ({}, {"op": "UPDATE"}, False),
        ({"rule": {**RULE, "operations": ["*"], "resources": ["*"]}}, {"op": "UPDATE"}, True),
        ({"rule": {**RULE, "resources": ["*"]}}, {"resource": "pods", "subresource": "eviction"}, False),
        ({"rule": {**RULE, "resources": ["*/*"]}}, {"resource": "pods", "subresource": "eviction"}, True),
        (
            {"rule": {**RULE, "resources": ["pods/eviction"]}},
            {"resource": "pods", "subresource": "eviction"},
            True,
        ),
        ({"rule": {**RULE, "scope": "Cluster"}}, {}, False),
    ],
)
async def test_what_a_webhook_is_asked_about(hooks, more, submitted, asked):
    hooks.add(**more)
    await hooks.submit(**submitted)
    assert bool(hooks.sent) is asked


async def test_side_effects_refuse_a_dry_run_before_the_call(hooks):
    hooks.add(sideEffects="Some")
    with pytest.raises(ApiError, match="does not support dry run"):
        await hooks.submit(dry_run=True)
    assert hooks.sent == []


async def test_a_removed_webhook_is_asked_no_more(hooks):
    hooks.add(answer={"allowed": False})
    hooks.facts.remove("ValidatingWebhookConfiguration", "c-w.test")
    await hooks.submit()
