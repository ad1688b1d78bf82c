"""The Common Expression Language with Kubernetes' extensions: rules of custom resources, policies, match conditions.

    program = compile("self.replicas <= self.maxReplicas", {"self": cel.declared(node)})
    value, cost = program.evaluate([obj])

Why our own: docs/decisions/0011-cel.md. The path of an expression: `lexer`, `parser`, `compile` (types are checked, and
`closures` made), `program`. What it may call stands in the tables of `lib_*`. `rules` is what custom resources use.
"""

from __future__ import annotations

from collections.abc import Mapping

from sampan.api.cel.definitions import definition_errors
from sampan.api.cel.program import CALL_LIMIT, CompileError, Program
from sampan.api.cel.rules import validate_rules
from sampan.api.cel.types import DYN, Type, declared, object_of
from sampan.api.cel.values import CelError, CostExceeded

__all__ = [
    "CALL_LIMIT",
    "DYN",
    "CelError",
    "CompileError",
    "CostExceeded",
    "Program",
    "Type",
    "compile",
    "declared",
    "definition_errors",
    "object_of",
    "validate_rules",
]


def compile(text: str, variables: Mapping[str, Type]) -> Program:
    """The expression made ready for values of these variables. Raises CompileError."""
    return Program(text, variables)
