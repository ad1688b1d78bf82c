"""The table of functions: each overload with its signature, what it does and what it costs.

Libraries (`lib_*`) add theirs with `@define("string.charAt(int): string")`. Costs are the original's runtime costs:
1 a call, more where a call walks over text or lists. Source: CEL specification, "List of standard definitions".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api.cel import types
from sampan.api.cel.types import KINDS, Type
from sampan.api.cel.values import CelError

Cost = Callable[..., int]


class Overload:
    """`cost` is a whole number, or a function of the arguments and the result."""

    __slots__ = ("cost", "function", "params", "result")

    def __init__(
        self, params: tuple[Type, ...], result: Type, function: Callable[..., Any], cost: int | Cost
    ) -> None:
        self.params, self.result, self.function, self.cost = params, result, function, cost


class Family:
    """All overloads of a name, as a function or as a method (the target is then the first argument)."""

    __slots__ = ("name", "overloads", "seen")

    def __init__(self, name: str) -> None:
        self.name = name
        self.overloads: list[Overload] = []
        self.seen: dict[tuple[type, ...], Overload] = {}

    def fitting(self, args: list[Type]) -> list[Overload]:
        """Those whose parameters may take arguments of these types."""
        return [o for o in self.overloads if fits(o, args)]

    def find(self, *args: Any) -> Overload:
        """The overload for these values. Raises CelError."""
        key = tuple(map(type, args))
        known = self.seen.get(key)
        if known is None:
            kinds = [KINDS.get(t, "dyn") for t in key]
            known = next((o for o in self.overloads if _fits_kinds(o, kinds)), None)
            if known is None:
                raise CelError("no such overload")
            self.seen[key] = known
        return known


def fits(overload: Overload, args: list[Type]) -> bool:
    """Whether an overload takes arguments of these types; type parameters are bound on the way."""
    if len(args) != len(overload.params):
        return False
    bound: dict[str, Type] = {}
    return all(types.assignable(p, a, bound) for p, a in zip(overload.params, args, strict=True))


def _fits_kinds(overload: Overload, kinds: list[str]) -> bool:
    if len(kinds) != len(overload.params):
        return False
    pairs = zip(overload.params, kinds, strict=True)
    return all(p.kind in ("dyn", "param") or p.kind == k for p, k in pairs)


FUNCTIONS: dict[str, Family] = {}
METHODS: dict[str, Family] = {}


def define(*signatures: str, cost: int | Cost = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a Python function under signatures such as `size(string): int` and `string.size(): int`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for signature in signatures:
            add(signature, function, cost)
        return function

    return register


def add(signature: str, function: Callable[..., Any], cost: int | Cost = 1) -> None:
    """Registers an overload. `signature`: "name(types): type", or "type.name(types): type" for a method."""
    head, _, result = signature.rpartition("): ")
    name, _, inside = head.partition("(")
    target, dot, method = _method(name)
    params = [types.read(p) for p in types.split(inside)]
    if dot:
        params.insert(0, types.read(target))
    table = METHODS if dot else FUNCTIONS
    family = table.setdefault(method, Family(method))
    family.overloads.append(Overload(tuple(params), types.read(result), function, cost))


_NAMESPACES = (
    "optional.",
    "sets.",
    "math.",
    "format.",
    "semver.",
    "ip.",
    "cidr.",
    "strings.",
    "base64.",
    "jsonpatch.",
)


def _method(name: str) -> tuple[str, str, str]:
    """`list<A>.sum` and `net.IP.family` are methods; `sets.contains` and `ip.isCanonical` functions of a namespace."""
    if name.startswith(_NAMESPACES) or "." not in name:
        return "", "", name
    return name.rpartition(".")


def size(value: Any) -> int:
    """What an argument counts for in costs."""
    return len(value) if isinstance(value, str | bytes | list | dict) else 1


def walk(*args: Any) -> int:
    """Of a function that reads its first argument, text, once."""
    return (size(args[0]) + 9) // 10


def walk_both(*args: Any) -> int:
    return (size(args[0]) + size(args[1]) + 9) // 10


def walk_list(*args: Any) -> int:
    return size(args[0])


def search(*args: Any) -> int:
    """Of a regular expression over a text."""
    return ((size(args[0]) + 10) // 10) * ((size(args[1]) + 3) // 4)
