"""managedFields after writes that are no applies: who owns what, and since when."""

from __future__ import annotations

from typing import Any

from sampan.api import managed, schema
from sampan.base.objects import Object

NODE = schema.root("", "v1", "ConfigMap")
POD = schema.root("", "v1", "Pod")


def configmap(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "uid": "u"}, "data": data}


def write(old: Object | None, new: Object, manager: str, at: int = 0, subresource: str = "") -> Object:
    now = f"2026-01-01T00:00:{at:02}Z"
    node = POD if new["kind"] == "Pod" else NODE
    managed.update(
        old, new, node, manager=manager, subresource=subresource, now=now, api_version=new["apiVersion"]
    )
    return new


def fields(obj: Object) -> dict[str, Any]:
    return {e["manager"]: e["fieldsV1"] for e in obj["metadata"].get("managedFields", ())}


def test_the_creator_owns_what_was_sent_but_not_what_the_server_sets() -> None:
    made = write(None, configmap(a="1"), "kubectl")
    assert made["metadata"]["managedFields"] == [
        {
            "manager": "kubectl",
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {".": {}, "f:a": {}}},
        }
    ]


def test_a_change_moves_a_field_and_only_then_the_time() -> None:
    first = write(None, configmap(a="1", b="1"), "one", 0)
    second = write(first, configmap(a="2", b="1"), "two", 5)
    assert fields(second) == {"one": {"f:data": {".": {}, "f:b": {}}}, "two": {"f:data": {"f:a": {}}}}
    again = write(second, configmap(a="2", b="1"), "three", 9)
    assert again["metadata"]["managedFields"] == second["metadata"]["managedFields"]


def test_a_removed_field_has_no_owner() -> None:
    first = write(None, configmap(a="1", b="1"), "one")
    second = write(first, configmap(b="1"), "two", 5)
    assert fields(second) == {"one": {"f:data": {".": {}, "f:b": {}}}}


def test_a_subresource_has_an_entry_of_its_own() -> None:
    pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n"}}
    first = write(None, dict(pod, metadata={"name": "p"}), "kubelet")
    second = write(
        first, dict(pod, metadata={"name": "p"}, status={"phase": "Running"}), "kubelet", 1, "status"
    )
    entries = second["metadata"]["managedFields"]
    assert [(e["manager"], e.get("subresource", "")) for e in entries] == [
        ("kubelet", ""),
        ("kubelet", "status"),
    ]
    assert entries[1]["fieldsV1"] == {"f:status": {"f:phase": {}}}


def test_entries_that_were_cleared_stay_away() -> None:
    first = write(None, configmap(a="1"), "one")
    cleared = configmap(a="1")
    cleared["metadata"]["managedFields"] = [{}]
    second = write(first, cleared, "two")
    assert fields(second) == {}
    assert fields(write(second, configmap(a="2"), "three")) == {}


def test_many_updaters_become_ancient() -> None:
    obj = write(None, configmap(k0="x"), "m00", 0)
    for number in range(1, 12):
        data = {f"k{i}": "x" for i in range(number + 1)}
        obj = write(obj, configmap(**data), f"m{number:02}", number)
    names = [e["manager"] for e in obj["metadata"]["managedFields"]]
    assert len(names) == managed.MAX_UPDATERS
    assert managed.ANCIENT in names
    assert "m00" not in names and "m01" not in names
