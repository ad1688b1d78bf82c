"""Which requests a webhook or a policy is asked about: rules, selectors and equivalent versions.

Source: admissionregistration.k8s.io/v1 RuleWithOperations, MatchResources.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.registry import Resource
from sampan.api.selectors import from_object
from sampan.base.objects import Object
from sampan.server.admission.attrs import DELETE, Attrs, Context

_ALL = "*"


class Criteria:
    """Compiled from fields that webhooks, policies and bindings share."""

    __slots__ = ("equivalent", "excluded", "namespaces", "objects", "rules")

    def __init__(self, raw: Object, rules: Iterable[Object] | None, excluded: Iterable[Object] = ()) -> None:
        """`rules` None: every request."""
        self.rules = None if rules is None else list(rules)
        self.excluded = list(excluded)
        self.namespaces = from_object(raw.get("namespaceSelector") or {})
        self.objects = from_object(raw.get("objectSelector") or {})
        self.equivalent = raw.get("matchPolicy", "Equivalent") == "Equivalent"

    def row_for(self, attrs: Attrs, ctx: Context) -> Resource | None:
        """The row in whose version the object is to be shown; None when this is not asked for."""
        row = self._matching(self.excluded, attrs, ctx) if self.excluded else None
        if row is not None:
            return None
        return attrs.row if self.rules is None else self._matching(self.rules, attrs, ctx)

    def _matching(self, rules: list[Object], attrs: Attrs, ctx: Context) -> Resource | None:
        if any(_rule_matches(r, attrs, attrs.row) for r in rules):
            return attrs.row
        if self.equivalent and ctx.registry is not None:
            for other in ctx.registry:
                same = other.store_key == attrs.row.store_key and other is not attrs.row
                if same and any(_rule_matches(r, attrs, other) for r in rules):
                    return other
        return None

    def selects(self, attrs: Attrs, ctx: Context) -> bool:
        """By the labels of the namespace, and of the new or the old object."""
        if not self._selects_namespace(attrs, ctx):
            return False
        if self.objects.empty:
            return True
        both = (o.get("metadata") or {} for o in (attrs.obj, attrs.old) if o is not None)
        return any(self.objects.matches(m.get("labels") or {}) for m in both)

    def _selects_namespace(self, attrs: Attrs, ctx: Context) -> bool:
        if self.namespaces.empty:
            return True
        holder = namespace_of(attrs, ctx)
        if holder is None and not attrs.namespace and attrs.row.name != "namespaces":
            return True
        return self.namespaces.matches(((holder or {}).get("metadata") or {}).get("labels") or {})


def namespace_of(attrs: Attrs, ctx: Context) -> Object | None:
    """The namespace of a request, or the one it is about."""
    if attrs.row.name == "namespaces":
        return attrs.obj if attrs.op != DELETE else attrs.old
    return ctx.lookup.get("namespaces", attrs.namespace) if attrs.namespace else None


def _rule_matches(rule: Object, attrs: Attrs, row: Resource) -> bool:
    scope = rule.get("scope") or _ALL
    if scope != _ALL and (scope == "Namespaced") != row.namespaced:
        return False
    named = rule.get("resourceNames")
    return (
        _lists(rule, "operations", attrs.op)
        and _lists(rule, "apiGroups", row.group)
        and _lists(rule, "apiVersions", row.version)
        and any(_names(r, row.plural, attrs.subresource) for r in rule.get("resources") or ())
        and (not named or attrs.name in named)
    )


def _lists(rule: Object, field: str, value: str) -> bool:
    values = rule.get(field) or ()
    return value in values or _ALL in values


def _names(text: str, plural: str, subresource: str) -> bool:
    """`pods`, `pods/log`, `*`, `pods/*`, `*/scale`, `*/*`."""
    resource, _, sub = text.partition("/")
    return resource in (plural, _ALL) and sub in (subresource, _ALL)
