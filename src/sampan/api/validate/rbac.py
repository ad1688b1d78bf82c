"""Roles and their bindings. Source: API reference, rbac.authorization.k8s.io/v1."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api import names
from sampan.api.validate.base import (
    NONE,
    Errors,
    dns_subdomain,
    invalid_value,
    label_selector,
    not_supported,
    required,
    texts,
)
from sampan.base.objects import Object

_GROUP = "rbac.authorization.k8s.io"


def role(errors: Errors, obj: Object) -> None:
    for index, rule in enumerate(obj.get("rules") or ()):
        _rule(errors, rule, f"rules[{index}]", namespaced=True)


def cluster_role(errors: Errors, obj: Object) -> None:
    """Source: API reference, ClusterRole v1: rules, or selectors of roles whose rules it gathers."""
    for index, rule in enumerate(obj.get("rules") or ()):
        _rule(errors, rule, f"rules[{index}]", namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is None:
        return
    at = "aggregationRule.clusterRoleSelectors"
    given = aggregation.get("clusterRoleSelectors") or ()
    if not given:
        detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        errors.append(required(at, detail))
    for index, selector in enumerate(given):
        label_selector(errors, f"{at}[{index}]", selector)


def _rule(errors: Errors, rule: Object, path: str, *, namespaced: bool) -> None:
    if not rule.get("verbs"):
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    urls = rule.get("nonResourceURLs")
    if urls:
        if namespaced:
            detail = "namespaced rules cannot apply to non-resource URLs"
            errors.append(invalid_value(f"{path}.nonResourceURLs", urls, detail))
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            errors.append(invalid_value(f"{path}.nonResourceURLs", urls, detail))
        return
    if not rule.get("apiGroups"):
        detail = "resource rules must supply at least one api group"
        errors.append(required(f"{path}.apiGroups", detail))
    if not rule.get("resources"):
        errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))


def role_update(errors: Errors, new: Object, old: Object) -> None:
    role(errors, new)


def cluster_role_update(errors: Errors, new: Object, old: Object) -> None:
    cluster_role(errors, new)


def role_binding(errors: Errors, obj: Object) -> None:
    _binding(errors, obj, ("ClusterRole", "Role"), namespaced=True)


def cluster_role_binding(errors: Errors, obj: Object) -> None:
    _binding(errors, obj, ("ClusterRole",), namespaced=False)


def _binding(errors: Errors, obj: Object, kinds: Sequence[str], *, namespaced: bool) -> None:
    ref = obj.get("roleRef") or NONE
    group, kind, name = ref.get("apiGroup", ""), ref.get("kind", ""), ref.get("name", "")
    if group != _GROUP:
        errors.append(not_supported("roleRef.apiGroup", group, (_GROUP,)))
    if kind not in kinds:
        errors.append(not_supported("roleRef.kind", kind, kinds))
    if not name:
        errors.append(required("roleRef.name"))
    else:
        texts(errors, "roleRef.name", name, names.path_segment)
    for index, subject in enumerate(obj.get("subjects") or ()):
        _subject(errors, subject, f"subjects[{index}]", namespaced=namespaced)


def _subject(errors: Errors, subject: Object, path: str, *, namespaced: bool) -> None:
    name, kind, group = subject.get("name", ""), subject.get("kind", ""), subject.get("apiGroup", "")
    if not name:
        errors.append(required(f"{path}.name"))
    if kind == "ServiceAccount":
        if name:
            dns_subdomain(errors, f"{path}.name", name)
        if group:
            errors.append(not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            errors.append(required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != _GROUP:
            errors.append(not_supported(f"{path}.apiGroup", group, (_GROUP,)))
    else:
        errors.append(not_supported(f"{path}.kind", kind, ("Group", "ServiceAccount", "User")))


def role_binding_update(errors: Errors, new: Object, old: Object) -> None:
    role_binding(errors, new)
    _same_role(errors, new, old)


def cluster_role_binding_update(errors: Errors, new: Object, old: Object) -> None:
    cluster_role_binding(errors, new)
    _same_role(errors, new, old)


def _same_role(errors: Errors, new: Object, old: Object) -> None:
    ref = new.get("roleRef") or {}
    if ref != (old.get("roleRef") or {}):
        shown = {
            "APIGroup": ref.get("apiGroup", ""),
            "Kind": ref.get("kind", ""),
            "Name": ref.get("name", ""),
        }
        errors.append(invalid_value("roleRef", shown, "cannot change roleRef"))
