"""`x-kubernetes-validations`: rules in a schema, compiled once for each definition and run on every write.

Source: Kubernetes documentation, "Validation rules" of CustomResourceDefinitions; KEP-2876; KEP-4008 (ratcheting).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from sampan.api.cel.program import CompileError, Program
from sampan.api.cel.types import Type, declared, optional_of
from sampan.api.cel.values import NONE, CelError, CostExceeded, Optional
from sampan.api.schema import Node
from sampan.api.status import FieldError, show

BUDGET = 10_000_000  # cost of all rules of one object
_MESSAGE_LIMIT = 5 * 1024  # of what a messageExpression gives
_BLOCKING = ("FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid")
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to "
    "complete validation"
)
_OUT = "validation failed due to running out of cost budget, no further validation rules will be run"
_ABSENT: Any = object()


class Rule:
    """One compiled rule of a value of type `kind`; `raw` is its text in the definition."""

    __slots__ = ("message", "optional_old", "path", "program", "raw", "text", "uses_old")

    def __init__(self, raw: dict[str, Any], kind: Type) -> None:
        """Raises CompileError."""
        self.raw = raw
        self.text = raw.get("rule", "").strip()
        self.optional_old = bool(raw.get("optionalOldSelf"))
        variables = {"self": kind, "oldSelf": optional_of(kind) if self.optional_old else kind}
        self.program = Program(self.text, variables)
        if self.program.type.kind not in ("bool", "dyn"):
            raise CompileError("cel expression must evaluate to a bool")
        self.uses_old = "oldSelf" in self.program.used
        names = path_names(raw.get("fieldPath") or "")
        self.path = "".join(f".{n}" if re.fullmatch(r"[\w-]+", n) else f"[{n}]" for n in names)
        self.message = None
        if expression := (raw.get("messageExpression") or "").strip():
            self.message = message_program(expression, variables)

    @property
    def shown(self) -> str:
        """How failures to evaluate name the rule."""
        return (self.raw.get("message") or "").strip() or self.text

    @property
    def default_message(self) -> str:
        return (self.raw.get("message") or "").strip() or f"failed rule: {self.text}"


def message_program(expression: str, variables: dict[str, Type]) -> Program:
    """A messageExpression. Raises CompileError."""
    program = Program(expression, variables)
    if program.type.kind not in ("string", "dyn"):
        raise CompileError("messageExpression must evaluate to a string")
    return program


_PATH = re.compile(r"\.([a-zA-Z_][\w-]*)|\[(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\]")


def path_names(text: str) -> list[str]:
    """`.spec.size`, `.spec['my.key']` as names of properties. Raises CompileError."""
    names, at = [], 0
    text = text.strip()
    while at < len(text):
        found = _PATH.match(text, at)
        if found is None:
            raise CompileError(f"{text[at:]} is not the path of a property")
        names.append(found[1] or re.sub(r"\\(.)", r"\1", found[2] or found[3] or ""))
        at = found.end()
    return names


class Validator:
    """The rules of a place in a schema and of all below it."""

    __slots__ = ("additional", "items", "kind", "keys", "node", "properties", "rules")

    def __init__(self, node: Node, *, root: bool = False) -> None:
        self.node = node
        self.kind = declared(node, root=root)
        self.rules: list[Rule | tuple[dict[str, Any], str]] = []
        for raw in node.raw.get("x-kubernetes-validations") or ():
            try:
                if self.kind is not None:
                    self.rules.append(Rule(raw, self.kind))
            except CompileError as error:
                self.rules.append((raw, str(error)))
        self.properties = {
            key: found
            for key, child in sorted(node.properties.items())
            if child.custom and (found := Validator(child)).any
        }
        self.items = self._below(node.items)
        self.additional = self._below(node.additional)
        self.keys = node.map_keys if node.list_type == "map" else ()

    @staticmethod
    def _below(node: Node | None) -> Validator | None:
        found = Validator(node) if node is not None else None
        return found if found is not None and found.any else None

    @property
    def any(self) -> bool:
        return bool(self.rules or self.properties or self.items or self.additional)


class _Run:
    """One object on its way through all rules, with what they may still cost."""

    __slots__ = ("budget", "errors")

    def __init__(self) -> None:
        self.budget = BUDGET
        self.errors: list[FieldError] = []

    def visit(self, validator: Validator, value: Any, old: Any, path: str) -> None:
        """`old` is what the value was before; _ABSENT when there is nothing to compare with."""
        if value is None or self.budget < 0:
            return
        if validator.rules:
            self._rules(validator, value, old, path)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for key, child in validator.properties.items():
                if key in value:
                    self.visit(child, value[key], before.get(key, _ABSENT), f"{path}.{key}" if path else key)
            if validator.additional is not None:
                for key, item in value.items():
                    if key not in validator.node.properties:
                        self.visit(validator.additional, item, before.get(key, _ABSENT), f"{path}[{key}]")
        elif isinstance(value, list) and validator.items is not None:
            known = _by_key(old, validator.keys)
            for number, item in enumerate(value):
                self.visit(
                    validator.items, item, known.get(_key(item, validator.keys), _ABSENT), f"{path}[{number}]"
                )

    def _rules(self, validator: Validator, value: Any, old: Any, path: str) -> None:
        kind = validator.kind
        assert kind is not None
        had = old is not _ABSENT and old is not None
        try:
            now = kind.convert(value) if kind.convert else value
            before = kind.convert(old) if kind.convert and had else old
        except CelError as error:
            self._fail(path, value, str(error))
            return
        same = had and orjson.dumps(value) == orjson.dumps(old)
        for rule in validator.rules:
            if isinstance(rule, tuple):
                self._fail(path, value, f"rule compile error: compilation failed: {rule[1]}")
                continue
            if self.budget < 0:
                return
            if rule.uses_old:
                if not had and not rule.optional_old:
                    continue
            elif same:  # what was there before may stay (ratcheting)
                continue
            previous: Any = before if had else None
            if rule.optional_old:
                previous = Optional(before) if had else NONE
            self._one(rule, [now, previous], path, value)

    def _one(self, rule: Rule, values: list[Any], path: str, value: Any) -> None:
        try:
            holds, cost = rule.program.evaluate(values)
        except CostExceeded as error:
            why = "no further validation rules will be run due to call cost exceeds limit for rule"
            self._fail(path, value, f"'{error}': {why}: {rule.shown}")
            self.budget = -1
            return
        except CelError as error:
            self.budget -= error.cost
            if str(error).startswith("no such overload"):
                why = (
                    "call arguments did not match a supported operator, function or macro signature for rule"
                )
                self._fail(path, value, f"'{error}': {why}: {rule.shown}")
            else:
                self._fail(path, value, f"{error} evaluating rule: {rule.shown}")
            return
        if cost > self.budget:
            self._fail(path, value, _OUT)
            self.budget = -1
            return
        self.budget -= cost
        if holds is not True:
            message = self._message(rule, values)
            self.errors.append(_refusal(rule, f"{path}{rule.path}".lstrip("."), value, message))

    def _message(self, rule: Rule, values: list[Any]) -> str:
        """What the messageExpression gives, if that can be shown."""
        if rule.message is None:
            return rule.default_message
        try:
            text, cost = rule.message.evaluate(values)
        except (CelError, CostExceeded):
            return rule.default_message
        self.budget -= cost
        fits = isinstance(text, str) and text.strip() and "\n" not in text and len(text) <= _MESSAGE_LIMIT
        return text.strip() if fits else rule.default_message

    def _fail(self, path: str, value: Any, detail: str) -> None:
        self.errors.append(
            FieldError("FieldValueInvalid", path or "<nil>", f"Invalid value: {_shown(value)}{detail}")
        )


def _shown(value: Any) -> str:
    """Simple values are shown in refusals, others are not (1.35)."""
    return "" if isinstance(value, dict | list) else f"{show(value)}: "


def _refusal(rule: Rule, path: str, value: Any, message: str) -> FieldError:
    path = path or "<nil>"
    match rule.raw.get("reason"):
        case "FieldValueRequired":
            return FieldError("FieldValueRequired", path, f"Required value: {message}")
        case "FieldValueForbidden":
            return FieldError("FieldValueForbidden", path, f"Forbidden: {message}")
        case "FieldValueDuplicate":
            shown = "" if isinstance(value, dict | list) else f": {show(value)}"
            return FieldError("FieldValueDuplicate", path, f"Duplicate value{shown}")
    return FieldError("FieldValueInvalid", path, f"Invalid value: {_shown(value)}{message}")


def _key(item: Any, keys: tuple[str, ...]) -> Any:
    return orjson.dumps([item.get(k) for k in keys]) if keys and isinstance(item, dict) else None


def _by_key(old: Any, keys: tuple[str, ...]) -> dict[Any, Any]:
    """Items of a former list by what names them: only list maps say which item is which."""
    return {_key(item, keys): item for item in old} if keys and isinstance(old, list) else {}


_validators: dict[int, tuple[Node, Validator]] = {}  # by identity of the root


def validator_of(node: Node) -> Validator:
    """The rules of a custom resource's schema, compiled once."""
    kept = _validators.get(id(node))
    if kept is None or kept[0] is not node:
        if len(_validators) > 1000:
            _validators.clear()
        kept = _validators[id(node)] = (node, Validator(node, root=True))
    return kept[1]


def validate_rules(
    node: Node, obj: dict[str, Any], old: dict[str, Any] | None, known: list[FieldError] | None = None
) -> list[FieldError]:
    """What the rules of a schema say of an object. After some errors (`known`) they are not asked."""
    validator = validator_of(node)
    if not validator.any:
        return []
    if any(e.reason in _BLOCKING for e in known or ()):
        return [FieldError("FieldValueInvalid", "<nil>", f'Invalid value: "null": {_UNCHECKED}')]
    run = _Run()
    run.visit(validator, obj, _ABSENT if old is None else old, "")
    return run.errors
