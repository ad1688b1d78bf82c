"""Strategic merge patches, as kubectl sends them."""

import pytest

from sampan.api import schema
from sampan.api.status import ApiError
from sampan.api.strategic import strategic_merge

TEMPLATE = schema.root("", "v1", "PodTemplate")


def patch_spec(spec, patch):
    return strategic_merge({"template": {"spec": spec}}, {"template": {"spec": patch}}, TEMPLATE)["template"][
        "spec"
    ]


A, B = {"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        (
            {"containers": [A, B]},
            {"containers": [{"name": "b", "image": "b:2"}]},
            {"containers": [A, {"name": "b", "image": "b:2"}]},
        ),
        ({"containers": [A]}, {"containers": [B]}, {"containers": [B, A]}),
        ({"containers": [A, B]}, {"containers": [{"name": "a", "$patch": "delete"}]}, {"containers": [B]}),
        ({"containers": [A, B]}, {"containers": [{"$patch": "replace"}, B]}, {"containers": [B]}),
        (
            {"containers": [A, B]},
            {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
            {"containers": [B, A]},
        ),
        ({"nodeSelector": {"a": "1"}}, {"nodeSelector": {"b": "2"}}, {"nodeSelector": {"a": "1", "b": "2"}}),
        (
            {"nodeSelector": {"a": "1"}},
            {"nodeSelector": {"$patch": "replace", "b": "2"}},
            {"nodeSelector": {"b": "2"}},
        ),
        ({"nodeSelector": {"a": "1"}}, {"nodeSelector": None}, {}),
        ({"tolerations": [{"key": "x"}]}, {"tolerations": [{"key": "y"}]}, {"tolerations": [{"key": "y"}]}),
        (
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]},
            {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]},
        ),
    ],
)
def test_lists_merge_by_their_keys(before, patch, after):
    assert patch_spec(before, patch) == after


def test_values_are_deleted_from_a_set():
    doc = {"metadata": {"finalizers": ["a/x", "a/y"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"], "finalizers": ["a/z"]}}
    assert strategic_merge(doc, patch, TEMPLATE)["metadata"]["finalizers"] == ["a/z", "a/y"]


@pytest.mark.parametrize(
    ("patch", "code", "text"),
    [
        (
            {"nodeSelector": {"$patch": "merge", "b": "2"}},
            500,
            "unknown patch type: merge in map: map[$patch:merge b:2]",
        ),
        (
            {"containers": [{"image": "x"}]},
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        ({"$retainKeys": ["a"], "hostname": "h"}, 400, "invalid patch format of retainKeys"),
        ({"$setElementOrder/containers": None}, 400, "invalid patch format of setElementOrder list"),
        ({"$deleteFromPrimitiveList/finalizers": "a"}, 400, "invalid patch format of primitive list"),
        (
            {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "c"}]},
            500,
            "The order in patch list:\n[map[name:c]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
    ],
)
def test_a_wrong_directive_is_refused_in_the_originals_words(patch, code, text):
    with pytest.raises(ApiError) as refused:
        patch_spec({"containers": [A], "nodeSelector": {}}, patch)
    assert (refused.value.code, refused.value.message) == (code, text)
