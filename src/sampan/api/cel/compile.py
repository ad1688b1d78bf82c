"""From `ast` to closures: types are checked and code made in one walk.

What a part surely costs is summed up here and paid once; only branches, loops and costs that depend on sizes are counted
while running. Where types are known the overload is chosen here, otherwise by the values. Source: CEL specification;
cost as cel-go counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan.api.cel import closures, comprehend, types
from sampan.api.cel.ast import Call, Choice, Const, Expr, ListOf, Logic, Macro, Make, MapOf, Name, Select
from sampan.api.cel.closures import FIRST, NOTHING, Code
from sampan.api.cel.functions import FUNCTIONS, METHODS, Family, Overload
from sampan.api.cel.lib_standard import SIMPLE, TYPE_NAMES
from sampan.api.cel.types import BOOL, DYN, INT, KINDS, STRING, TYPE, Type

_CONST_TYPES = {bool: BOOL, int: INT, str: STRING}


class Compiler:
    """`problems` are (offset, message); code is only good when there are none."""

    def __init__(
        self, variables: Mapping[str, Type], makeable: Callable[[str], Type | None] | None = None
    ) -> None:
        """`makeable` gives the type of that name when expressions may make values of it."""
        self._makeable = makeable
        self.problems: list[tuple[int, str]] = []
        self.used: set[str] = set()
        self._scope: dict[str, tuple[int, Type]] = {}
        self.slots = FIRST
        self._mixed = False  # literals here may have members of several types
        for name, kind in variables.items():
            self._scope[name] = (self.slots, kind)
            self.slots += 1

    def problem(self, at: int, message: str) -> Code:
        self.problems.append((at, message))
        return Code(DYN, lambda _: None)

    def visit(self, node: Expr) -> Code:
        """The closure that evaluates a node of the tree."""
        match node:
            case Const():
                return self._const(node.value)
            case Name():
                return self._name(node)
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case Logic():
                return self._logic(node)
            case Choice():
                return self._choice(node)
            case ListOf():
                return self._list(node)
            case MapOf():
                return self._map(node)
            case Make():
                return self._make(node)
            case Macro():
                return comprehend.macro(self, node)
        raise AssertionError(node)

    def declare(self, name: str, kind: Type) -> tuple[int, Any]:
        """A variable of a macro: (its number, what `forget` needs)."""
        before = self._scope.get(name, NOTHING)
        slot = self.slots
        self.slots += 1
        self._scope[name] = (slot, kind)
        return slot, before

    def forget(self, name: str, before: Any) -> None:
        if before is NOTHING:
            del self._scope[name]
        else:
            self._scope[name] = before

    # Leaves

    def _const(self, value: Any) -> Code:
        kind = _CONST_TYPES.get(type(value)) or types.read(KINDS[type(value)])
        return Code(kind, lambda _: value, 0, value)

    def _name(self, node: Name) -> Code:
        known = self._scope.get(node.name)
        if known is not None:
            slot, kind = known
            self.used.add(node.name)
            return Code(kind, lambda fr: fr[slot], 1, slot=slot)
        if node.name in TYPE_NAMES:
            value = TYPE_NAMES[node.name]
            return Code(TYPE, lambda _: value, 0, value)
        return self.problem(node.at, f"undeclared reference to '{node.name}' (in container '')")

    # Fields

    def _select(self, node: Select) -> Code:
        dotted = _dotted(node)
        if dotted in self._scope and not node.test:  # `authorizer.requestResource` is a variable of its own
            return self._name(Name(node.at, dotted))
        if dotted in TYPE_NAMES and dotted.partition(".")[0] not in self._scope:
            value = TYPE_NAMES[dotted]
            return Code(TYPE, lambda _: value, 0, value)
        operand = self.visit(node.operand)
        holder = operand.type.params[0] if operand.type.kind == "optional" else operand.type
        through = operand.type.kind == "optional" or node.optional
        key, kind = node.field, DYN
        if holder.kind == "object":
            field = holder.fields.get(node.field)
            if field is None:
                return self.problem(node.at, f"undefined field '{node.field}'")
            key, kind = field.key, field.type
        elif holder.kind == "map":
            kind = holder.params[1]
        elif holder.kind not in ("dyn", "param"):
            return self.problem(node.at, f"type '{holder}' does not support field selection")
        cost = operand.cost + 1
        if node.test:
            return Code(BOOL, closures.has(operand.run, key), cost)
        if through:
            return Code(types.optional_of(kind), closures.maybe_field(operand.run, key), cost)
        if operand.slot:
            return Code(kind, closures.field_of(operand.slot, key), cost)
        return Code(kind, closures.field(operand.run, key), cost)

    # Calls

    def _call(self, node: Call) -> Code:
        if node.target is not None:
            qualified = f"{_dotted(node.target)}.{node.function}"
            family = FUNCTIONS.get(qualified)
            if family is not None and qualified.partition(".")[0] not in self._scope:
                return self._apply(node, family, [self.visit(a) for a in node.args])
            operand = self.visit(node.target)
            family = METHODS.get(node.function)
            before, self._mixed = self._mixed, self._mixed or node.function == "format"
            args = [operand, *(self.visit(a) for a in node.args)]
            self._mixed = before
        else:
            family = FUNCTIONS.get(node.function)
            args = [self.visit(a) for a in node.args]
        if family is None:
            return self.problem(node.at, f"undeclared reference to '{node.function}' (in container '')")
        return self._apply(node, family, args)

    def _apply(self, node: Call, family: Family, args: list[Code]) -> Code:
        kinds = [a.type for a in args]
        fitting = family.fitting(kinds)
        if not fitting:
            shown = [str(k) for k in kinds]
            member = f"{shown.pop(0)}." if family is METHODS.get(node.function) else ""
            what = f"found no matching overload for '{family.name}' applied to '{member}({', '.join(shown)})'"
            return self.problem(node.at, what)
        result = _result(fitting, kinds)
        fixed = sum(a.cost for a in args)
        if any(k.kind in ("dyn", "param") for k in kinds) and not _generic(fitting):
            return Code(result, closures.dispatch(family, [a.run for a in args]), fixed)
        quick = closures.quick(family.name, args)
        if quick is not None:
            return Code(result, quick, fixed + 1)
        overload = fitting[0]
        if isinstance(overload.cost, int):
            return Code(result, closures.direct(overload.function, args), fixed + overload.cost)
        if family.name in ("_==_", "_!=_") and all(k.kind in SIMPLE - {"string", "bytes"} for k in kinds):
            return Code(result, closures.direct(overload.function, args), fixed + 1)
        return Code(result, closures.counted(overload.function, overload.cost, [a.run for a in args]), fixed)

    # Branches

    def condition(self, node: Expr, where: str) -> Code:
        """A part that must be a bool."""
        code = self.visit(node)
        if code.type.kind not in ("bool", "dyn", "param"):
            self.problem(node.at, where.format(code.type))
        return code

    def _logic(self, node: Logic) -> Code:
        name = "_&&_" if node.conjunction else "_||_"
        parts = [self.visit(p) for p in node.parts]
        for number, part in enumerate(parts):
            if part.type.kind not in ("bool", "dyn", "param"):
                pair = ("bool", part.type) if number else (part.type, parts[1].type)
                shown = f"({pair[0]}, {pair[1]})"
                return self.problem(node.at, f"found no matching overload for '{name}' applied to '{shown}'")
        if len(parts) == 2:
            make = closures.both if node.conjunction else closures.either
            return Code(BOOL, make(parts[0].run, parts[1].run, parts[1].cost), parts[0].cost)
        steps = [(p.run, p.cost if i else 0) for i, p in enumerate(parts)]
        return Code(BOOL, closures.chain(steps, not node.conjunction), parts[0].cost)

    def _choice(self, node: Choice) -> Code:
        test = self.visit(node.condition)
        yes, no = self.visit(node.then), self.visit(node.otherwise)
        mixed = {yes.type.kind, no.type.kind}
        kind = types.join(yes.type, no.type)
        clash = kind.kind == "dyn" and not mixed & {"dyn", "param", "null"}
        if test.type.kind not in ("bool", "dyn", "param") or clash:
            shown = f"({test.type}, {yes.type}, {no.type})"
            return self.problem(node.at, f"found no matching overload for '_?_:_' applied to '{shown}'")
        return Code(kind, closures.branch(test.run, yes, no), test.cost)

    # Aggregates

    def _same(self, node: Expr, found: Type | None, code: Code, optional: bool) -> Type:
        """Members of a list or map literal have one type."""
        kind = code.type
        if optional:
            kind = kind.params[0] if kind.kind == "optional" else DYN
        if found is None:
            return kind
        joined = types.join(found, kind)
        if (
            joined.kind == "dyn"
            and not self._mixed
            and not {found.kind, kind.kind} & {"dyn", "param", "null"}
        ):
            self.problem(node.at, f"expected type '{found}' but found '{kind}'")
        return joined

    def _list(self, node: ListOf) -> Code:
        kind: Type | None = None
        items = []
        for item, optional in node.items:
            code = self.visit(item)
            kind = self._same(item, kind, code, optional)
            items.append((code, optional))
        made = types.list_of(kind or DYN)
        cost = 10 + sum(c.cost for c, _ in items)
        if all(c.const is not NOTHING and not optional for c, optional in items):
            value = [c.const for c, _ in items]
            return Code(made, lambda _: value, cost, value)
        if any(optional for _, optional in items):
            return Code(made, closures.optional_list([(c.run, o) for c, o in items]), cost)
        runs = [c.run for c, _ in items]
        return Code(made, lambda fr: [run(fr) for run in runs], cost)

    def _map(self, node: MapOf) -> Code:
        key_type: Type | None = None
        value_type: Type | None = None
        entries = []
        cost = 30
        for key, value, optional in node.entries:
            key_code, value_code = self.visit(key), self.visit(value)
            key_type = self._same(key, key_type, key_code, False)
            value_type = self._same(value, value_type, value_code, optional)
            entries.append((key_code.run, value_code.run, optional))
            cost += key_code.cost + value_code.cost
        return Code(types.map_of(key_type or DYN, value_type or DYN), closures.map_of(entries), cost)

    def _make(self, node: Make) -> Code:
        kind = self._makeable(node.name) if self._makeable is not None else None
        if kind is None:
            return self.problem(node.at, f"undeclared reference to '{node.name}' (in container '')")
        members, cost = [], 40
        for name, value, optional in node.fields:
            code = self.visit(value)
            field = kind.fields.get(name)
            if kind.fields and field is None:
                self.problem(value.at, f"undefined field '{name}'")
            elif field is not None and not optional and not types.assignable(field.type, code.type, {}):
                wanted = (
                    f"expected type of field '{name}' is '{field.type}' but provided type is '{code.type}'"
                )
                self.problem(value.at, wanted)
            members.append((name, code.run, optional))
            cost += code.cost
        return Code(kind, closures.made(kind.name, members), cost)


def _dotted(node: Expr) -> str:
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Select) and not node.optional and not node.test:
        holder = _dotted(node.operand)
        return f"{holder}.{node.field}" if holder else ""
    return ""


def _result(fitting: list[Overload], kinds: list[Type]) -> Type:
    results = []
    for overload in fitting:
        bound: dict[str, Type] = {}
        for wanted, given in zip(overload.params, kinds, strict=True):
            types.assignable(wanted, given, bound)
        results.append(types.resolve(overload.result, bound))
    first = results[0]
    return first if all(r.kind == first.kind for r in results) else DYN


def _generic(fitting: list[Overload]) -> bool:
    """Whether the only overload takes values of any type."""
    return len(fitting) == 1 and all(p.kind in ("dyn", "param") for p in fitting[0].params)
