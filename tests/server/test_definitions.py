"""Custom resources: served as soon as they are defined, and gone with their definition."""

from __future__ import annotations

import asyncio
import copy

import pytest

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/x.io/v1/namespaces/d/widgets"
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
DEFINITION = {
    "metadata": {"name": "widgets.x.io"},
    "spec": {
        "group": "x.io",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": SCHEMA},
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                },
                "selectableFields": [{"jsonPath": ".spec.color"}],
            },
            {"name": "v1beta1", "served": True, "storage": False, "schema": {"openAPIV3Schema": SCHEMA}},
        ],
    },
}


def widget(name="w", **spec):
    return {"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
async def defined(ready):
    await ready.ok("POST", CRDS, DEFINITION)
    return ready


def _conditions(crd):
    return {c["type"]: c["status"] for c in crd["status"]["conditions"]}


async def test_a_definition_is_established_at_once(defined):
    crd = await defined.ok("GET", f"{CRDS}/widgets.x.io")
    assert _conditions(crd) == {"NamesAccepted": "True", "Established": "True"}
    assert crd["status"]["acceptedNames"]["listKind"] == "WidgetList"
    assert crd["status"]["storedVersions"] == ["v1"]
    found = await defined.ok("GET", "/apis/x.io/v1")
    assert [r["name"] for r in found["resources"]] == ["widgets", "widgets/scale", "widgets/status"]


async def test_objects_are_pruned_defaulted_and_checked(defined):
    made = await defined.ok("POST", WIDGETS, widget(size=1, odd=2))
    assert made["spec"] == {"size": 1, "color": "red"}
    assert made["metadata"]["generation"] == 1
    status, answer = await defined.call("POST", WIDGETS, widget("v", size=0, color="green"))
    assert status == 422
    assert [(c["field"], c["message"]) for c in answer["details"]["causes"]] == [
        ("spec.color", 'Unsupported value: "green": supported values: "red", "blue"'),
        ("spec.size", "Invalid value: 0: spec.size in body should be greater than or equal to 1"),
    ]


async def test_versions_scale_and_selectable_fields(defined):
    await defined.ok("POST", WIDGETS, widget(size=3))
    other = await defined.ok("GET", "/apis/x.io/v1beta1/namespaces/d/widgets/w")
    assert other["apiVersion"] == "x.io/v1beta1"
    assert (await defined.ok("GET", f"{WIDGETS}/w/scale"))["spec"] == {"replicas": 3}
    await defined.merge(f"{WIDGETS}/w/scale", {"spec": {"replicas": 4}})
    assert (await defined.ok("GET", f"{WIDGETS}/w"))["spec"]["size"] == 4
    for color, count in (("red", 1), ("blue", 0)):
        listed = await defined.ok("GET", f"{WIDGETS}?fieldSelector=spec.color%3D{color}")
        assert len(listed["items"]) == count


@pytest.mark.parametrize(("method", "path"), [("POST", WIDGETS), ("PUT", f"{WIDGETS}/w")])
async def test_protobuf_of_a_kind_without_field_numbers_is_refused(defined, method, path):
    await defined.ok("POST", WIDGETS, widget(size=1))
    headers = {"content-type": "application/vnd.kubernetes.protobuf"}
    status, answer = await defined.call(method, path, b"k8s\0", headers=headers)
    assert status == 415
    assert answer["message"].endswith("accepted media types include: application/json, application/yaml")


async def test_a_deprecated_version_says_so(ready):
    definition = copy.deepcopy(DEFINITION)
    definition["spec"]["versions"][1]["deprecated"] = True
    await ready.ok("POST", CRDS, definition)
    old = await ready.response("GET", WIDGETS.replace("/v1/", "/v1beta1/"))
    assert old.headers["warning"] == '299 - "x.io/v1beta1 Widget is deprecated"'
    assert "warning" not in (await ready.response("GET", WIDGETS)).headers


async def test_a_finalizer_without_a_domain_is_taken_with_a_warning(defined):
    body = widget(size=1)
    body["metadata"]["finalizers"] = ["x.io/named", "unnamed"]
    made = await defined.response("POST", WIDGETS, body)
    assert made.status == 201
    assert made.headers["warning"] == (
        '299 - "metadata.finalizers: \\"unnamed\\": prefer a domain-qualified finalizer name including a path (/) '
        'to avoid accidental conflicts with other finalizer writers"'
    )
    again = await defined.response(
        "PATCH",
        f"{WIDGETS}/w",
        {"metadata": {"labels": {"a": "b"}}},
        headers={"content-type": "application/merge-patch+json"},
    )
    assert "warning" not in again.headers


async def test_a_status_without_a_subresource_is_owned_like_any_field(ready):
    definition = copy.deepcopy(DEFINITION)
    for version in definition["spec"]["versions"]:
        version.pop("subresources", None)
    await ready.ok("POST", CRDS, definition)
    body = widget(size=1) | {"status": {"ok": True}}
    now = await ready.ok(
        "PATCH",
        f"{WIDGETS}/w?fieldManager=me",
        body,
        headers={"content-type": "application/apply-patch+yaml"},
    )
    assert "f:status" in now["metadata"]["managedFields"][0]["fieldsV1"]


async def test_a_status_write_changes_only_status(defined):
    await defined.ok("POST", WIDGETS, widget(size=1))
    _, now = await defined.merge(f"{WIDGETS}/w/status", {"spec": {"size": 9}, "status": {"ok": True}})
    assert (now["spec"]["size"], now["status"], now["metadata"]["generation"]) == (1, {"ok": True}, 1)


async def test_a_default_added_later_shows_on_older_objects(defined):
    await defined.ok("POST", WIDGETS, widget(size=1))
    changed = copy.deepcopy(await defined.ok("GET", f"{CRDS}/widgets.x.io"))
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][
        "shape"
    ] = {
        "type": "string",
        "default": "round",
    }
    await defined.ok("PUT", f"{CRDS}/widgets.x.io", changed)
    assert (await defined.ok("GET", f"{WIDGETS}/w"))["spec"]["shape"] == "round"
    assert (await defined.ok("GET", WIDGETS))["items"][0]["spec"]["shape"] == "round"


async def test_a_new_object_has_the_status_its_schema_gives_and_not_its_senders(ready):
    waiting = {"phase": "Waiting", "since": {"default": 0}}
    definition = copy.deepcopy(DEFINITION)
    status = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    status.update(
        default={"phase": "Waiting"}, properties={"since": {"type": "object", "default": {"default": 0}}}
    )
    status["properties"]["since"]["x-kubernetes-preserve-unknown-fields"] = True
    await ready.ok("POST", CRDS, definition)
    made = await ready.ok("POST", WIDGETS, {**widget(size=1), "status": {"phase": "Done"}})
    assert made["status"] == waiting == (await ready.ok("GET", f"{WIDGETS}/w"))["status"]
    assert "f:status" not in made["metadata"]["managedFields"][0]["fieldsV1"]


async def test_names_in_use_are_not_accepted_until_they_are_free(defined):
    rival = copy.deepcopy(DEFINITION)
    rival["metadata"]["name"] = "gadgets.x.io"
    rival["spec"]["names"] = {"plural": "gadgets", "kind": "Widget"}
    made = await defined.ok("POST", CRDS, rival)
    assert _conditions(made) == {"NamesAccepted": "False", "Established": "False"}
    assert made["status"]["conditions"][0]["reason"] == "ListKindConflict"
    assert (await defined.call("GET", "/apis/x.io/v1/namespaces/d/gadgets"))[0] == 404
    await defined.ok("DELETE", f"{CRDS}/widgets.x.io")
    await defined.clock.settle()
    assert (await defined.call("GET", "/apis/x.io/v1/namespaces/d/gadgets"))[0] == 200


async def test_instances_go_with_their_definition(defined):
    await defined.ok("POST", WIDGETS, widget("free", size=1))
    held = widget("held", size=1)
    held["metadata"]["finalizers"] = ["x.io/hold"]
    await defined.ok("POST", WIDGETS, held)
    await defined.ok("DELETE", f"{CRDS}/widgets.x.io")
    await defined.clock.settle()
    assert [i["metadata"]["name"] for i in (await defined.ok("GET", WIDGETS))["items"]] == ["held"]
    await defined.merge(f"{WIDGETS}/held", {"metadata": {"finalizers": None}})
    await defined.clock.settle()
    assert (await defined.call("GET", f"{CRDS}/widgets.x.io"))[0] == 404
    assert (await defined.call("GET", WIDGETS)) == (404, "404 page not found\n")


async def test_definitions_are_served_again_after_a_restart(defined):
    from sampan.api.resources import BUILTIN
    from sampan.server.app import Server

    first = defined.server
    second = Server(first.store, BUILTIN.copy(), clock=first.clock, ids=first.ids)
    assert second.registry.find("x.io", "v1", "widgets") is not None


async def test_watches_end_with_their_definition(defined):
    body = (await defined.response("GET", f"{WIDGETS}?watch=1")).body
    waiting = asyncio.ensure_future(anext(body, "ended"))
    await defined.clock.settle()
    await defined.ok("DELETE", f"{CRDS}/widgets.x.io")
    await defined.clock.settle()
    assert waiting.result() == "ended"


RULED = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "min": {"type": "integer"},
                "max": {"type": "integer"},
                "title": {"type": "string"},
            },
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min must not pass max"},
                {"rule": "self.title == oldSelf.title", "message": "title is fixed", "fieldPath": ".title"},
            ],
        }
    },
}


def _ruled(schema):
    crd = copy.deepcopy(DEFINITION)
    crd["spec"]["versions"] = [
        {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    ]
    return crd


async def test_rules_of_a_schema_are_held(ready):
    await ready.ok("POST", CRDS, _ruled(RULED))
    status, answer = await ready.call("POST", WIDGETS, widget(min=3, max=2, title="n"))
    assert status == 422
    assert answer["message"] == 'Widget.x.io "w" is invalid: spec: Invalid value: min must not pass max'
    await ready.ok("POST", WIDGETS, widget(min=1, max=2, title="n"))
    status, answer = await ready.merge(f"{WIDGETS}/w", {"spec": {"title": "m"}})
    assert [(c["field"], c["message"]) for c in answer["details"]["causes"]] == [
        ("spec.title", "Invalid value: title is fixed")
    ]
    status, answer = await ready.call("POST", WIDGETS, widget("v", min="x", max=2, title="n"))
    assert answer["details"]["causes"][-1]["message"].startswith(
        'Invalid value: "null": some validation rules were not checked because the object was invalid'
    )


async def test_a_definition_with_a_wrong_rule_is_refused(ready):
    broken = copy.deepcopy(RULED)
    broken["properties"]["spec"]["x-kubernetes-validations"][0]["rule"] = "self.nope > 1"
    status, answer = await ready.call("POST", CRDS, _ruled(broken))
    assert status == 422
    [cause] = answer["details"]["causes"]
    assert cause["field"] == (
        "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule"
    )
    assert "undefined field 'nope'" in cause["message"]


async def test_a_stricter_schema_bears_what_did_not_change(ready):
    made = await ready.ok("POST", CRDS, _ruled(RULED))
    await ready.ok("POST", WIDGETS, widget(min=1, max=2, title="n"))
    crd = await ready.ok("GET", f"{CRDS}/widgets.x.io")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["min"]["minimum"] = 5
    schema["x-kubernetes-validations"].append({"rule": "self.max > 10"})
    await ready.ok("PUT", f"{CRDS}/{made['metadata']['name']}", crd)
    assert (await ready.merge(f"{WIDGETS}/w", {"metadata": {"labels": {"a": "b"}}}))[0] == 200
    status, answer = await ready.merge(f"{WIDGETS}/w", {"spec": {"max": 3}})
    assert [c["message"] for c in answer["details"]["causes"]] == [
        "Invalid value: failed rule: self.max > 10"
    ]
    assert (await ready.merge(f"{WIDGETS}/w", {"spec": {"min": 2, "max": 20}}))[0] == 422
