"""Nobody may give away rights one lacks: checked when roles and bindings are written.

Source: Kubernetes documentation, "Using RBAC Authorization", "Privilege escalation prevention and bootstrapping".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from sampan.api.registry import Resource
from sampan.api.status import ApiError, forbidden, not_found
from sampan.base.objects import ReadOnlyObject
from sampan.client.messages import User
from sampan.server.auth.authorize import MASTERS, Authorizer
from sampan.server.auth.rbac import GROUP, Rule

_EVERYTHING = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)


def check_escalation(
    authorizer: Authorizer, user: User, row: Resource, new: ReadOnlyObject, old: ReadOnlyObject | None
) -> None:
    """Raises 403 when the write of a role or binding would grant what `user` does not hold; 404 of a missing role.

    `old` is None for a creation. Other resources pass.
    """
    if row.group != GROUP or MASTERS in user.groups or _same(new, old):
        return
    if row.plural in ("roles", "clusterroles"):
        _check_role(authorizer, user, row, new, old)
    elif row.plural in ("rolebindings", "clusterrolebindings"):
        _check_binding(authorizer, user, row, new)


def _same(new: ReadOnlyObject, old: ReadOnlyObject | None) -> bool:
    """Whether the write leaves what is granted alone (only metadata changed)."""
    return old is not None and all(
        new.get(k) == old.get(k) for k in ("rules", "subjects", "roleRef", "aggregationRule")
    )


def _check_role(
    authorizer: Authorizer, user: User, row: Resource, new: ReadOnlyObject, old: ReadOnlyObject | None
) -> None:
    meta = new.get("metadata") or {}
    name, namespace = meta.get("name", ""), meta.get("namespace", "")
    if authorizer.allowed(user, "escalate", GROUP, row.plural, namespace, name):
        return
    if new.get("aggregationRule") or (old and old.get("aggregationRule")):
        if missing(authorizer, user, "", _EVERYTHING):
            raise forbidden(
                GROUP, row.plural, name, "must have cluster-admin privileges to use an aggregationRule"
            )
        return
    _confirm(authorizer, user, row, name, namespace, new.get("rules") or ())


def _check_binding(authorizer: Authorizer, user: User, row: Resource, new: ReadOnlyObject) -> None:
    meta, ref = new.get("metadata") or {}, new.get("roleRef") or {}
    name, namespace = meta.get("name", ""), meta.get("namespace", "")
    plural = "clusterroles" if ref.get("kind") == "ClusterRole" else "roles"
    if authorizer.allowed(user, "bind", GROUP, plural, namespace, ref.get("name", "")):
        return
    rules, error = authorizer.role_rules(dict(ref), namespace)
    if error:
        raise _no_role(plural, ref.get("name", ""))
    _confirm(authorizer, user, row, name, namespace, [r.raw for r in rules])


def _no_role(plural: str, name: str) -> ApiError:
    return not_found(GROUP, plural[:-1], name)


def _confirm(
    authorizer: Authorizer,
    user: User,
    row: Resource,
    name: str,
    namespace: str,
    rules: Iterable[ReadOnlyObject],
) -> None:
    lacking = missing(authorizer, user, namespace, rules)
    if not lacking:
        return
    groups = "[" + " ".join(f'"{g}"' for g in user.groups) + "]"
    lines = "\n".join(sorted({describe(r) for r in _compact(lacking)}))
    why = f'user "{user.name}" (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{lines}'
    errors = authorizer.rules_for(user, namespace)[1]
    if errors:
        why += f"; resolution errors: [{' '.join(errors)}]"
    raise forbidden(GROUP, row.plural, name, why)


def missing(
    authorizer: Authorizer, user: User, namespace: str, rules: Iterable[ReadOnlyObject]
) -> list[ReadOnlyObject]:
    """The single rights among `rules` that the user does not hold in the namespace."""
    if MASTERS in user.groups:
        return []
    held = authorizer.rules_for(user, namespace)[0]
    return [
        single for rule in rules for single in _singles(rule) if not any(_covers(h, single) for h in held)
    ]


def _singles(rule: ReadOnlyObject) -> Iterable[ReadOnlyObject]:
    """A rule taken apart: one verb, and one group, resource and name or one path each."""
    verbs = rule.get("verbs") or ()
    for group, resource, verb in itertools.product(
        rule.get("apiGroups") or (), rule.get("resources") or (), verbs
    ):
        single = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        names = rule.get("resourceNames") or ()
        if not names:
            yield single
        for name in names:
            yield single | {"resourceNames": [name]}
    for path, verb in itertools.product(rule.get("nonResourceURLs") or (), verbs):
        yield {"nonResourceURLs": [path], "verbs": [verb]}


def _covers(held: Rule, single: ReadOnlyObject) -> bool:
    verb = single["verbs"][0]
    if verb not in held.verbs and "*" not in held.verbs:
        return False
    if "nonResourceURLs" in single:
        path = single["nonResourceURLs"][0]
        return path in held.urls or any(path.rstrip("*").startswith(p) for p in held.prefixes)
    group, resource = single["apiGroups"][0], single["resources"][0]
    if group not in held.groups and "*" not in held.groups:
        return False
    _, slash, subresource = resource.partition("/")
    listed = resource in held.resources or "*" in held.resources
    if not listed and not (slash and f"*/{subresource}" in held.resources):
        return False
    return not held.names or single.get("resourceNames", [None])[0] in held.names


def _compact(singles: Sequence[ReadOnlyObject]) -> list[ReadOnlyObject]:
    """Rights of the same group and resource as one rule with several verbs."""
    merged: dict[tuple[Any, ...], ReadOnlyObject] = {}
    for single in singles:
        key = tuple((k, tuple(v)) for k, v in single.items() if k != "verbs")
        known = merged.get(key)
        if known is None or "resourceNames" in single:
            merged[key if known is None else (*key, single["verbs"][0])] = single
        else:
            merged[key] = {**known, "verbs": [*known["verbs"], *single["verbs"]]}
    return list(merged.values())


def describe(rule: ReadOnlyObject) -> str:
    """A rule in the original's short form: `{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`."""
    parts = []
    for label, field in (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("ResourceNames", "resourceNames"),
        ("Verbs", "verbs"),
    ):
        if rule.get(field):
            parts.append(f"{label}:[" + " ".join(f'"{v}"' for v in rule[field]) + "]")
    return "{" + ", ".join(parts) + "}"
