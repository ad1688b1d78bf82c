"""Which rules are refused for what they might cost, and which are not."""

import pytest

from sampan.api import schema
from sampan.api.cel.definitions import definition_errors

TEXT, SHORT = {"type": "string"}, {"type": "string", "maxLength": 64}


def lists(item, **limits):
    return {"type": "array", "items": item, **limits}


def definition(place):
    root = {"type": "object", "properties": {"spec": place}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root}}
    return {"spec": {"versions": [version]}}


def with_rule(place, rule):
    return place | {"x-kubernetes-validations": [{"rule": rule}]}


@pytest.mark.parametrize(
    ("place", "rule"),
    [
        (lists(lists(TEXT)), "self.all(x, x.all(y, y == 'string constant'))"),
        (lists(TEXT), "self.all(a, self.all(b, a == b || a != b))"),
        (lists(with_rule(lists(TEXT), "self.all(s, s.contains('x'))")), "true"),
        ({"type": "object", "additionalProperties": TEXT}, "self.all(k, self.all(l, k == l))"),
    ],
)
def test_rules_that_are_far_too_dear_are_refused(place, rule):
    [error] = definition_errors(definition(with_rule(place, rule)))
    assert error.reason == "FieldValueForbidden" and error.field.endswith(".rule")
    assert "estimated rule cost exceeds budget by factor of more than 100x" in error.message


@pytest.mark.parametrize(
    ("place", "rule"),
    [
        (TEXT, "self.startsWith('x') && self.matches('^[a-z]+$')"),
        (lists(TEXT), "self.all(x, x.size() > 0)"),
        (lists(SHORT, maxItems=100), "self.all(a, self.exists_one(b, a == b))"),
        (lists(lists(SHORT, maxItems=16), maxItems=64), "self.all(x, x.all(y, y.contains('constant')))"),
        (
            lists(with_rule({"type": "object", "properties": {"n": SHORT}}, "self.n != ''"), maxItems=1000),
            "self.all(x, self.exists_one(y, x.n == y.n))",
        ),
        ({"type": "integer"}, "self > 0"),
    ],
)
def test_rules_that_people_write_are_taken(place, rule):
    assert definition_errors(definition(with_rule(place, rule))) == []


def test_a_schema_that_says_nothing_of_sizes_is_bounded_by_a_request():
    from sampan.api.cel.estimate import REQUEST, size

    node = schema.from_openapi({"type": "object", "properties": {"many": lists(TEXT), "short": SHORT}})
    assert size(node.properties["many"]) == (REQUEST - 2) // 3
    assert size(node.properties["short"]) == 256
