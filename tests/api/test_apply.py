"""Ownership as users of `kubectl apply --server-side` meet it."""

import pytest

from sampan.api import managed, schema
from sampan.api.apply import apply
from sampan.api.copying import copied
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


def test_a_container_goes_with_what_others_wrote_into_it():
    live = put(None, template({"name": "a", "image": "i"}), node=POD)
    new = copied(live)
    new["template"]["spec"]["containers"][0]["workingDir"] = "/there"
    live = write(live, new, node=POD)
    now = put(live, template({"name": "b", "image": "i"}), node=POD)
    assert now["template"]["spec"]["containers"] == [{"name": "b", "image": "i"}]


TWICE = [{"name": "A", "value": "1"}, {"name": "P", "value": "x"}, {"name": "P", "value": "y"}]


def _env(obj):
    owned = {}
    for (manager, _), fields in entries(obj).items():
        [container] = fields.get("f:template", {}).get("f:spec", {}).get("f:containers", {"": {}}).values()
        owned[manager] = set(container.get("f:env", {})) - {"."}
    return owned, [(e["name"], e["value"]) for e in obj["template"]["spec"]["containers"][0]["env"]]


def test_a_variable_that_is_there_twice_is_owned_as_a_whole():
    live = write(None, template({"name": "a", "image": "i", "env": TWICE}), node=POD)
    [container] = entries(live)["writer", "Update"]["f:template"]["f:spec"]["f:containers"].values()
    assert container["f:env"] == {
        ".": {},
        'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}},
        'k:{"name":"P"}': {},
    }
    live = put(live, template({"name": "a", "image": "i", "env": [{"name": "H", "value": "h"}]}), node=POD)
    assert sorted(_env(live)[1]) == [("A", "1"), ("H", "h"), ("P", "x"), ("P", "y")]
    new = copied(live)
    [*_, last] = (e for e in new["template"]["spec"]["containers"][0]["env"] if e["name"] == "P")
    last["value"] = "z"
    live = write(live, new, manager="other", node=POD)
    assert _env(live)[0] == {
        "alpha": {'k:{"name":"H"}'},
        "writer": {'k:{"name":"A"}'},
        "other": {'k:{"name":"P"}'},
    }
    wish = template({"name": "a", "image": "i", "env": [{"name": "P", "value": "1"}]})
    with pytest.raises(ApiError, match='conflict with "other" using v1: .*env.name="P"'):
        put(live, wish, node=POD)
    now = put(live, wish, force=True, node=POD)
    assert _env(now) == (
        {"alpha": {'k:{"name":"P"}'}, "writer": {'k:{"name":"A"}'}},
        [("A", "1"), ("P", "1")],
    )


def test_of_two_entries_of_one_manager_the_later_counts():
    live = put(put(None, configmap(a="1")), configmap(b="2"), "beta")
    for entry in live["metadata"]["managedFields"]:
        entry["manager"] = "both"
    assert entries(write(live, live)) == {("both", "Apply"): {"f:data": {"f:b": {}}}}


def test_an_applier_is_the_same_one_in_another_version():
    live = put(None, configmap(a="1", b="2"))
    for entry in live["metadata"]["managedFields"]:
        entry["apiVersion"] = "v0"
    now = put(live, configmap(a="1"))
    assert now["data"] == {"a": "1"}
    assert [(e["manager"], e["apiVersion"]) for e in now["metadata"]["managedFields"]] == [("alpha", "v1")]
