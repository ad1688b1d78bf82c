"""Compile an expression, and evaluate it under a limit.

Refusals of an expression show its line and a mark under the place, as the original's compiler prints them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sampan.api.cel import lib_authorizer, lib_kubernetes, lib_text, lib_time  # noqa: F401 (they fill the table)
from sampan.api.cel.closures import FAILURES, FIRST
from sampan.api.cel.compile import Compiler
from sampan.api.cel.lexer import SyntaxProblem
from sampan.api.cel.parser import parse
from sampan.api.cel.types import Type
from sampan.api.cel.values import CelError, CostExceeded

CALL_LIMIT = 1_000_000  # cost of one evaluation, as the original has it


class CompileError(Exception):
    """`str()` is the original's text: `ERROR: <input>:1:6: undefined field 'b'` with the line and a mark."""


class Program:
    """A compiled expression. `used` are the names of variables in it."""

    __slots__ = ("_names", "_pad", "_run", "cost", "text", "type", "used")

    def __init__(
        self,
        text: str,
        variables: Mapping[str, Type],
        makeable: Callable[[str], Type | None] | None = None,
    ) -> None:
        """`makeable` gives types by name that the expression may make values of. Raises CompileError."""
        self.text = text
        compiler = Compiler(variables, makeable)
        try:
            code = compiler.visit(parse(text))
        except SyntaxProblem as problem:
            raise CompileError(_located(text, [(problem.at, problem.message)])) from None
        except RecursionError:
            raise CompileError(_located(text, [(0, "expression recursion limit exceeded: 250")])) from None
        if compiler.problems:
            raise CompileError(_located(text, compiler.problems))
        self.type = code.type
        self.used = frozenset(compiler.used)
        self.cost = code.cost
        self._run = code.run
        self._names = tuple(variables)
        self._pad = [None] * (compiler.slots - FIRST - len(self._names))

    def evaluate(self, values: Sequence[Any], limit: int = CALL_LIMIT) -> tuple[Any, int]:
        """(result, cost); `values` in the order of the variables. Raises CelError, CostExceeded (they carry `cost`)."""
        frame = [self.cost, limit, *values, *self._pad]
        try:
            result = self._run(frame)
        except (CelError, CostExceeded) as error:
            error.cost = frame[0]
            raise
        except FAILURES:
            failure = CelError("no such overload")
            failure.cost = frame[0]
            raise failure from None
        except RecursionError:
            raise CelError("recursion limit exceeded") from None
        if frame[0] > limit:
            raise CostExceeded("operation cancelled: actual cost limit exceeded")
        return result, frame[0]


def _located(text: str, problems: list[tuple[int, str]]) -> str:
    lines = text.split("\n")
    shown = []
    for at, message in sorted(problems, key=lambda p: p[0]):
        before = text[:at]
        line, column = before.count("\n"), at - (before.rfind("\n") + 1)
        mark = "." * column + "^"
        shown.append(f"ERROR: <input>:{line + 1}:{column + 1}: {message}\n | {lines[line]}\n | {mark}")
    return "\n".join(shown)
