"""Custom resources in several versions, converted by a webhook."""

from __future__ import annotations

import asyncio
import copy

import orjson
import pytest

from sampan.client.client import read_body
from sampan.server.egress.callout import CalloutError

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
V1 = "/apis/x.io/v1/namespaces/d/widgets"
V2 = "/apis/x.io/v2/namespaces/d/widgets"


def _version(name, field, storage, **more):
    spec = {
        "type": "object",
        "properties": {
            field: {"type": "string"},
            "kept": {"type": "string"},
            "n": {"type": "integer", "default": 1},
        },
    }
    schema = {"type": "object", "properties": {"spec": spec, "status": {"type": "object", "properties": {}}}}
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"},
        },
        **more,
    }


DEFINITION = {
    "metadata": {"name": "widgets.x.io"},
    "spec": {
        "group": "x.io",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [_version("v1", "color", True), _version("v2", "colour", False)],
        "conversion": {
            "strategy": "Webhook",
            "webhook": {
                "clientConfig": {"url": "https://convert.example.com/"},
                "conversionReviewVersions": ["v1"],
            },
        },
    },
}


class Webhook:
    """Renames spec.color (v1) to spec.colour (v2) and back."""

    def __init__(self):
        self.calls = 0
        self.answer = None
        self.fails = False

    async def __call__(self, config, review, seconds):
        self.calls += 1
        if self.fails:
            raise CalloutError('Post "https://convert.example.com/": EOF')
        request = review["request"]
        made = [self.converted(copy.deepcopy(o), request["desiredAPIVersion"]) for o in request["objects"]]
        response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": made}
        return {"kind": "ConversionReview", "response": {**response, **(self.answer or {})}}

    @staticmethod
    def converted(obj, version):
        obj["apiVersion"] = version
        old, new = ("color", "colour") if version.endswith("v2") else ("colour", "color")
        if old in obj.get("spec", {}):
            obj["spec"][new] = obj["spec"].pop(old)
        obj["metadata"]["generation"] = 99  # may not be changed by a conversion
        return obj


def widget(version="v1", name="w", **spec):
    return {"apiVersion": f"x.io/{version}", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
async def hook(ready):
    ready.server.conversions.post = made = Webhook()
    await ready.ok("POST", CRDS, DEFINITION)
    return made


async def test_each_version_reads_its_own_form(ready, hook):
    await ready.ok("POST", V1, widget(color="red"))
    assert hook.calls == 0
    got = await ready.ok("GET", f"{V2}/w")
    assert (got["apiVersion"], got["spec"]) == ("x.io/v2", {"colour": "red", "n": 1})
    assert got["metadata"]["generation"] == 1
    assert (await ready.ok("GET", f"{V1}/w"))["spec"]["color"] == "red"
    await ready.ok("GET", f"{V2}/w")
    assert hook.calls == 1


async def test_writes_in_another_version_are_stored_in_the_storage_version(ready, hook):
    made = await ready.ok("POST", V2, widget("v2", colour="red"))
    assert made["spec"]["colour"] == "red"
    assert made["metadata"]["resourceVersion"] != ""
    stored = orjson.loads(ready.server.store.get("widgets.x.io", "d/w").value)
    assert (stored["apiVersion"], stored["spec"]["color"]) == ("x.io/v1", "red")
    _, patched = await ready.merge(f"{V2}/w", {"spec": {"colour": "blue"}})
    assert (patched["apiVersion"], patched["spec"]["colour"]) == ("x.io/v2", "blue")
    patched["spec"]["kept"] = "yes"
    again = await ready.ok("PUT", f"{V2}/w", patched)
    assert again["metadata"]["generation"] == 3
    assert (await ready.ok("GET", f"{V1}/w"))["spec"] == {"color": "blue", "n": 1, "kept": "yes"}
    same = await ready.ok("PUT", f"{V2}/w", again)
    assert same["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


async def test_lists_are_converted_in_one_review(ready, hook):
    for name in "abc":
        await ready.ok("POST", V1, widget(name=name, color=name))
    listed = await ready.ok("GET", V2)
    assert [i["spec"]["colour"] for i in listed["items"]] == ["a", "b", "c"]
    assert hook.calls == 1
    tables = {"accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    assert len((await ready.ok("GET", V2, headers=tables))["rows"]) == 3


async def test_watches_are_converted(ready, hook):
    await ready.ok("POST", V1, widget(name="a", color="red"))
    body = (await ready.response("GET", f"{V2}?watch=1")).body
    first = orjson.loads((await anext(body)).splitlines()[0])
    assert (first["type"], first["object"]["spec"]["colour"]) == ("ADDED", "red")
    waiting = asyncio.ensure_future(anext(body))
    await ready.clock.settle()
    await ready.merge(f"{V1}/a", {"spec": {"color": "blue"}})
    event = orjson.loads(await waiting)
    assert (event["type"], event["object"]["spec"]["colour"]) == ("MODIFIED", "blue")
    await body.aclose()


async def test_status_scale_apply_and_deletion_in_another_version(ready, hook):
    await ready.ok("POST", V1, widget(color="red"))
    assert (await ready.ok("GET", f"{V2}/w/scale"))["spec"] == {"replicas": 1}
    assert (await ready.merge(f"{V2}/w/scale", {"spec": {"replicas": 3}}))[1]["spec"] == {"replicas": 3}
    assert (await ready.ok("GET", f"{V2}/w/status"))["spec"]["colour"] == "red"
    headers = {"content-type": "application/apply-patch+yaml"}
    body = widget("v2", colour="green")
    applied = await ready.ok("PATCH", f"{V2}/w?fieldManager=me&force=true", body, headers=headers)
    assert applied["spec"]["colour"] == "green"
    await ready.merge(f"{V1}/w", {"metadata": {"finalizers": ["x.io/hold"]}})
    held = await ready.ok("DELETE", f"{V2}/w")
    assert (held["apiVersion"], held["spec"]["colour"]) == ("x.io/v2", "green")
    await ready.merge(f"{V2}/w", {"metadata": {"finalizers": None}})
    assert (await ready.call("GET", f"{V1}/w"))[0] == 404


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            {"result": {"status": "Failure", "message": "no"}},
            "conversion webhook for x.io/v1, Kind=Widget failed: no",
        ),
        (
            {"convertedObjects": []},
            "conversion webhook for x.io/v1, Kind=Widget returned 0 objects, expected 1",
        ),
        (
            {"convertedObjects": [widget("v1")]},
            "conversion webhook for x.io/v1, Kind=Widget returned invalid converted object at index 0: invalid "
            "groupVersion, expected=x.io/v2, Kind=Widget, got=x.io/v1, Kind=Widget",
        ),
        (
            {"convertedObjects": [widget("v2", "other")]},
            "conversion webhook for x.io/v1, Kind=Widget returned invalid metadata at index 0: must have the same "
            "name: w",
        ),
        (
            {"uid": "x"},
            "invalid response for conversion webhook for x.io/v1, Kind=Widget: expected response.uid=",
        ),
    ],
)
async def test_what_webhooks_do_wrong_is_told(ready, hook, answer, text):
    await ready.ok("POST", V1, widget(color="red"))
    hook.answer = answer
    status, got = await ready.call("GET", f"{V2}/w")
    assert status == 500
    assert got["message"].startswith(text)


async def test_a_webhook_that_is_down_hides_only_other_versions(ready, hook):
    await ready.ok("POST", V1, widget(color="red"))
    hook.fails = True
    status, got = await ready.call("GET", V2)
    assert (status, got["message"]) == (
        500,
        'conversion webhook for x.io/v1, Kind=Widget failed: Post "https://convert.example.com/": EOF',
    )
    response = await ready.response("GET", f"{V2}?watch=1")
    event = orjson.loads(await read_body(response))
    assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
    assert (await ready.call("POST", V2, widget("v2", "new")))[0] == 500
    assert (await ready.call("GET", f"{V1}/w"))[0] == 200
    await ready.ok("DELETE", f"{CRDS}/widgets.x.io")
    await ready.clock.settle()
    assert (await ready.call("GET", f"{CRDS}/widgets.x.io"))[0] == 404


async def test_a_new_storage_version_leaves_objects_as_they_are(ready, hook):
    await ready.ok("POST", V1, widget(color="red"))
    crd = await ready.ok("GET", f"{CRDS}/widgets.x.io")
    for version in crd["spec"]["versions"]:
        version["storage"] = version["name"] == "v2"
    changed = await ready.ok("PUT", f"{CRDS}/widgets.x.io", crd)
    assert changed["status"]["storedVersions"] == ["v1", "v2"]
    assert (await ready.ok("GET", f"{V1}/w"))["spec"]["color"] == "red"
    assert (await ready.ok("GET", f"{V2}/w"))["spec"]["colour"] == "red"
    await ready.merge(f"{V1}/w", {"spec": {"kept": "k"}})
    stored = orjson.loads(ready.server.store.get("widgets.x.io", "d/w").value)
    assert (stored["apiVersion"], stored["spec"]["colour"]) == ("x.io/v2", "red")


async def test_watches_begin_again_when_their_definition_changes(ready, hook):
    body = (await ready.response("GET", f"{V1}?watch=1")).body
    waiting = asyncio.ensure_future(anext(body, "ended"))
    await ready.clock.settle()
    crd = await ready.ok("GET", f"{CRDS}/widgets.x.io")
    await ready.merge(f"{CRDS}/widgets.x.io", {"metadata": {"labels": {"a": "b"}}})
    await ready.clock.settle()
    assert not waiting.done()
    crd["metadata"].pop("resourceVersion")
    _, now = await ready.merge(f"{CRDS}/widgets.x.io", {"spec": {"names": {"shortNames": ["wd"]}}})
    await ready.clock.settle()
    assert waiting.result() == "ended"
