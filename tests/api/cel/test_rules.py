"""x-kubernetes-validations: rules of a schema on objects, and the judgement of the rules themselves."""

from __future__ import annotations

import pytest

from sampan.api import cel, schema
from sampan.api.status import FieldError


def node(properties, rules=(), **more):
    return schema.from_openapi(
        {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules), **more}
    )


def spec(rule, kind=None, **more):
    """A schema whose `spec` has one rule."""
    inner = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "integer"},
            "name": {"type": "string"},
            "items": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
                },
            },
        },
        "x-kubernetes-validations": [{"rule": rule, **more}],
    }
    return node({"spec": kind or inner})


def said(schema_node, obj, old=None):
    return [(e.reason, e.field, e.message) for e in cel.validate_rules(schema_node, obj, old)]


INVALID = "FieldValueInvalid"


def test_a_rule_that_holds_says_nothing():
    assert said(spec("self.a <= self.b"), {"spec": {"a": 1, "b": 2}}) == []
    assert said(spec("self.a <= self.b"), {}) == []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (INVALID, "spec", "Invalid value: failed rule: self.a <= self.b")),
        ({"message": " too big "}, (INVALID, "spec", "Invalid value: too big")),
        (
            {"messageExpression": "'a is %d'.format([self.a])", "message": "x"},
            (INVALID, "spec", "Invalid value: a is 3"),
        ),
        ({"messageExpression": "self.name", "message": "kept"}, (INVALID, "spec", "Invalid value: kept")),
        ({"messageExpression": "'a\\nb'", "message": "kept"}, (INVALID, "spec", "Invalid value: kept")),
        (
            {"reason": "FieldValueForbidden", "fieldPath": ".a", "message": "no"},
            ("FieldValueForbidden", "spec.a", "Forbidden: no"),
        ),
        (
            {"reason": "FieldValueRequired", "fieldPath": "['a']", "message": "no"},
            ("FieldValueRequired", "spec.a", "Required value: no"),
        ),
        ({"reason": "FieldValueDuplicate"}, ("FieldValueDuplicate", "spec", "Duplicate value")),
    ],
)
def test_what_a_broken_rule_says(more, expected):
    assert said(spec("self.a <= self.b", **more), {"spec": {"a": 3, "b": 2}}) == [expected]


def test_simple_values_are_shown():
    schema_node = spec("", {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'x'"}]})
    assert said(schema_node, {"spec": "x"}) == [
        (INVALID, "spec", "Invalid value: \"x\": failed rule: self != 'x'")
    ]


def test_rules_of_the_root_see_names():
    schema_node = node({}, [{"rule": "self.metadata.name.startsWith('a') && self.kind == 'K'"}])
    assert said(schema_node, {"kind": "K", "metadata": {"name": "abc"}}) == []
    [(_, field, message)] = said(schema_node, {"kind": "K", "metadata": {"name": "x"}})
    assert (field, message.partition("rule")[0]) == ("<nil>", "Invalid value: failed ")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            "self.a / 0 == 1",
            "Invalid value: division by zero evaluating rule: self.a / 0 == 1",
        ),
        ("self.name == 'x'", "Invalid value: no such key: name evaluating rule: self.name == 'x'"),
        (
            "dyn(self.a) + dyn('x') == 1",
            "Invalid value: 'no such overload': call arguments did not match a supported operator, function or "
            "macro signature for rule: dyn(self.a) + dyn('x') == 1",
        ),
    ],
)
def test_rules_that_fail_to_evaluate(rule, expected):
    assert said(spec(rule), {"spec": {"a": 1}}) == [(INVALID, "spec", expected)]


def test_transition_rules_need_a_former_value():
    schema_node = spec("self.a >= oldSelf.a", message="must not shrink")
    assert said(schema_node, {"spec": {"a": 1}}) == []
    assert said(schema_node, {"spec": {"a": 1}}, {}) == []
    assert said(schema_node, {"spec": {"a": 2}}, {"spec": {"a": 1}}) == []
    assert said(schema_node, {"spec": {"a": 0}}, {"spec": {"a": 1}}) == [
        (INVALID, "spec", "Invalid value: must not shrink")
    ]


def test_an_optional_old_value():
    schema_node = spec("oldSelf.hasValue() ? self.a >= oldSelf.value().a : self.a == 1", optionalOldSelf=True)
    assert said(schema_node, {"spec": {"a": 1}}) == []
    assert len(said(schema_node, {"spec": {"a": 2}})) == 1
    assert said(schema_node, {"spec": {"a": 2}}, {"spec": {"a": 2}}) == []


def test_items_are_compared_with_those_of_the_same_key():
    items = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.size == oldSelf.size", "message": "fixed"}],
        },
    }
    schema_node = node({"items": items})
    old = {"items": [{"name": "a", "size": 1}, {"name": "b", "size": 2}]}
    new = {"items": [{"name": "b", "size": 3}, {"name": "c", "size": 9}, {"name": "a", "size": 1}]}
    assert said(schema_node, new, old) == [(INVALID, "items[0]", "Invalid value: fixed")]


def test_values_of_a_map_are_named_by_key():
    values = {
        "type": "object",
        "additionalProperties": {"type": "string", "x-kubernetes-validations": [{"rule": "self != ''"}]},
    }
    assert said(node({"m": values}), {"m": {"k": ""}}) == [
        (INVALID, "m[k]", "Invalid value: \"\": failed rule: self != ''")
    ]


def test_what_did_not_change_may_stay_as_it_was():
    schema_node = spec("self.a > 5")
    assert said(schema_node, {"spec": {"a": 1}, "status": 2}, {"spec": {"a": 1}}) == []
    assert len(said(schema_node, {"spec": {"a": 2}}, {"spec": {"a": 1}})) == 1


def test_rules_are_not_asked_about_objects_that_are_broken_otherwise():
    known = [FieldError("FieldValueRequired", "spec.a", "Required value")]
    [error] = cel.validate_rules(spec("self.a > 5"), {"spec": {}}, None, known)
    assert error.message.endswith("correct the existing errors to complete validation")


def test_a_rule_that_costs_too_much_is_refused_with_its_cost():
    big = {
        "type": "array",
        "items": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x + y >= 0))", "message": "deep"}],
    }
    assert said(node({"v": big}), {"v": list(range(1000))}) == [
        (
            INVALID,
            "v",
            "Invalid value: 'operation cancelled: actual cost limit exceeded': no further validation rules will be "
            "run due to call cost exceeds limit for rule: deep",
        )
    ]
    many = {"type": "array", "items": big}
    [*_, last] = said(node({"v": many}), {"v": [list(range(300))] * 40})
    assert last[2].startswith("Invalid value: validation failed due to running out of cost budget")


# Rules in a definition


def judged(schema_text, old=None):
    def definition(text):
        return {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": text}}]}}

    return [
        (e.reason, e.field, e.message)
        for e in cel.definition_errors(definition(schema_text), definition(old) if old else None)
    ]


def with_rule(rule, list_type="atomic", **more):
    item = {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}
    item["x-kubernetes-validations"] = [{"rule": rule, **more}]
    return {
        "type": "object",
        "properties": {
            "list": {
                "type": "array",
                "items": item,
                "x-kubernetes-list-type": list_type,
                "x-kubernetes-list-map-keys": ["name"],
            }
        },
    }


PATH = "spec.validation.openAPIV3Schema.properties[list].items.x-kubernetes-validations[0]"


@pytest.mark.parametrize(
    ("rule", "more", "field", "text"),
    [
        (
            "self.n >",
            {},
            ".rule",
            "compilation failed: ERROR: <input>:1:9: Syntax error: mismatched input '<EOF>'",
        ),
        ("self.nope > 1", {}, ".rule", "undefined field 'nope'\n | self.nope > 1\n | ....^"),
        ("self.n", {}, ".rule", "cel expression must evaluate to a bool"),
        (
            "self.n == oldSelf.n",
            {},
            ".rule",
            "oldSelf cannot be used on the uncorrelatable portion of the schema",
        ),
        (
            "true",
            {"optionalOldSelf": True},
            ".optionalOldSelf",
            "may not be set if oldSelf is not used in rule",
        ),
        (
            "true",
            {"messageExpression": "1"},
            ".messageExpression",
            "messageExpression must evaluate to a string",
        ),
        (
            "true",
            {"messageExpression": "x"},
            ".messageExpression",
            "messageExpression compilation failed: ERROR",
        ),
        ("true", {"fieldPath": ".nope"}, ".fieldPath", "fieldPath must be a valid path"),
        ("true", {"fieldPath": " "}, ".fieldPath", "fieldPath must be non-empty if specified"),
        ("true", {"fieldPath": "n"}, ".fieldPath", "fieldPath must be a valid path"),
    ],
)
def test_definitions_with_wrong_rules_are_refused(rule, more, field, text):
    [(_, path, message)] = judged(with_rule(rule, **more))
    assert path == PATH + field
    assert text in message


def test_good_rules_are_accepted():
    assert judged(with_rule("self.n == oldSelf.n", "map")) == []
    assert judged(with_rule("self.n > 0", message="m", messageExpression="self.name", fieldPath=".n")) == []


def test_what_was_stored_is_not_judged_again():
    broken = with_rule("self.nope")
    assert judged(broken, broken) == []
