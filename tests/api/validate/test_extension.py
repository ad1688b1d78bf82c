"""Definitions, their schemas and objects; webhooks, policies, certificate requests, flow schemas."""

import base64

import pytest
from lines import same

from sampan.api import schema
from sampan.api.validate import custom

CRDS = "customresourcedefinitions.apiextensions.k8s.io"
HOOKS = "validatingwebhookconfigurations.admissionregistration.k8s.io"


def definition(part=None, **version):
    text = {"type": "object", "properties": {} if part is None else {"a": part}}
    made = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": text}} | version
    return {
        "metadata": {"name": "cs.x.io"},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"plural": "cs", "kind": "C"},
            "versions": [made],
        },
        "status": {"storedVersions": ["v1"], "conditions": [{"type": "Established", "status": "True"}]},
    }


AT = "spec.validation.openAPIV3Schema.properties[a]"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "string"}, []),
        ({}, [f"{AT}.type: Required value: must not be empty for specified object fields"]),
        ({"type": "word"}, [f'{AT}.type: Unsupported value: "word"']),
        ({"type": "array"}, [f"{AT}.items: Required value: must be specified"]),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ["runtime complexity becomes quadratic"]),
        ({"$ref": "#/x"}, [f"{AT}.$ref: Forbidden: $ref is not supported"]),
        ({"type": "string", "pattern": "("}, ["must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`"]),
        ({"type": "integer", "default": "x"}, [f'{AT}.default: Invalid value: "string":  in body must be of type integer: "string"']),
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "bag"}, ['supported values: "atomic", "set", "map"']),
        ({"x-kubernetes-int-or-string": True}, []),
        ({"x-kubernetes-preserve-unknown-fields": True}, []),
        ({"type": "object", "x-kubernetes-embedded-resource": True}, [f"{AT}.properties: Required value"]),
        ({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}, ["additionalProperties and properties are mutual exclusive"]),
        ({"type": "string", "anyOf": [{"type": "string"}]}, [f"{AT}.anyOf[0].type: Forbidden: must be empty to be structural"]),
        ({"type": "string", "x-kubernetes-validations": [{"rule": " "}]}, ["x-kubernetes-validations[0].rule: Required value"]),
    ],
)  # fmt: skip
def test_a_schema_must_be_structural(judge, part, expected):
    same(judge.create(CRDS, definition(part)), expected)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.group", "io", ["must be spec.names.plural+\".\"+spec.group", "should be a domain with at least one dot"]),
        ("spec.scope", "Galaxy", ['supported values: "Cluster", "Namespaced"']),
        ("spec.names.kind", "C_d", ["may have mixed case, but should otherwise match: a DNS-1035 label"]),
        ("spec.names.listKind", "C", ["kind and listKind may not be the same"]),
        ("spec.versions.0.storage", False, ["must have exactly one version marked as storage version"]),
        ("spec.versions.0.name", "V", ["spec.versions[0].name: Invalid value", "status.storedVersions[0]", ]),
        ("spec.versions.0.schema", ..., ["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"]),
        ("spec.conversion", {"strategy": "Webhook"}, ["required when strategy is set to Webhook", "conversionReviewVersions"]),
        ("spec.versions.0.subresources", {"scale": {"specReplicasPath": "", "statusReplicasPath": ".x"}}, ["spec.subresources.scale.specReplicasPath: Required value", "should be a json path under .status"]),
        ("spec.versions.0.additionalPrinterColumns", [{"name": "a", "type": "string", "jsonPath": "x"}], ["must be a simple json path starting with ."]),
        ("spec.preserveUnknownFields", True, ["cannot set to true, set x-preserve-unknown-fields to true"]),
    ],
)  # fmt: skip
def test_a_definition_is_refused_with_the_field_that_is_wrong(judge, put, path, value, expected):
    lines = judge.create(CRDS, put(definition(), path, value))
    assert len(lines) >= len(expected), lines
    for part in expected:
        assert any(part in line for line in lines), (part, lines)


def test_what_of_a_definition_stays(judge, put):
    same(
        judge.update(CRDS, put(definition(), "spec.scope", "Cluster"), definition()),
        ['spec.scope: Invalid value: "Cluster": field is immutable'],
    )
    same(
        judge.update(CRDS, put(definition(), "spec.names.kind", "D"), definition()),
        ["spec.names.kind: Invalid value"],
    )
    renamed = put(definition(), "spec.versions.0.name", "v2")
    same(
        judge.update(CRDS, renamed, definition()),
        ["must have the storage version v2", "must appear in spec.versions"],
    )


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ({"type": "integer", "minimum": 1}, 0, "a in body should be greater than or equal to 1"),
        ({"type": "integer", "maximum": 3, "exclusiveMaximum": True}, 3, "a in body should be less than 3"),
        ({"type": "number", "multipleOf": 5}, 7, "a in body should be a multiple of 5"),
        ({"type": "string", "maxLength": 2}, "abc", "Too long: may not be more than 2 bytes"),
        ({"type": "string", "minLength": 2}, "a", "a in body should be at least 2 chars long"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "a\n", "a in body should match '^[a-z]+$'"),
        ({"type": "string", "enum": ["x", "y"]}, "z", 'Unsupported value: "z": supported values: "x", "y"'),
        ({"type": "string", "format": "ipv4"}, "::1", 'a in body must be of type ipv4: "::1"'),
        ({"type": "array", "maxItems": 1, "items": {"type": "integer"}}, [1, 2], "Too many: 2: must have at most 1 items"),
        ({"type": "array", "items": {"type": "integer"}}, ["x"], 'a[0] in body must be of type integer: "string"'),
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}, ["x", "x"], 'a[1]: Duplicate value: "x"'),
        ({"type": "object", "required": ["b"]}, {}, "a.b: Required value"),
        ({"type": "object", "minProperties": 1}, {}, "a in body should have at least 1 properties"),
        ({"type": "boolean"}, "true", 'a in body must be of type boolean: "string"'),
        ({"type": "string"}, None, 'a in body must be of type string: "null"'),
        ({"type": "integer", "oneOf": [{"minimum": 1}, {"maximum": 5}]}, 3, "must validate one and only one schema (oneOf)"),
        ({"type": "string", "not": {"enum": ["a"]}}, "a", "must not validate the schema (not)"),
        ({"type": "string", "nullable": True}, None, ""),
        ({"x-kubernetes-int-or-string": True}, "50%", ""),
    ],
)  # fmt: skip
def test_custom_objects(text, value, expected):
    node = schema.from_openapi({"type": "object", "properties": {"a": text}})
    errors = []
    custom.check_object(errors, {"a": value}, node)
    assert [expected in str(e) for e in errors] == ([True] if expected else [])


def test_a_key_left_out_counts_with_its_default():
    item = {
        "type": "object",
        "properties": {"p": {"type": "string", "default": "TCP"}, "n": {"type": "integer"}},
    }
    part = {
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["n", "p"],
    }
    errors = []
    custom.check(errors, [{"n": 1}, {"n": 1, "p": "TCP"}], schema.from_part(part), "l")
    assert [e.field for e in errors] == ["l[1]"]


HOOK = {
    "name": "a.b.c",
    "clientConfig": {"url": "https://h/x"},
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"name": "hook"}, ["should be a domain with at least three segments separated by dots"]),
        ({"clientConfig": {}}, ["webhooks[0].clientConfig: Required value: exactly one of url or service is required"]),
        ({"clientConfig": {"url": "http://h/x?y=1"}}, ["'https' is the only allowed URL scheme", "query parameters are"]),
        ({"clientConfig": {"service": {}}}, ["service name is required", "service namespace is required"]),
        ({"sideEffects": "Some"}, ['Unsupported value: "Some": supported values: "None", "NoneOnDryRun"']),
        ({"admissionReviewVersions": ["v7"]}, ["must include at least one of v1, v1beta1"]),
        ({"timeoutSeconds": 31}, ["the timeout value must be between 1 and 30 seconds"]),
        ({"rules": [HOOK["rules"][0] | {"operations": ["READ"]}]}, ["rules[0].operations[0]: Unsupported value"]),
        ({"rules": [HOOK["rules"][0] | {"resources": ["pods/*", "pods/log"]}]}, ["if 'pods/*' is present, must not"]),
        ({"matchConditions": [{"name": "a", "expression": ""}]}, ["matchConditions[0].expression: Required value"]),
    ],
)  # fmt: skip
def test_a_webhook_is_refused_with_the_field_that_is_wrong(judge, change, expected):
    same(judge.create(HOOKS, {"webhooks": [HOOK | change]}), expected)


@pytest.mark.parametrize(
    "kind",
    [
        f"{group}admission{what}" if what != "webhookconfigurations" else f"{group}{what}"
        for group in ("validating", "mutating")
        for what in ("policies", "policybindings", "webhookconfigurations")
    ],
)
def test_names_of_what_comes_from_files_are_taken(judge, kind):
    named = {"metadata": {"name": "a.static.k8s.io"}}
    found = judge.create(f"{kind}.admissionregistration.k8s.io", named)
    assert found[0] == (
        'metadata.name: Invalid value: "a.static.k8s.io": names ending with ".static.k8s.io" are reserved for '
        "static manifest-based configurations and cannot be managed via the API"
    )


def test_a_policy_is_refused_with_the_field_that_is_wrong(judge):
    kind = "validatingadmissionpolicies.admissionregistration.k8s.io"
    rules = [HOOK["rules"][0]]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "true"}]}
    assert judge.create(kind, {"spec": spec}) == []
    same(judge.create(kind, {"spec": spec | {"validations": []}}), ["must contain at least one item"] * 2)
    same(
        judge.create(kind, {"spec": spec | {"variables": [{"name": "1", "expression": "1"}]}}),
        ["not a valid CEL identifier"],
    )
    bound = "validatingadmissionpolicybindings.admissionregistration.k8s.io"
    same(judge.create(bound, {"spec": {"policyName": "p"}}), ["spec.validationActions: Required value"])


def test_certificate_requests(judge):
    kind = "certificatesigningrequests.certificates.k8s.io"
    spec = {
        "request": base64.b64encode(b"x").decode(),
        "signerName": "x.io/s",
        "usages": ["flying"],
        "expirationSeconds": 5,
    }
    same(
        judge.create(kind, {"spec": spec}),
        [
            "PEM block type must be CERTIFICATE REQUEST",
            'spec.usages[0]: Unsupported value: "flying"',
            "may not specify a duration less than 600 seconds (10 minutes)",
        ],
    )


def test_flow_control(judge):
    schemas, levels = (
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    )
    same(
        judge.create(schemas, {"spec": {"matchingPrecedence": 10001}}),
        ["must not be greater than 10000", "must reference a priority level"],
    )
    same(
        judge.create(levels, {"spec": {"type": "Limited"}}),
        ["spec.limited: Required value: must not be empty when type is Limited"],
    )
