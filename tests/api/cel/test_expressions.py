"""Expressions and what they come to; refusals in the original's words."""

from __future__ import annotations

import timeit

import pytest

from sampan.api import cel, schema
from sampan.api.cel.values import UInt

OBJECT = {
    "type": "object",
    "properties": {
        "a": {"type": "integer"},
        "f": {"type": "number"},
        "s": {"type": "string"},
        "namespace": {"type": "string"},
        "with-dash": {"type": "string"},
        "x__y": {"type": "integer"},
        "at": {"type": "string", "format": "date-time"},
        "span": {"type": "string", "format": "duration"},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
            },
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "any": {"x-kubernetes-int-or-string": True},
        "list": {"type": "array", "items": {"type": "integer"}},
    },
}
SELF = {
    "a": 3,
    "f": 2,
    "s": "abc",
    "namespace": "d",
    "with-dash": "w",
    "x__y": 7,
    "at": "2026-01-02T03:04:05.5Z",
    "span": "1h30m",
    "set": ["p", "q"],
    "ports": [{"name": "web", "port": 80}, {"name": "tls", "port": 443}],
    "labels": {"app": "x", "tier": "y"},
    "any": "50%",
    "list": [3, 1, 2],
}
TYPE = cel.declared(schema.from_part(OBJECT))


def evaluate(text, kind=TYPE, value=SELF):
    value = kind.convert(value) if kind.convert else value
    return cel.compile(text, {"self": kind}).evaluate([value])[0]


TRUE = """
self.a == 3 && self.a != 4 && self.a >= 3
self.a + 1 == 4 && self.a * 2 - 1 == 5 && self.a / 2 == 1 && self.a % 2 == 1
-7 / 2 == -3 && -7 % 2 == -1 && 7 / -2 == -3
self.f == 2.0 && self.f / 4.0 == 0.5
self.a > 2.5 && 2u < self.a
self.s + 'd' == 'abcd' && size(self.s) == 3 && self.s.size() == 3
self.__namespace__ == 'd' && self.with__dash__dash == 'w' && self.x__underscores__y == 7
self.at < timestamp('2026-02-01T00:00:00Z') && self.at.getFullYear() == 2026 && self.at.getMonth() == 0
self.at.getHours('+02:00') == 5 && self.at.getMilliseconds() == 500 && self.at.getDayOfWeek() == 5
self.at + self.span > self.at && self.span == duration('90m') && self.span.getMinutes() == 90
string(self.span) == '5400s' && string(self.at) == '2026-01-02T03:04:05.5Z'
self.set == ['q', 'p'] && size(self.set + ['q', 'r']) == 3
size(self.ports + self.ports) == 2 && self.ports + self.ports == self.ports
self.ports.all(p, p.port > 0) && self.ports.exists(p, p.name == 'tls') && self.ports.exists_one(p, p.port == 80)
self.ports.map(p, p.port) == [80, 443] && self.ports.filter(p, p.port > 100).size() == 1
self.ports.map(p, p.port > 100, p.name) == ['tls']
self.labels.all(k, k.startsWith('a') || k == 'tier') && 'app' in self.labels && !('x' in self.labels)
self.labels.all(k, v, size(k) >= size(v)) && self.list.exists(i, v, i == 1 && v == 1)
self.list.transformList(i, v, i + v) == [3, 2, 4] && self.labels.transformMap(k, v, v + '!')['app'] == 'x!'
self.list.transformMap(i, v, v > 1, v)[2] == 2 && {'a': 1}.transformMapEntry(k, v, {v: k})[1] == 'a'
self.list[0] == 3 && self.labels['app'] == 'x' && 2 in self.list
has(self.a) && !has(self.labels.nope) && has(self.labels.app)
self.?a.orValue(0) == 3 && self.labels[?'no'].orValue('z') == 'z' && self.list[?9].hasValue() == false
optional.of(1).value() == 1 && optional.none().orValue(2) == 2 && !optional.ofNonZeroValue('').hasValue()
optional.of(2).optMap(x, x * 2).value() == 4 && optional.of(2).or(optional.of(3)).value() == 2
{'a': 1, ?'b': optional.none()}.size() == 1 && [1, ?optional.of(2)] == [1, 2]
type(self.any) == string && type(1) == int && type(null) == null_type && type({}) == map
self.any == '50%' && string(self.any).endsWith('%')
int('5') == 5 && uint(5) == 5u && double('1.5') == 1.5 && string(1.0) == '1' && string(1e6) == '1e+06' && bool('true')
'é'.size() == 1 && b'é'.size() == 2 && b'abc' == bytes('abc') && string(b'abc') == 'abc'
'hello'.charAt(1) == 'e' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3
'Hé'.lowerAscii() == 'hé' && 'abc'.upperAscii() == 'ABC' && ' a '.trim() == 'a' && 'abc'.reverse() == 'cba'
'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && ['a', 'b'].join('-') == 'a-b'
'hello'.substring(1, 3) == 'el' && 'hello'.replace('l', 'L', 1) == 'heLlo'
'%s has %d, %.2f, %x, %b'.format(['x', 3, 1.5, 255, 5]) == 'x has 3, 1.50, ff, 101'
'%s'.format([[1, 'a', null]]) == '[1, a, null]'
'abc'.matches('^a.c$') && 'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22']
[1, 2, 3].sum() == 6 && [3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2].isSorted() && ![2, 1].isSorted()
[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1, 1, 2].distinct() == [1, 2]
[[1], [2]].flatten() == [1, 2] && [1, 2, 3].slice(1, 2) == [2] && [2, 1].sort() == [1, 2]
sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])
math.greatest(1, 5, 3) == 5 && math.least([4, 2]) == 2 && math.abs(-3) == 3 && math.ceil(1.2) == 2.0
math.bitAnd(6, 3) == 2 && math.bitShiftLeft(1, 3) == 8 && math.sign(-2) == -1
url('https://u@example.com:80/p%20q?k=v').getHost() == 'example.com:80' && isURL('/path') && !isURL('x y')
url('https://example.com:80/p?k=v').getQuery()['k'] == ['v'] && url('https://[::1]:80/').getHostname() == '::1'
quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1500m').compareTo(quantity('1.5')) == 0
quantity('1').add(2) == quantity('3') && quantity('50k').asInteger() == 50000 && !isQuantity('1x')
ip('10.0.0.1').family() == 4 && ip('::1').isLoopback() && isIP('fe80::1') && !isIP('10.0.0.256')
ip.isCanonical('::1') && !ip.isCanonical('0:0::1') && ip('10.0.0.1').isGlobalUnicast()
cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')
cidr('10.0.0.1/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8 && !isCIDR('10.0.0.0')
semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-a').isLessThan(semver('1.0.0')) && !isSemver('v1')
semver('v1.02', true).minor() == 2 && isSemver('1.2.3+b')
!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('No').hasValue()
format.named('uuid').hasValue() && !format.named('x').hasValue()
cel.bind(x, self.a + 1, x * x) == 16
true || 1 / 0 == 1
1 / 0 == 1 || true
!(false && 1 / 0 == 1)
[0, 1].exists(x, 1 / x == 1)
self.a > 2 ? true : 1 / 0 == 1
dyn(1) == dyn(1.0) && dyn(1) != dyn('1') && dyn(true) != dyn(1)
duration('1.5s').getMilliseconds() == 1500 && timestamp('1970-01-01T00:00:10Z') == timestamp(10)
r'\\d' == '\\\\d' && '\\u00e9' == 'é' && '''a'b''' == "a'b" && 0x10 == 16 && 1e3 == 1000.0
""".strip().splitlines()


@pytest.mark.parametrize("text", TRUE)
def test_expressions_that_hold(text):
    assert evaluate(text) is True


CONVERTED = ("self.at", "self.span", "self.set", "self.f", "__", "self.ports +", "self.?")  # by their schema


@pytest.mark.parametrize("text", [t for t in TRUE if not any(part in t for part in CONVERTED)])
def test_the_same_without_a_schema(text):
    """Types are then found by the values, as in policies; only what a schema converts is left out."""
    assert evaluate(text, cel.DYN) is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("self.list[7]", "index out of bounds: 7"),
        ("self.labels.nope", "no such key: nope"),
        ("self.labels['nope']", "no such key: nope"),
        ("optional.none().value()", "optional.none() dereference"),
        ("'abc'.charAt(9)", "index out of range: 9"),
        ("[].min()", "min called on empty list"),
        ("self.any > 5", "no such overload"),
        ("dyn('a') + dyn(1)", "no such overload"),
        ("[1].all(x, 1 / 0 == x)", "division by zero"),
        ("quantity('x')", "quantities must match the regular expression"),
        ("duration('x')", 'time: invalid duration "x"'),
    ],
)
def test_expressions_that_fail(text, message):
    with pytest.raises(cel.CelError) as caught:
        evaluate(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self.b", "ERROR: <input>:1:5: undefined field 'b'\n | self.b\n | ....^"),
        (
            "self.a == 'x'",
            "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'\n"
            " | self.a == 'x'\n | .......^",
        ),
        ("other", "ERROR: <input>:1:1: undeclared reference to 'other' (in container '')\n | other\n | ^"),
        (
            "true &&\n nope(1)",
            "ERROR: <input>:2:6: undeclared reference to 'nope' (in container '')\n |  nope(1)\n | .....^",
        ),
        ("self.a +", "<input>:1:9: Syntax error: mismatched input '<EOF>' expecting {'['"),
        ("self.a self.b", "<input>:1:8: Syntax error: extraneous input 'self' expecting <EOF>"),
        ("'x'.size(1)", "found no matching overload for 'size' applied to 'string.(int)'"),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("has(self)", "invalid argument to has() macro"),
        ("for == 1", "reserved identifier: for"),
        ("self.a.b", "type 'int' does not support field selection"),
        ("self.a.all(x, true)", "expression of type 'int' cannot be range of a comprehension"),
        ("1 && true", "found no matching overload for '_&&_' applied to '(int, bool)'"),
        ("true ? 1 : 'a'", "found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
        ("'a", "Syntax error: token recognition error at: ''a'"),
        ("(" * 300 + "1" + ")" * 300, "expression recursion limit exceeded: 250"),
        ("[" * 90 + "]" * 90 + "[0]" * 300, "expression recursion limit exceeded: 250"),
        ("+".join("1" * 500), "expression recursion limit exceeded: 250"),
        ("1" * 100_001, "expression code point size exceeds limit: size: 100001, limit 100000"),
    ],
)
def test_expressions_that_are_refused(text, message):
    with pytest.raises(cel.CompileError) as caught:
        cel.compile(text, {"self": TYPE})
    assert message in str(caught.value)


def test_long_chains_of_conditions_are_flat():
    text = " && ".join(f"self.a != {n + 10}" for n in range(2000))
    assert evaluate(text) is True


def test_cost_counts_work_and_ends_it():
    items = list(range(1000))
    program = cel.compile("self.all(x, self.all(y, x + y >= 0))", {"self": cel.DYN})
    with pytest.raises(cel.CostExceeded, match="operation cancelled: actual cost limit exceeded"):
        program.evaluate([items])
    _, small = program.evaluate([[1, 2]])
    _, more = program.evaluate([[1, 2, 3]])
    assert 0 < small < more < 200


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("self.a", 2),
        ("self.a > 1", 3),
        ("self.s == 'abc'", 3),
        ("self.list.all(x, x > 0)", 2 + 1 + 3 * (3 + 2)),
        ("true ? self.a : 1", 2),
    ],
)
def test_cost_of_parts(text, cost):
    assert cel.compile(text, {"self": TYPE}).evaluate([SELF])[1] == cost


def test_unsigned_values():
    assert evaluate("3u - 1u") == UInt(2)
    with pytest.raises(cel.CelError, match="unsigned integer overflow"):
        evaluate("1u - 2u")


def test_rules_over_lists_are_quick():
    kind = cel.declared(
        schema.from_part(
            {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}}
        )
    )
    program = cel.compile("self.all(x, x.a > 0)", {"self": kind})
    items = [{"a": 1} for _ in range(20)]
    best = min(timeit.repeat(lambda: program.evaluate([items]), number=200, repeat=5)) / 200
    assert best < 50e-6
