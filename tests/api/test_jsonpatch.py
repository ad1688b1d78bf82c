"""JSON patches: the RFC, and where the reference server is more lenient."""

import pytest

from sampan.api.jsonpatch import json_patch
from sampan.api.status import ApiError

DOC = {"a": "1", "list": [1, 2], "slash/key": {"x": 1}}


@pytest.mark.parametrize(
    ("operation", "after"),
    [
        ({"op": "add", "path": "/b", "value": 2}, {**DOC, "b": 2}),
        ({"op": "replace", "path": "/new", "value": 2}, {**DOC, "new": 2}),
        ({"op": "add", "path": "/list/-", "value": 3}, {**DOC, "list": [1, 2, 3]}),
        ({"op": "add", "path": "/list/-1", "value": 3}, {**DOC, "list": [1, 2, 3]}),
        ({"op": "add", "path": "/list/0", "value": 0}, {**DOC, "list": [0, 1, 2]}),
        ({"op": "remove", "path": "/list/-1"}, {**DOC, "list": [1]}),
        ({"op": "copy", "from": "/none", "path": "/b"}, {**DOC, "b": None}),
        ({"op": "move", "from": "/a", "path": "/b"}, {"b": "1", "list": [1, 2], "slash/key": {"x": 1}}),
        ({"op": "replace", "path": "/slash~1key/x", "value": 2}, {**DOC, "slash/key": {"x": 2}}),
        ({"op": "test", "path": "/a", "value": "1"}, DOC),
        ({"op": "add", "path": "a", "value": "2"}, {**DOC, "a": "2"}),
    ],
)
def test_each_operation_does_what_rfc_6902_says(operation, after):
    assert json_patch(DOC, [operation]) == after


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/none"},
        {"op": "remove", "path": ""},
        {"op": "move", "from": "", "path": "/a"},
        {"op": "test", "path": "/a", "value": 1},
        {"op": "test", "path": "/none", "value": 1},
        {"op": "merge", "path": "/a", "value": 1},
        {"path": "/a", "value": 1},
        {"op": "add", "path": "/list/5", "value": 1},
        {"op": "replace", "path": "/list/last", "value": 1},
        {"op": "add", "path": "/a/b", "value": 1},
    ],
)
def test_a_step_that_fails_refuses_the_patch(operation):
    with pytest.raises(ApiError) as refused:
        json_patch(DOC, [operation])
    assert refused.value.code == 422


def test_a_patch_is_a_list():
    with pytest.raises(ApiError) as refused:
        json_patch(DOC, {})
    assert refused.value.code == 400
