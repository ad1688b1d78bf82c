import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.selectors import from_map, from_object, parse_fields, parse_labels


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("app=x", {"app": "x"}, True),
        ("app==x", {"app": "y"}, False),
        ("app!=x", {}, True),
        ("app!=x", {"app": "x"}, False),
        ("app", {"app": ""}, True),
        ("!app", {"app": ""}, False),
        (" app in ( x , y ) , tier = 2 ", {"app": "y", "tier": "2"}, True),
        ("app notin (x, y)", {"app": "z"}, True),
        ("app notin (x, y)", {}, True),
        ("k in ()", {"k": ""}, True),
        ("k in (,a)", {"k": ""}, True),
        ("k in (a,)", {"k": ""}, True),
        ("k=", {"k": ""}, True),
        ("tier>1", {"tier": "2"}, True),
        ("tier>1", {"tier": "x"}, False),
        ("tier<1", {}, False),
        ("in in (in,notin)", {"in": "notin"}, True),
    ],
)
def test_a_selector_matches_labels(text, labels, expected):
    assert parse_labels(text).matches(labels) is expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=x=y", "found '=', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("app=x,", "found '', expected: identifier after ','"),
        ("=x", "found '=', expected: !, identifier, or 'end of string'"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a x", "unable to parse requirement: found 'x', expected: in, notin, =, ==, !=, gt, lt"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ],
)
def test_refusals_are_worded_like_the_originals(text, error):
    with pytest.raises(ValueError) as caught:
        parse_labels(text)
    assert str(caught.value) == error


def test_text_is_sorted_by_key():
    selector = from_object(
        {
            "matchLabels": {"z": "1", "a": "b"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["y", "x"]},
                {"key": "a", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert str(selector) == "a=b,a,!old,tier in (x,y),z=1"


def test_no_selector_matches_nothing_and_an_empty_one_everything():
    assert not from_object(None).matches({})
    assert from_object({}).matches({"a": "b"})


_keys = st.sampled_from(["a", "b", "example.com/c"])
_values = st.sampled_from(["", "x", "y", "1"])


@given(st.dictionaries(_keys, _values), st.dictionaries(_keys, _values))
def test_a_map_matches_its_supersets(wanted, labels):
    expected = all(labels.get(k) == v for k, v in wanted.items())
    assert from_map(wanted).matches(labels) is expected
    assert parse_labels(str(from_map(wanted))).matches(labels) is expected


@given(
    st.lists(
        st.tuples(_keys, st.sampled_from(["in", "notin"]), st.lists(_values, min_size=1, max_size=3)),
        max_size=3,
    )
)
def test_text_reads_back_as_the_same_selector(terms):
    text = ",".join(f"{k} {op} ({','.join(vs)})" for k, op, vs in terms)
    selector = parse_labels(text)
    assert parse_labels(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("metadata.name=a", [("metadata.name", "=", "a")]),
        ("a==b,c!=d", [("a", "=", "b"), ("c", "!=", "d")]),
        (r"a=x\,y\=z\\", [("a", "=", "x,y=z\\")]),
        ("spec.nodeName=", [("spec.nodeName", "=", "")]),
    ],
)
def test_field_terms(text, terms):
    assert parse_fields(text) == terms


def test_field_refusal():
    with pytest.raises(
        ValueError, match="invalid selector: 'metadata.name'; can't understand 'metadata.name'"
    ):
        parse_fields("metadata.name")
