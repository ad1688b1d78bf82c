from sampan.api import meta

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "ownerReferences": [{"uid": "x"}, {"uid": "y", "controller": True}]},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}  # fmt: skip


def test_metadata_is_read_also_where_it_is_missing():
    assert meta.key(POD) == "n/p"
    assert meta.split_key("n/p") == ("n", "p")
    assert meta.split_key("node-1") == ("", "node-1")
    assert meta.owner(POD)["uid"] == "y"
    assert meta.is_true(POD, "Ready")
    assert meta.labels({}) == {}


def test_a_condition_keeps_its_time_until_its_status_changes():
    first = meta.set_condition(None, {"type": "Ready", "status": "False"}, 0.0)
    same = meta.set_condition(first, {"type": "Ready", "status": "False", "reason": "New"}, 60.0)
    turned = meta.set_condition(same, {"type": "Ready", "status": "True"}, 60.0)
    assert same[0]["lastTransitionTime"] == "1970-01-01T00:00:00Z"
    assert same[0]["reason"] == "New"
    assert turned[0]["lastTransitionTime"] == "1970-01-01T00:01:00Z"
