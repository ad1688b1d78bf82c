"""Sets of fields behave as sets of paths do."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import fieldset, schema

PATHS = st.frozensets(
    st.lists(st.sampled_from(["f:a", "f:b", "k:{}"]), min_size=1, max_size=3).map(tuple), max_size=6
)
POD = schema.root("", "v1", "Pod")


def _trie(paths: Any) -> fieldset.Trie | None:
    """The canonical trie of a set of paths."""
    if not paths:
        return None
    below = {
        key: _trie({p[1:] for p in paths if p and p[0] == key}) for key in sorted({p[0] for p in paths if p})
    }
    return {".": {}, **below} if () in paths and below else below


@given(PATHS, PATHS)
def test_operations_are_those_of_sets(left: frozenset[Any], right: frozenset[Any]) -> None:
    first, second = _trie(left), _trie(right)
    before = orjson.dumps([first, second])
    for operation, wanted in (
        (fieldset.union, left | right),
        (fieldset.difference, left - right),
        (fieldset.intersection, left & right),
    ):
        found = operation(first, second)
        assert set(fieldset.members(found)) == wanted
        assert found == _trie(wanted)
    assert orjson.dumps([first, second]) == before


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("f:spec", "f:replicas"), ".spec.replicas"),
        (("f:a", 'k:{"port":53,"protocol":"TCP"}', "f:b"), '.a[port=53,protocol="TCP"].b'),
        (("f:metadata", "f:finalizers", 'v:"x"'), '.metadata.finalizers[="x"]'),
    ],
)
def test_paths_as_messages_show_them(path: tuple[str, ...], text: str) -> None:
    assert fieldset.show(path) == text


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ({"spec": {"nodeName": "n"}}, {".": {}, "f:spec": {".": {}, "f:nodeName": {}}}),
        ({"spec": {"nodeSelector": {"a": "b"}}}, {".": {}, "f:spec": {".": {}, "f:nodeSelector": {}}}),
        (
            {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}},
            {".": {}, "f:spec": {".": {}, "f:containers": {
                ".": {},
                'k:{"name":"c"}': {".": {}, "f:name": {}, "f:ports": {
                    ".": {}, 'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}},
                }},
            }}},
        ),
        ({"metadata": {"finalizers": ["a/b"]}}, {".": {}, "f:metadata": {".": {}, "f:finalizers": {".": {}, 'v:"a/b"': {}}}}),
        ({"spec": {"tolerations": [{"key": "a"}]}}, {".": {}, "f:spec": {".": {}, "f:tolerations": {}}}),
    ],
)  # fmt: skip
def test_what_a_new_value_owns(value: Any, fields: Any) -> None:
    assert fieldset.whole(value, POD) == fields


def test_changes_between_two_values() -> None:
    old = {
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    new = {
        "metadata": {"labels": {"a": "1", "c": "3"}},
        "spec": {"containers": [{"name": "c", "image": "y"}]},
    }
    removed, modified, added = fieldset.compare(old, new, POD)
    assert [fieldset.show(p) for p in fieldset.members(removed)] == [".metadata.labels.b"]
    assert [fieldset.show(p) for p in fieldset.members(modified)] == ['.spec.containers[name="c"].image']
    assert [fieldset.show(p) for p in fieldset.members(added)] == [".metadata.labels.c"]
    assert fieldset.compare(old, old, POD) == (None, None, None)


@pytest.mark.parametrize(
    "gvk, obj",
    [
        (("", "v1", "Pod"), {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}, "status": {}}),
        (("", "v1", "Event"), {"involvedObject": {"name": "x"}, "source": {}, "reason": "x"}),
        (
            ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
            {"roleRef": {"name": "x"}, "subjects": [{"kind": "User", "name": "u"}]},
        ),
        (
            ("", "v1", "Service"),
            {"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 80, "protocol": "UDP"}], "selector": {}}},
        ),
    ],
)
def test_the_short_way_for_a_new_object_says_the_same(gvk, obj):
    node = schema.root(*gvk)
    assert fieldset.compare({}, obj, node) == fieldset._compare_maps({}, obj, node)


def test_a_spec_that_is_known_has_the_fields_of_a_new_one() -> None:
    spec = {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 1}]}], "nodeName": "n"}
    for _ in range(2):
        _, changed, fresh = fieldset.compare({}, {"spec": spec}, POD)
        wanted = fieldset._compare_maps({}, {"spec": spec}, POD)
        assert (None, changed, fresh) == wanted


@pytest.mark.parametrize("kind", ["Pod", "Event", "Service", "Node"])
def test_a_new_object_has_the_fields_that_a_comparison_with_nothing_adds(kind: str) -> None:
    node = schema.root("", "v1", kind)
    container = {"name": "c", "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"cpu": "1"}}}
    obj = {
        "metadata": {"labels": {"app": "a"}, "finalizers": ["x"], "annotations": {}},
        "spec": {
            "containers": [container],
            "nodeSelector": {"a": "b"},
            "ports": [{"port": 53}],
            "selector": {},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "loadBalancer": {}},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "source": {},
        "count": 1,
    }
    _, modified, added = fieldset.compare({}, obj, node)
    assert fieldset.created(obj, node) == fieldset.union(modified, added)
    assert fieldset.created({}, node) is None
