"""Ownership as users of `kubectl apply --server-side` meet it."""

import pytest

from sampan.api import managed, schema
from sampan.api.apply import apply
from sampan.api.status import ApiError

CONFIGMAP = schema.root("", "v1", "ConfigMap")
POD = schema.root("", "v1", "PodTemplate")
NOW = "2026-01-01T00:00:00Z"


def configmap(**data):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ns"}}
    return body | ({"data": data} if data else {})


def template(*containers):
    body = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "t", "namespace": "ns"}}
    return body | {"template": {"spec": {"containers": list(containers)}}}


def put(live, wish, manager="alpha", force=False, node=CONFIGMAP):
    return apply(live, wish, node, manager=manager, force=force, subresource="", now=NOW, api_version="v1")


def write(old, new, manager="writer", node=CONFIGMAP):
    managed.update(old, new, node, manager=manager, subresource="", now=NOW, api_version="v1")
    return new


def entries(obj):
    return {(e["manager"], e["operation"]): e["fieldsV1"] for e in obj["metadata"].get("managedFields", [])}


def test_an_applier_owns_what_it_named():
    live = put(None, configmap(a="1"))
    assert live["data"] == {"a": "1"}
    assert entries(live) == {("alpha", "Apply"): {"f:data": {"f:a": {}}}}


def test_the_same_apply_again_changes_nothing():
    live = put(None, configmap(a="1"))
    assert put(live, configmap(a="1")) == live


def test_a_key_left_out_goes_away():
    live = put(put(None, configmap(a="1", b="2")), configmap(a="1"))
    assert live["data"] == {"a": "1"}


def test_leaving_out_the_whole_map_removes_it():
    assert "data" not in put(put(None, configmap(a="1")), configmap())


def test_two_managers_own_two_keys():
    live = put(put(None, configmap(a="1")), configmap(b="2"), "beta")
    assert live["data"] == {"a": "1", "b": "2"}
    assert put(live, configmap())["data"] == {"b": "2"}


def test_a_value_owned_by_another_is_a_conflict_unless_forced():
    live = put(None, configmap(a="1"))
    with pytest.raises(ApiError) as refused:
        put(live, configmap(a="2"), "beta")
    assert refused.value.code == 409
    assert refused.value.message == 'Apply failed with 1 conflict: conflict with "alpha": .data.a'
    assert refused.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "alpha"', "field": ".data.a"}
    ]
    forced = put(live, configmap(a="2"), "beta", force=True)
    assert entries(forced) == {("beta", "Apply"): {"f:data": {"f:a": {}}}}


def test_an_updater_takes_what_it_changes_and_no_more():
    live = put(None, configmap(a="1", b="2"))
    changed = write(live, {**configmap(a="9", b="2"), "metadata": dict(live["metadata"])})
    assert entries(changed) == {
        ("alpha", "Apply"): {"f:data": {"f:b": {}}},
        ("writer", "Update"): {"f:data": {"f:a": {}}},
    }


def test_a_creator_owns_maps_with_a_dot():
    assert entries(write(None, configmap(a="1"))) == {("writer", "Update"): {"f:data": {".": {}, "f:a": {}}}}


def test_an_object_without_entries_belongs_to_before_first_apply():
    with pytest.raises(ApiError, match='before-first-apply" using v1'):
        put(configmap(a="1"), configmap(a="2"))


def test_a_container_is_an_element_of_its_own():
    live = put(None, template({"name": "a", "image": "i"}), node=POD)
    assert entries(live)["alpha", "Apply"] == {
        "f:template": {"f:spec": {"f:containers": {'k:{"name":"a"}': {".": {}, "f:image": {}, "f:name": {}}}}}
    }
    live["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Always"  # a default, unowned
    live = put(live, template({"name": "b", "image": "i"}), "beta", node=POD)
    live = put(live, template(), node=POD)
    assert [c["name"] for c in live["template"]["spec"]["containers"]] == ["b"]


def test_a_container_another_manager_shares_stays():
    live = put(None, template({"name": "a", "image": "i", "tty": True}), node=POD)
    live = put(live, template({"name": "a", "image": "i"}), "beta", node=POD)
    live = put(live, template(), node=POD)
    assert live["template"]["spec"]["containers"] == [{"name": "a", "image": "i"}]


@pytest.mark.parametrize(
    ("container", "message"),
    [
        (
            {"name": "a", "wonder": 1},
            '.template.spec.containers[name="a"].wonder: field not declared in schema',
        ),
        (
            {"name": "a", "env": [{"name": "A"}, {"name": "A"}]},
            '.template.spec.containers[name="a"].env: duplicate entries for key [name="A"]',
        ),
    ],
)
def test_what_the_schema_does_not_allow(container, message):
    with pytest.raises(ApiError) as refused:
        put(None, template(container), node=POD)
    assert refused.value.code == 500 and refused.value.message.endswith(message)


def test_the_eleventh_updater_makes_the_oldest_ancient():
    live = write(None, configmap(a="0"), "w0")
    for i in range(1, 12):
        new = {
            **configmap(a="0", **{f"k{j}": "x" for j in range(1, i + 1)}),
            "metadata": dict(live["metadata"]),
        }
        managed.update(
            live,
            new,
            CONFIGMAP,
            manager=f"w{i}",
            subresource="",
            now=f"2026-01-01T00:00:{i:02}Z",
            api_version="v1",
        )
        live = new
    names = {manager for manager, _ in entries(live)}
    assert managed.ANCIENT in names and len(names) == managed.MAX_UPDATERS


def test_losing_a_map_does_not_take_what_is_still_owned_in_it():
    """After kubectl's migration from client-side apply its entry owns the map itself, too."""
    live = put(put(None, configmap(a="1")), configmap(b="2"), manager="beta")
    for entry in live["metadata"]["managedFields"]:
        if entry["manager"] == "alpha":
            entry["fieldsV1"]["f:data"]["."] = {}
    now = put(live, configmap(a="1"))
    assert now["data"] == {"a": "1", "b": "2"}
    assert entries(now)[("beta", "Apply")] == {"f:data": {"f:b": {}}}
