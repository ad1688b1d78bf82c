"""The shape of a parsed expression. `at` is the offset that a refusal points at; `type` is set when it is checked."""

from __future__ import annotations

from typing import Any


class Expr:
    """A node of the tree; `at`: where it begins in the text."""

    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at


class Const(Expr):
    __slots__ = ("value",)

    def __init__(self, at: int, value: Any) -> None:
        super().__init__(at)
        self.value = value


class Name(Expr):
    __slots__ = ("name",)

    def __init__(self, at: int, name: str) -> None:
        super().__init__(at)
        self.name = name


class Select(Expr):
    """`operand.field`; `operand.?field` when optional; `has(operand.field)` when it is a test."""

    __slots__ = ("field", "operand", "optional", "test")

    def __init__(
        self, at: int, operand: Expr, field: str, optional: bool = False, test: bool = False
    ) -> None:
        super().__init__(at)
        self.operand, self.field, self.optional, self.test = operand, field, optional, test


class Call(Expr):
    """A function, method (`target` is given) or operator (`_+_`, `_[_]`, `!_`, `@in` …)."""

    __slots__ = ("args", "function", "target")

    def __init__(self, at: int, function: str, args: list[Expr], target: Expr | None = None) -> None:
        super().__init__(at)
        self.function, self.args, self.target = function, args, target


class Logic(Expr):
    """`a && b && c` or `a || b || c`: one node however many parts, so that long chains stay flat."""

    __slots__ = ("conjunction", "parts")

    def __init__(self, at: int, conjunction: bool, parts: list[Expr]) -> None:
        super().__init__(at)
        self.conjunction, self.parts = conjunction, parts


class Choice(Expr):
    """`condition ? then : otherwise`."""

    __slots__ = ("condition", "otherwise", "then")

    def __init__(self, at: int, condition: Expr, then: Expr, otherwise: Expr) -> None:
        super().__init__(at)
        self.condition, self.then, self.otherwise = condition, then, otherwise


class ListOf(Expr):
    """`[a, ?b]`: items with whether they are optional."""

    __slots__ = ("items",)

    def __init__(self, at: int, items: list[tuple[Expr, bool]]) -> None:
        super().__init__(at)
        self.items = items


class MapOf(Expr):
    """`{k: v, ?k: v}`."""

    __slots__ = ("entries",)

    def __init__(self, at: int, entries: list[tuple[Expr, Expr, bool]]) -> None:
        super().__init__(at)
        self.entries = entries


class Make(Expr):
    """`Object.spec{replicas: 3, ?paused: x}`: a value of a named type, its fields with whether they are optional."""

    __slots__ = ("fields", "name")

    def __init__(self, at: int, name: str, fields: list[tuple[str, Expr, bool]]) -> None:
        super().__init__(at)
        self.name, self.fields = name, fields


class Macro(Expr):
    """all, exists, exists_one, map, filter, the two-variable ones, bind, optMap, optFlatMap.

    `range` is what is walked (the value of `bind`); `names` the variables; `args` the parts evaluated for each.
    """

    __slots__ = ("args", "kind", "names", "range")

    def __init__(self, at: int, kind: str, range: Expr, names: list[str], args: list[Expr]) -> None:
        super().__init__(at)
        self.kind, self.range, self.names, self.args = kind, range, names, args
