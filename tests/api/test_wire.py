import orjson
import pytest

from sampan.api import wire
from sampan.api.status import ApiError


def test_the_revision_goes_into_its_slot():
    data, slot = wire.encode(
        {
            "data": {"a": "1"},
            "metadata": {"name": "x", "resourceVersion": "7"},
            "kind": "ConfigMap",
            "apiVersion": "v1",
        }
    )
    whole = data[:slot] + b"42" + data[slot:]
    assert whole == (
        b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"42","name":"x"},"data":{"a":"1"}}'
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"metadata":{"name":"a"',
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; "
            'json parse error: unexpected end of JSON input ({"metadata":{"name":"a")',
        ),
        (
            b"hello",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; "
            "json parse error: invalid character 'h' looking for beginning of value (68656c6c6f)",
        ),
        (
            b"",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; "
            "json parse error: unexpected end of JSON input (<empty>)",
        ),
    ],
)
def test_broken_json_is_refused_in_the_originals_words(body, message):
    with pytest.raises(ApiError) as caught:
        wire.parse_body("application/json", body, kind="ConfigMap")
    assert (caught.value.code, caught.value.message) == (400, message)


def test_a_text_is_no_object():
    with pytest.raises(ApiError, match="json: cannot unmarshal string into Go value of type struct"):
        wire.parse_body("application/json", b'"abc"', kind="ConfigMap")


def test_null_counts_as_an_empty_object():
    assert wire.parse_body("application/json", b"null") == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes: 1", {"true": 1}),
        ("1: a", {"1": "a"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 2001-01-01", {"a": "2001-01-01"}),
        ("a: 0644", {"a": 420}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: 100m", {"a": "100m"}),
        ("a: ~\nb: off", {"a": None, "b": False}),
        ("a: &x {b: c}\nd: *x", {"a": {"b": "c"}, "d": {"b": "c"}}),
    ],
)
def test_yaml_scalars(text, value):
    assert wire.parse_body("application/yaml", text.encode()) == value


def test_broken_yaml():
    with pytest.raises(ApiError, match="must be of type ConfigMap.: yaml: line"):
        wire.parse_body("application/yaml", b"a: [\n", kind="ConfigMap")


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b'{"a":1,"a":2}', ["a"]),
        (b'{"a" : [{"b":1,"b" :2}], "c": "\\":"}', ["a[0].b"]),
        (b'{"metadata": {"name": "x", "name": "y"}}', ["metadata.name"]),
        (orjson.dumps({"a": '":', "b": {"a": 1}}), []),
        (b'{"a": "\\u0022:"}', []),
        (b"metadata:\n  name: a\n  name: b\n", ["metadata.name"]),
        (b"- {a: 1, b: 2}\n", []),
    ],
)
def test_duplicate_keys(body, paths):
    assert wire.duplicate_keys(body) == paths
