"""Label and field selectors: reading their text, their object form, and asking whether labels match.

The grammar and the refusals are the original's, because clients show them. Source: API docs, "Labels and Selectors",
"Field Selectors"; meta/v1 LabelSelector.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sampan.api.names import label_value, qualified_name
from sampan.api.status import show

_SPECIAL = "=!(),><"
_TOKENS = {"=", "==", "!=", "!", ">", "<", "(", ")", ",", "in", "notin"}
_OPERATORS = {"in", "notin", "=", "==", "!=", ">", "<"}
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII).fullmatch
_END, _WORD = "end", "word"


class Requirement(NamedTuple):
    """One term. `operator` is one of in notin = == != exists ! > <; `values` are sorted."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """`!=` and `notin` hold for an object without the label, too. Source: "Labels and Selectors"."""
        found = labels.get(self.key)
        match self.operator:
            case "=" | "==" | "in":
                return found is not None and found in self.values
            case "!=" | "notin":
                return found is None or found not in self.values
            case "exists":
                return found is not None
            case "!":
                return found is None
        if found is None or not _INTEGER(found):
            return False
        limit = int(self.values[0])
        return int(found) > limit if self.operator == ">" else int(found) < limit

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return "!" + self.key
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
        return f"{self.key}{self.operator}{self.values[0]}"


class LabelSelector:
    """A conjunction of requirements, kept sorted by key. `nothing` matches no object whatever its labels."""

    __slots__ = ("_equal", "_rest", "nothing", "requirements")

    def __init__(self, requirements: Iterable[Requirement] = (), *, nothing: bool = False) -> None:
        self.requirements = tuple(sorted(requirements, key=lambda r: r.key))
        self.nothing = nothing
        # Equality is what almost every selector is made of; it is answered without a method call.
        self._equal = tuple((r.key, r.values[0]) for r in self.requirements if r.operator in ("=", "=="))
        self._rest = tuple(r for r in self.requirements if r.operator not in ("=", "=="))

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether all requirements hold. One made of no selector at all (`nothing`) matches no object."""
        if self.nothing:
            return False
        labels = labels or {}
        for key, value in self._equal:
            if labels.get(key) != value:
                return False
        return all(r.matches(labels) for r in self._rest)

    @property
    def empty(self) -> bool:
        """Whether every object matches."""
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LabelSelector)
            and self.requirements == other.requirements
            and self.nothing == other.nothing
        )

    def __hash__(self) -> int:
        return hash((self.requirements, self.nothing))

    def __repr__(self) -> str:
        return f"LabelSelector({'nothing' if self.nothing else str(self)!r})"


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def from_map(labels: Mapping[str, str] | None) -> LabelSelector:
    """The selector of a plain map (Service, ReplicationController): all pairs must match; empty matches everything."""
    return LabelSelector(Requirement(k, "=", (v,)) for k, v in sorted((labels or {}).items()))


_OBJECT_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """The selector of a meta/v1 LabelSelector: None matches nothing, `{}` everything.

    Raises ValueError for an operator, key or value that cannot be.
    """
    if selector is None:
        return NOTHING
    terms = [Requirement(k, "=", (v,)) for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        operator = _OBJECT_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise ValueError(f'"{expression.get("operator", "")}" is not a valid label selector operator')
        values = expression.get("values") or ()
        terms.append(Requirement(expression.get("key", ""), operator, tuple(sorted(set(values)))))
    for term in terms:
        _check(term, "")
    return LabelSelector(terms)


def parse_labels(text: str) -> LabelSelector:
    """The selector of a `labelSelector` query such as `app=x,tier in (a,b),!old`. Raises ValueError."""
    if not text or text.isspace():
        return EVERYTHING
    return LabelSelector(_Parser(text).parse())


class _Parser:
    """Recursive descent over the tokens; `in` and `notin` are words wherever a key or value may stand."""

    def __init__(self, text: str) -> None:
        self._tokens = [*_scan(text), (_END, "")]
        self._at = 0

    def parse(self) -> list[Requirement]:
        terms: list[Requirement] = []
        while True:
            kind, literal = self._peek()
            if kind == _END:
                return terms
            if kind not in (_WORD, "!"):
                raise ValueError(f"found '{literal}', expected: !, identifier, or 'end of string'")
            try:
                terms.append(self._requirement())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from None
            kind, literal = self._next()
            if kind == _END:
                return terms
            if kind != ",":
                raise ValueError(f"found '{literal}', expected: ',' or 'end of string'")
            kind, literal = self._peek()
            if kind not in (_WORD, "!"):
                raise ValueError(f"found '{literal}', expected: identifier after ','")

    def _peek(self) -> tuple[str, str]:
        kind, literal = self._tokens[self._at]
        return (_WORD if kind in ("in", "notin") else kind), literal

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _requirement(self) -> Requirement:
        kind, key = self._next()
        absent = kind == "!"
        if absent:
            kind, key = self._next()
        if kind != _WORD:
            raise ValueError(f"found '{key}', expected: identifier")
        _check(Requirement(key, "!"), "<nil>")
        if absent or self._peek()[0] in (_END, ","):
            return Requirement(key, "!" if absent else "exists")
        operator, literal = self._tokens[self._at]
        self._next()
        if operator not in _OPERATORS:
            raise ValueError(f"found '{literal}', expected: in, notin, =, ==, !=, gt, lt")
        values = self._values() if operator in ("in", "notin") else {self._value()}
        term = Requirement(key, operator, tuple(sorted(values)))
        _check(term, "<nil>")
        return term

    def _value(self) -> str:
        if self._peek()[0] in (_END, ","):
            return ""
        kind, literal = self._next()
        if kind != _WORD:
            raise ValueError(f"found '{literal}', expected: identifier")
        return literal

    def _values(self) -> set[str]:
        kind, literal = self._next()
        if kind != "(":
            raise ValueError(f"found '{literal}' expected: '('")
        values: set[str] = set()
        pending = True  # a value may still come: an empty one if it does not
        while True:
            kind, literal = self._next()
            if kind == ")":
                return values | {""} if pending else values
            if kind == _WORD and pending:
                values.add(literal)
                pending = False
                if self._peek()[0] not in (",", ")"):
                    raise ValueError(f"found '{self._peek()[1]}', expected: ',' or ')'")
            elif kind == ",":
                if pending:
                    values.add("")
                pending = True
            else:
                first = not values and pending
                expected = "',', ')' or identifier" if first else "',', or identifier"
                raise ValueError(f"found '{literal}', expected: {expected}")


def _scan(text: str) -> Iterable[tuple[str, str]]:
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char in " \t\r\n":
            at += 1
            continue
        start = at
        if char in _SPECIAL:
            at += 2 if text[at : at + 2] in _TOKENS else 1
            yield text[start:at], text[start:at]
            continue
        while at < end and text[at] not in _SPECIAL and text[at] not in " \t\r\n":
            at += 1
        word = text[start:at]
        yield (word if word in ("in", "notin") else _WORD), word


def _check(term: Requirement, path: str) -> None:
    """Refuses what no label can be, as the original's NewRequirement does."""
    problems = qualified_name(term.key)
    if problems:
        raise ValueError(f"{path or 'key'}: Invalid value: {show(term.key)}: {'; '.join(problems)}")
    if term.operator in ("in", "notin") and not term.values:
        raise ValueError("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    if term.operator in ("exists", "!") and term.values:
        raise ValueError(
            f"values: Invalid value: {show(list(term.values))}: values set must be empty for exists and does not exist"
        )
    for index, value in enumerate(term.values):
        if term.operator in (">", "<") and not _INTEGER(value):
            raise ValueError(
                f"values[{index}]: Invalid value: {show(value)}: for 'Gt', 'Lt' operators, the value must be an integer"
            )
        problems = label_value(value)
        if problems:
            raise ValueError(
                f"values[{index}][{term.key}]: Invalid value: {show(value)}: {'; '.join(problems)}"
            )


def parse_fields(text: str) -> list[tuple[str, str, str]]:
    """The (field, "=" or "!=", value) terms of a `fieldSelector` query. Raises ValueError.

    Commas, equals signs and backslashes of values are written with a backslash before them.
    """
    terms = []
    for part in re.findall(r"(?:\\.|[^,\\])+|\\$", text, re.DOTALL):
        match = re.match(r"(.*?)(!=|==|=)(.*)", part, re.DOTALL)
        if match is None:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = match.groups()
        terms.append((field, "!=" if operator == "!=" else "=", _unescape(value)))
    return terms


def _unescape(value: str) -> str:
    for sequence in re.findall(r"\\(.?)", re.sub(r"\\\\", "", value), re.DOTALL):
        if sequence not in (",", "="):
            raise ValueError(f"invalid field selector: invalid escape sequence: \\{sequence}")
    for char in re.sub(r"\\.", "", value, flags=re.DOTALL):
        if char == "=":
            raise ValueError(f"invalid field selector: unescaped character in value: {char}")
    return re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
