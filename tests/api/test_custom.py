"""Objects of custom resources against their schema."""

import pytest

from sampan.api import custom
from sampan.api.registry import Resource


@pytest.mark.parametrize(
    ("part", "good", "bad"),
    [
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["x", 7], [3]),
        ({"oneOf": [{"minimum": 5}, {"maximum": 6}]}, [3, 7], [5]),
        ({"not": {"enum": ["a"]}}, ["b"], ["a"]),
        ({"type": "string", "format": "date-time"}, ["2026-01-01T00:00:00Z"], ["yesterday"]),
        (
            {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            [["a"]],
            [["a", "a"]],
        ),
        ({"type": "string", "maxLength": 2, "pattern": "^a"}, ["ab"], ["b", "abc"]),
        ({"x-kubernetes-int-or-string": True}, ["1", 1], [1.5]),
    ],
)
def test_values_against_schemas(part, good, bad):
    schema = {"type": "object", "properties": {"v": part}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    row = Resource("x.io", "v1", "X", "xs", True, custom=True, definition={"spec": {"versions": [version]}})
    for value in good:
        assert custom.validate(row, {"v": value}, None) == []
    for value in bad:
        assert custom.validate(row, {"v": value}, None) != []
