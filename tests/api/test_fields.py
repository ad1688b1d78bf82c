import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import fields, schema
from sampan.api.status import ApiError

POD = schema.root("", "v1", "Pod")
DEPLOYMENT = schema.root("apps", "v1", "Deployment")
CONFIG_MAP = schema.root("", "v1", "ConfigMap")
SECRET = schema.root("", "v1", "Secret")
LEASE = schema.root("coordination.k8s.io", "v1", "Lease")
SERVICE = schema.root("", "v1", "Service")


def kept(node, obj):
    return fields.normalize(obj, node, strict=True)[0]


@pytest.mark.parametrize(
    ("node", "sent", "expected"),
    [
        (CONFIG_MAP, {"data": {"k": None}}, {"data": {"k": ""}}),
        (CONFIG_MAP, {"data": None, "metadata": {"labels": {}}}, {"metadata": {}}),
        (CONFIG_MAP, {"immutable": False, "data": {}}, {"immutable": False}),
        (SECRET, {"data": {"a": "YQ=\n="}}, {"data": {"a": "YQ=="}}),
        (DEPLOYMENT, {"spec": {"replicas": 0, "paused": False}}, {"spec": {"replicas": 0}}),
        (POD, {"spec": {"hostNetwork": False, "containers": []}}, {"spec": {"containers": []}}),
        (POD, {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}, {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        (POD, {"spec": {"overhead": {"cpu": "100u", "memory": "1.5Gi"}}}, {"spec": {"overhead": {"cpu": "1m", "memory": "1536Mi"}}}),
        (POD, {"spec": {"overhead": {"cpu": 2}}}, {"spec": {"overhead": {"cpu": "2"}}}),
        (SERVICE, {"spec": {"ports": [{"port": 1, "targetPort": "x"}]}}, {"spec": {"ports": [{"port": 1, "targetPort": "x"}]}}),
        (LEASE, {"spec": {"renewTime": "2026-01-01T02:00:00.000000+02:00"}}, {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}),
        (LEASE, {"spec": {"renewTime": "0001-01-01T00:00:02.000000Z"}}, {"spec": {"renewTime": "0001-01-01T00:00:02.000000Z"}}),
        (POD, {"metadata": {"creationTimestamp": "0001-01-01T02:00:00+01:00"}}, {"metadata": {"creationTimestamp": "0001-01-01T01:00:00Z"}}),
        (POD, {"metadata": {"creationTimestamp": "2026-01-01T00:00:00.5Z"}}, {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}),
        (POD, {"metadata": {"managedFields": []}}, {"metadata": {"managedFields": []}}),
    ],
)  # fmt: skip
def test_what_is_kept(node, sent, expected):
    assert kept(node, sent) == expected


def test_the_input_is_left_alone():
    sent = {"data": {"k": None}, "surprise": 1}
    fields.normalize(sent, CONFIG_MAP, strict=True)
    assert sent == {"data": {"k": None}, "surprise": 1}


def test_unknown_fields_are_dropped_and_named_by_path():
    sent = {
        "metadata": {"name": "p", "foo": 1},
        "spec": {"containers": [{"name": "a", "bar": {}}]},
        "baz": None,
    }
    found, problems = fields.normalize(sent, POD, strict=True)
    assert found == {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}
    assert problems == [
        'unknown field "metadata.foo"',
        'unknown field "spec.containers[0].bar"',
        'unknown field "baz"',
    ]
    assert fields.normalize(sent, POD, strict=False) == (found, [])


QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@pytest.mark.parametrize(
    ("node", "sent", "why"),
    [
        (DEPLOYMENT, {"spec": {"replicas": "two"}}, "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (DEPLOYMENT, {"spec": {"replicas": 1.5}}, "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (DEPLOYMENT, {"spec": {"replicas": 3000000000}}, "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (CONFIG_MAP, {"immutable": "yes"}, "json: cannot unmarshal string into Go struct field ConfigMap.immutable of type bool"),
        (CONFIG_MAP, {"data": {"a": 1}}, "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        (CONFIG_MAP, {"metadata": {"labels": {"a": True}}}, "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string"),
        (CONFIG_MAP, {"data": []}, "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string"),
        (POD, {"spec": "x"}, "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec"),
        (POD, {"spec": {"containers": {}}}, "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"),
        (POD, {"spec": {"containers": [{"env": [{"value": 1}]}]}}, "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string"),
        (POD, {"spec": {"overhead": {"cpu": "x"}}}, QUANTITY),
        (SECRET, {"data": {"x": "***"}}, "illegal base64 data at input byte 0"),
        (CONFIG_MAP, {"metadata": {"creationTimestamp": "yesterday"}}, 'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"'),
        (LEASE, {"spec": {"renewTime": "2026-01-01T00:00:00.12Z"}}, 'parsing time "2026-01-01T00:00:00.12Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse ".12Z" as ".000000"'),
        (SERVICE, {"spec": {"ports": [{"targetPort": True}]}}, "json: cannot unmarshal bool into Go value of type int32"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_refused_in_the_originals_words(node, sent, why):
    with pytest.raises(ApiError) as caught:
        fields.normalize(sent, node, strict=False)
    kind = node.gvk[2]
    assert caught.value.code == 400
    assert caught.value.message == f'{kind} in version "v1" cannot be handled as a {kind}: {why}'


WIDGET = schema.from_openapi(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "n": {"type": "integer"},
                    "maybe": {"type": "string", "nullable": True},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
                    "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                },
            }
        },
    }
)  # fmt: skip


def test_custom_resources_are_pruned_and_keep_wrong_types_for_validation():
    sent = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "bogus": 1},
        "spec": {
            "n": "not a number",
            "maybe": None,
            "free": {"x": [None]},
            "map": {"k": {"a": "1", "b": 2}},
            "list": [{"b": 1}],
            "gone": 1,
        },
    }
    found, problems = fields.normalize(sent, WIDGET, strict=True)
    assert found["spec"] == {
        "n": "not a number",
        "maybe": None,
        "free": {"x": [None]},
        "map": {"k": {"a": "1"}},
        "list": [{}],
    }
    assert problems == [
        'unknown field "metadata.bogus"',
        'unknown field "spec.map.k.b"',
        'unknown field "spec.list[0].b"',
        'unknown field "spec.gone"',
    ]


def test_nulls_of_fields_that_may_not_be_null_are_dropped():
    assert fields.normalize({"spec": {"n": None}}, WIDGET, strict=True)[0] == {"spec": {}}


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2**40)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "1", "x"])
)


def _bodies(node, depth=4):
    """Objects that use a kind's own field names with values that often do not fit."""
    if depth == 0:
        return _scalars
    if node.type == "array" and node.items is not None:
        return _scalars | st.lists(_bodies(node.items, depth - 1), max_size=2)
    if node.properties:
        some = sorted(node.properties)[:: max(1, len(node.properties) // 6)]
        inner = {
            key: _bodies(node.properties[key], depth - 1)
            for key in (*some, *{"spec", "metadata"} & {*node.properties})
        }
        return st.fixed_dictionaries({}, optional={**inner, "unknown": _scalars})
    return _scalars | st.dictionaries(st.sampled_from(["a", "b"]), _scalars, max_size=2)


@given(_bodies(POD))
def test_any_body_is_taken_or_refused_with_a_reason(body):
    try:
        found, _ = fields.normalize(body, POD, strict=True)
    except ApiError as error:
        assert error.code == 400
        assert "cannot be decoded" not in error.message
        return
    orjson.dumps(found)
    assert fields.normalize(found, POD, strict=True) == (found, [])


def test_what_was_normalised_before_is_taken_as_it_is() -> None:
    node = schema.root("", "v1", "Pod")
    assert node is not None
    stored = {"kind": "Pod", "metadata": {"name": "a"}, "spec": {"nodeName": None}, "status": {"phase": "x"}}
    changed = {**stored, "status": {"phase": "y", "nonsense": 1, "reason": ""}}
    found, problems = fields.normalize(changed, node, strict=True, known=stored)
    assert found == {**stored, "status": {"phase": "y"}}
    assert problems == ['unknown field "status.nonsense"']


def test_a_value_that_only_equals_what_was_there_is_looked_at() -> None:
    node = schema.root("", "v1", "Pod")
    assert node is not None
    stored = {"metadata": {}, "spec": {"hostPID": True}}
    with pytest.raises(ApiError):
        fields.normalize({"metadata": {}, "spec": {"hostPID": 1}}, node, strict=True, known=stored)
