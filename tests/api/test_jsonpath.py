"""JSONPath as printer columns and scale paths use it."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api import jsonpath

OBJECT = {
    "spec": {"replicas": 3, "list": [{"n": "a", "v": 1}, {"n": "b", "v": 2}], "empty": None},
    "metadata": {"annotations": {"a.b/c": "x"}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.replicas", [3]),
        ("spec.replicas", [3]),
        ("{.spec.replicas}", [3]),
        ("$.spec.replicas", [3]),
        (".spec.list[0].n", ["a"]),
        (".spec.list[-1].n", ["b"]),
        (".spec.list[5].n", []),
        (".spec.list[*].v", [1, 2]),
        (".metadata.annotations['a.b/c']", ["x"]),
        (r".metadata.annotations.a\.b/c", ["x"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type == 'Other')].status", ["False"]),
        (".spec.list[?(@.v>1)].n", ["b"]),
        (".spec.list[?(@.v<=1)].n", ["a"]),
        (".spec.list[?(@.n!='a')].v", [2]),
        (".spec.list[?(@.missing)].v", []),
        (".spec.list[?(@.n>1)].v", []),
        (".spec.empty", [None]),
        (".spec.nothing.below", []),
        (".spec.replicas.below", []),
        (".", [OBJECT]),
    ],
)
def test_a_path_finds_values(path: str, found: list[Any]) -> None:
    assert jsonpath.find(OBJECT, jsonpath.parse(path)) == found


@pytest.mark.parametrize("path", [".a[", ".a[x]", "..", ".a[?(@.b=='c']"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="invalid JSONPath"):
        jsonpath.parse(path)
