"""Which rules are refused for what they might cost, and which are not."""

import pytest

from sampan.api import schema
from sampan.api.cel import estimate
from sampan.api.cel.definitions import definition_errors
from sampan.api.cel.parser import parse

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
    error, *others = definition_errors(definition(with_rule(place, rule)))
    assert error.reason == "FieldValueForbidden" and error.field.endswith(".rule")
    assert "estimated rule cost exceeds budget by factor of more than 100x" in error.message
    assert others[-1].field.endswith("openAPIV3Schema")  # which it makes too dear, too


@pytest.mark.parametrize(
    ("place", "rule"),
    [
        (TEXT, "self.startsWith('x') && self.matches('^[a-z]+$')"),
        (lists(TEXT), "self.all(x, x.size() > 0)"),
        (lists(SHORT, maxItems=100), "self.all(a, self.exists_one(b, a == b))"),
        (lists(lists(SHORT, maxItems=16), maxItems=64), "self.all(x, x.all(y, y.contains('constant')))"),
        (
            lists(with_rule({"type": "object", "properties": {"n": SHORT}}, "self.n != ''"), maxItems=400),
            "self.all(x, self.exists_one(y, x.n == y.n))",
        ),
        ({"type": "integer"}, "self > 0"),
    ],
)
def test_rules_that_people_write_are_taken(place, rule):
    assert definition_errors(definition(with_rule(place, rule))) == []


NUMBERS, MANY = {"type": "number"}, {"type": "object", "additionalProperties": {"type": "number"}}
TIMES = {"type": "object", "additionalProperties": {"type": "string", "format": "date-time"}}
PARTS = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 4},
        "old": {"type": "string", "maxLength": 2},
        "new": {"type": "string", "maxLength": 4},
    },
}


# What the original's estimator says of the same rules.
@pytest.mark.parametrize(
    ("place", "rule", "cost"),
    [
        (lists(NUMBERS), "self.all(x, true)", 4_718_591),
        (lists(NUMBERS, maxItems=10), "self.all(x, true)", 32),
        (lists(NUMBERS, maxItems=10), "self.all(x, self.all(y, self.all(z, true)))", 3552),
        (lists(NUMBERS), "self.all(x, x == 0.0)", 6_291_454),
        (lists(NUMBERS), "self[1] == 0.0", 2),
        (lists(TEXT), "self[1] == self[1]", 314_577),
        (lists({"type": "string", "format": "date"}), "self.all(x, true)", 725_936),
        (lists({"x-kubernetes-int-or-string": True}), "self[0] == 5", 3),
        (lists(MANY, maxItems=12), "self.all(x, x.y == 25.2)", 74),
        (lists(MANY), "self[0].x > 2.0", 4),
        (lists({"type": "string", "maxLength": 10}, maxItems=10), "self.join(' ') == 'aa bb'", 43),
        (lists({"type": "string", "maxLength": 10}, maxItems=10), "self.isSorted() == true", 52),
        (MANY, "self.all(x, true)", 1_348_169),
        (MANY, "has(self.x)", 0),
        (MANY, "oldSelf.size() == self.size()", 5),
        (TIMES, "self['a'] == self['b']", 8),
        (TEXT, "self.contains('test')", 314_574),
        (TEXT, "self.startsWith('test')", 2),
        (TEXT, "size(self + 'hello') > size('hello')", 314_578),
        ({"type": "string", "maxLength": 50}, "self.matches('x')", 22),
        (TEXT, "''.matches('(((((((((())))))))))[0-9]')", 7),
        (TEXT, "self.find('[0-9]+') == ''", 629_147),
        (TEXT, "self.lowerAscii() == 'lower!'", 314_575),
        (PARTS, "self.text.replace(self.old, self.new) == 'does not matter'", 12),
        (PARTS, "self.text.split(self.new) == []", 18),
        ({"type": "string", "enum": ["A", "LongValue"]}, "self.contains('A')", 2),
    ],
)
def test_what_a_rule_may_cost(place, rule, cost):
    assert estimate.worst(parse(rule), schema.from_part(place)) == cost


def test_a_rule_somewhat_over_its_budget_says_how_much():
    [error] = definition_errors(definition(with_rule(lists(NUMBERS), "self.all(x, x > 1.0 && x < 9.0)")))
    assert "estimated rule cost exceeds budget by factor of 1.1x (try simplifying the rule" in error.message


def test_rules_that_are_too_dear_together_are_named():
    dear = with_rule(lists(NUMBERS), "self.all(x, x == 0.0)")
    assert (
        definition_errors(definition({"type": "object", "properties": {f"f{n}": dear for n in range(15)}}))
        == []
    )
    errors = definition_errors(
        definition({"type": "object", "properties": {f"f{n}": dear for n in range(17)}})
    )
    assert [e.field.rpartition(".")[2] for e in errors] == ["rule"] * 4 + ["openAPIV3Schema"]
    assert "contributed to estimated rule cost total" in errors[0].message
    assert "total for entire OpenAPIv3 schema exceeds budget by factor of 1.1x" in errors[4].message


def test_a_schema_that_says_nothing_of_sizes_is_bounded_by_a_request():
    from sampan.api.cel.estimate import REQUEST, size

    node = schema.from_openapi({"type": "object", "properties": {"many": lists(TEXT), "short": SHORT}})
    assert size(node.properties["many"]) == (REQUEST - 2) // 3
    assert size(node.properties["short"]) == 256
