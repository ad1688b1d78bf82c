"""`authorizer`: what a policy may ask about rights. Each check costs as much as the original says: it may be a webhook there.

Source: Kubernetes documentation, "Kubernetes authorizer library" of CEL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan.api.cel.functions import add, define
from sampan.api.cel.types import KINDS
from sampan.api.cel.values import CelError

CHECK_COST = 350_000
_BASE = "kubernetes.authorization."

# what is asked (user, path, group, resource, subresource, namespace, name, verb …) -> (allowed, reason)
Ask = Callable[[Mapping[str, Any]], tuple[bool, str]]


class Authorizer:
    """`ask` decides; `asked` is what is known already of the question."""

    __slots__ = ("ask", "asked")

    def __init__(self, ask: Ask, asked: Mapping[str, Any]) -> None:
        self.ask, self.asked = ask, asked


class PathCheck(Authorizer):
    """A path that is no resource, to be asked about."""

    __slots__ = ()


class GroupCheck(Authorizer):
    """An API group, on the way to a resource."""

    __slots__ = ()


class ResourceCheck(Authorizer):
    """A resource, to be asked about."""

    __slots__ = ()


class Decision:
    """Whether a verb is allowed, and why."""

    __slots__ = ("allowed", "reason")

    def __init__(self, allowed: bool, reason: str) -> None:
        self.allowed, self.reason = allowed, reason


for _class in (Authorizer, PathCheck, GroupCheck, ResourceCheck, Decision):
    KINDS[_class] = _BASE + _class.__name__


def _more(made: type[Authorizer], key: str) -> Callable[[Authorizer, str], Authorizer]:
    return lambda known, value: made(known.ask, {**known.asked, key: value})


@define(f"{_BASE}Authorizer.path(string): {_BASE}PathCheck")
def _path(known: Authorizer, path: str) -> PathCheck:
    if not path:
        raise CelError("path must not be empty")
    return PathCheck(known.ask, {**known.asked, "path": path})


@define(f"{_BASE}Authorizer.serviceAccount(string, string): {_BASE}Authorizer")
def _account(known: Authorizer, namespace: str, name: str) -> Authorizer:
    if not namespace or not name:
        raise CelError("Invalid service account name or namespace")
    return Authorizer(known.ask, {**known.asked, "account": (namespace, name)})


add(f"{_BASE}Authorizer.group(string): {_BASE}GroupCheck", _more(GroupCheck, "group"))
add(f"{_BASE}GroupCheck.resource(string): {_BASE}ResourceCheck", _more(ResourceCheck, "resource"))
for _key in ("subresource", "namespace", "name", "fieldSelector", "labelSelector"):
    add(f"{_BASE}ResourceCheck.{_key}(string): {_BASE}ResourceCheck", _more(ResourceCheck, _key))


@define(f"{_BASE}PathCheck.check(string): {_BASE}Decision", cost=CHECK_COST)
@define(f"{_BASE}ResourceCheck.check(string): {_BASE}Decision", cost=CHECK_COST)
def _check(known: Authorizer, verb: str) -> Decision:
    return Decision(*known.ask({**known.asked, "verb": verb}))


add(f"{_BASE}Decision.allowed(): bool", lambda d: d.allowed)
add(f"{_BASE}Decision.reason(): string", lambda d: d.reason)
add(f"{_BASE}Decision.errored(): bool", lambda d: False)
add(f"{_BASE}Decision.error(): string", lambda d: "")
