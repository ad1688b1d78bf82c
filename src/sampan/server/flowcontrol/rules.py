"""Whom and what a FlowSchema's rules name. Source: flowcontrol/v1 API reference, "PolicyRulesWithSubjects"."""

from __future__ import annotations

from typing import Any

from sampan.base.objects import Object
from sampan.client.messages import User
from sampan.server.route import RequestInfo


def matches(rule: Object, user: User, info: RequestInfo) -> bool:
    """Whether one rule of a FlowSchema is about this request."""
    if not any(_is_subject(s, user) for s in rule.get("subjects") or ()):
        return False
    if info.is_resource:
        return any(_names_resource(r, info) for r in rule.get("resourceRules") or ())
    return any(_names_path(r, info) for r in rule.get("nonResourceRules") or ())


def _is_subject(subject: Object, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            return (subject.get("user") or {}).get("name") in ("*", user.name)
        case "Group":
            name = (subject.get("group") or {}).get("name")
            return name == "*" or name in user.groups
        case "ServiceAccount":
            account = subject.get("serviceAccount") or {}
            prefix = f"system:serviceaccount:{account.get('namespace', '')}:"
            wanted = account.get("name")
            return user.name.startswith(prefix) and wanted in ("*", user.name[len(prefix) :])
    return False


def _has(values: Any, value: str) -> bool:
    return "*" in (values or ()) or value in (values or ())


def _names_resource(rule: Object, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (
        _has(rule.get("verbs"), info.verb)
        and _has(rule.get("apiGroups"), info.group)
        and _has(rule.get("resources"), resource)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), info.namespace)


def _names_path(rule: Object, info: RequestInfo) -> bool:
    if not _has(rule.get("verbs"), info.verb):
        return False
    for pattern in rule.get("nonResourceURLs") or ():
        if (
            pattern == "*"
            or pattern == info.path
            or pattern.endswith("*")
            and info.path.startswith(pattern[:-1])
        ):
            return True
    return False
