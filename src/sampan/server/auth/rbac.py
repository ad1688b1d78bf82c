"""Role-based access control as an index: subject -> grants, compiled when a role or a binding changes.

Rules only add rights; the first one that matches decides. Source: Kubernetes documentation, "Using RBAC Authorization".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sampan.client.messages import User
from sampan.server.lookup import Lookup

GROUP = "rbac.authorization.k8s.io"
BUCKETS = tuple(f"{p}.{GROUP}" for p in ("clusterroles", "clusterrolebindings", "roles", "rolebindings"))

_ALL = "*"


class Asked(Protocol):
    """What is asked for: `authorize.Attributes`, or the parsed path of a request."""

    verb: str
    is_resource: bool
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    path: str


class Rule:
    """One PolicyRule, compiled; `raw` is what was written."""

    __slots__ = ("groups", "names", "prefixes", "raw", "resources", "urls", "verbs")

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.verbs = frozenset(raw.get("verbs") or ())
        self.groups = frozenset(raw.get("apiGroups") or ())
        self.resources = frozenset(raw.get("resources") or ())
        self.names = frozenset(raw.get("resourceNames") or ())
        self.urls = frozenset(raw.get("nonResourceURLs") or ())
        self.prefixes = tuple(u.rstrip(_ALL) for u in self.urls if u.endswith(_ALL))

    def matches(self, asked: Asked) -> bool:
        """Whether the rule speaks of this, whatever the name of the object."""
        if asked.verb not in self.verbs and _ALL not in self.verbs:
            return False
        if not asked.is_resource:
            return asked.path in self.urls or any(asked.path.startswith(p) for p in self.prefixes)
        if asked.group not in self.groups and _ALL not in self.groups:
            return False
        resources = self.resources
        if _ALL in resources:
            return True
        if not asked.subresource:
            return asked.resource in resources
        return f"{asked.resource}/{asked.subresource}" in resources or f"*/{asked.subresource}" in resources


class Grant:
    """What one binding gives one subject; `error` instead of rules when its role is missing."""

    __slots__ = ("error", "order", "reason", "rules")

    def __init__(self, order: int, reason: str, rules: tuple[Rule, ...], error: str) -> None:
        self.order = order
        self.reason = reason
        self.rules = rules
        self.error = error


@dataclass(slots=True)
class Decision:
    """`by_name`: a denial that a rule with resourceNames might still lift for a certain name."""

    allowed: bool
    reason: str
    by_name: bool = False


class UserGrants:
    """All grants of one user: those that hold everywhere, and those of each namespace."""

    __slots__ = ("_cluster", "_spaces")

    def __init__(self, cluster: list[Grant], spaces: dict[str, list[Grant]]) -> None:
        self._cluster = cluster
        self._spaces = spaces

    def in_force(self, namespace: str) -> Iterator[Grant]:
        """Those that count in a namespace ("": for what has none)."""
        yield from self._cluster
        if namespace:
            yield from self._spaces.get(namespace, ())

    def decide(self, asked: Asked, name: str) -> Decision:
        """Whether a rule allows it. `by_name`: a rule would, for some names; then the answer may be kept for this name only."""
        errors: list[str] = []
        by_name = False
        for grant in self.in_force(asked.namespace):
            if grant.error:
                errors.append(grant.error)
            for rule in grant.rules:
                if rule.matches(asked):
                    if not rule.names or not asked.is_resource or name in rule.names:
                        return Decision(True, grant.reason)
                    by_name = True
        return Decision(False, f"RBAC: {aggregate(errors)}" if errors else "", by_name)


class Index:
    """The whole of RBAC at one moment."""

    def __init__(self, lookup: Lookup) -> None:
        self._roles: dict[tuple[str, str], tuple[Rule, ...]] = {}
        for role in lookup.list(BUCKETS[0]):
            self._roles["", role["metadata"]["name"]] = _compile(role)
        for role in lookup.list(BUCKETS[2]):
            self._roles[role["metadata"]["namespace"], role["metadata"]["name"]] = _compile(role)
        self._cluster: dict[str, list[Grant]] = {}
        self._spaces: dict[str, dict[str, list[Grant]]] = {}
        self._users: dict[tuple[str, tuple[str, ...]], UserGrants] = {}
        bindings = lookup.list(BUCKETS[1]) + lookup.list(BUCKETS[3])
        for order, binding in enumerate(bindings):
            self._bind(binding, order)

    def _bind(self, binding: Mapping[str, Any], order: int) -> None:
        meta, ref = binding["metadata"], binding.get("roleRef") or {}
        namespace = meta.get("namespace", "")
        rules, error = self.role(ref, namespace)
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        shown = f"{meta['name']}/{namespace}" if namespace else meta["name"]
        head = f'RBAC: allowed by {kind} "{shown}" of {ref.get("kind", "")} "{ref.get("name", "")}" to '
        for subject in binding.get("subjects") or ():
            key, described = _subject(subject, namespace)
            if not key:
                continue
            grant = Grant(order, head + described, rules, error)
            if namespace:
                self._spaces.setdefault(key, {}).setdefault(namespace, []).append(grant)
            else:
                self._cluster.setdefault(key, []).append(grant)

    def role(self, ref: Mapping[str, Any], namespace: str) -> tuple[tuple[Rule, ...], str]:
        """The rules a roleRef stands for in a namespace, or the reason why there are none."""
        name, cluster = ref.get("name", ""), ref.get("kind") == "ClusterRole"
        rules = self._roles.get(("" if cluster else namespace, name))
        if rules is None:
            return (), f'{"clusterrole" if cluster else "role"}.{GROUP} "{name}" not found'
        return rules, ""

    def grants(self, user: User) -> UserGrants:
        """All that a user holds, by itself and through its groups; worked out once for each user."""
        key = (user.name, user.groups)
        found = self._users.get(key)
        if found is None:
            if len(self._users) > 10_000:
                self._users.clear()
            found = self._users[key] = self._collect(["u:" + user.name] + ["g:" + g for g in user.groups])
        return found

    def _collect(self, keys: list[str]) -> UserGrants:
        cluster = [grant for key in keys for grant in self._cluster.get(key, ())]
        spaces: dict[str, list[Grant]] = {}
        for key in keys:
            for namespace, grants in self._spaces.get(key, {}).items():
                spaces.setdefault(namespace, []).extend(grants)
        return UserGrants(_once(cluster), {namespace: _once(grants) for namespace, grants in spaces.items()})

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        """All rules that hold for a user in a namespace ("" for cluster-wide ones only), and what was missing."""
        grants = list(self.grants(user).in_force(namespace))
        return [r for g in grants for r in g.rules], [g.error for g in grants if g.error]


def _compile(role: Mapping[str, Any]) -> tuple[Rule, ...]:
    return tuple(Rule(r) for r in role.get("rules") or ())


def _once(grants: list[Grant]) -> list[Grant]:
    """In the order of the bindings; a binding that reaches a user twice counts once."""
    kept: dict[int, Grant] = {}
    for grant in sorted(grants, key=lambda g: g.order):
        kept.setdefault(grant.order, grant)
    return list(kept.values())


def _subject(subject: Mapping[str, Any], binding_namespace: str) -> tuple[str, str]:
    """The index key of a subject and how a reason names it."""
    kind, name = subject.get("kind", ""), subject.get("name", "")
    if kind == "User":
        return "u:" + name, f'User "{name}"'
    if kind == "Group":
        return "g:" + name, f'Group "{name}"'
    if kind == "ServiceAccount":
        namespace = subject.get("namespace") or binding_namespace
        return f"u:system:serviceaccount:{namespace}:{name}", f'ServiceAccount "{name}/{namespace}"'
    return "", ""


def aggregate(errors: Iterable[str]) -> str:
    """Several errors as one text, as apimachinery joins them: one bare, more in brackets, each once."""
    once = list(dict.fromkeys(errors))
    return once[0] if len(once) == 1 else "[" + ", ".join(once) + "]"
