"""May this user do this? The Node authorizer, then RBAC; decisions are kept until a role or binding changes.

The words of a refusal are those clients match on. Source: Kubernetes documentation, "Authorization".
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.api.status import ApiError, forbidden
from sampan.client.messages import User
from sampan.server.auth import node_authorizer, rbac
from sampan.server.auth.rbac import Asked, Decision, Rule
from sampan.server.lookup import Derived, Lookup

MASTERS = "system:masters"
_CACHE_LIMIT = 50_000


@dataclass(slots=True)
class Attributes:
    """What is asked for. `server.route.RequestInfo` has the same fields and serves as well."""

    user: User
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    is_resource: bool = True
    field_selector: str = ""
    label_selector: str = ""


class Authorizer:
    """`authorize` for a decision, `check` to refuse. Cheap to call on every request."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._decisions: dict[tuple[object, ...], Decision] = {}
        self._index = Derived(lookup, rbac.BUCKETS, self._compile)
        self._nodes = node_authorizer.NodeAuthorizer(lookup)

    def _compile(self) -> rbac.Index:
        self._decisions.clear()
        return rbac.Index(self._lookup)

    def authorize(self, user: User, asked: Asked) -> tuple[bool, str]:
        """`(allowed, reason)`: why, as SubjectAccessReview tells it; a denial's reason may be empty."""
        if MASTERS in user.groups:
            return True, ""
        why = ""
        if node_authorizer.GROUP in user.groups:
            allowed, why = self._nodes.authorize(user, asked)
            if allowed:
                return True, why
        decision = self._decide(user, asked)
        if decision.allowed or not why:
            return decision.allowed, decision.reason
        return False, "\n".join(r for r in (why, decision.reason) if r)

    def _decide(self, user: User, asked: Asked) -> Decision:
        index = self._index.get()  # before the cache: this is what empties it
        key: tuple[object, ...]
        if asked.is_resource:
            key = (
                user.name,
                user.groups,
                asked.verb,
                asked.resource,
                asked.namespace,
                asked.group,
                asked.subresource,
            )
        else:
            key = (user.name, user.groups, asked.verb, asked.path)
        decision = self._decisions.get(key)
        if decision is None:
            decision = self._keep(key, index.grants(user).decide(asked, ""))
        if decision.by_name and asked.name:
            key = (*key, asked.name)
            decision = self._decisions.get(key)
            if decision is None:
                decision = self._keep(key, index.grants(user).decide(asked, asked.name))
        return decision

    def _keep(self, key: tuple[object, ...], decision: Decision) -> Decision:
        if len(self._decisions) >= _CACHE_LIMIT:
            self._decisions.clear()
        self._decisions[key] = decision
        return decision

    def check(self, user: User, asked: Asked) -> None:
        """Raises 403 with the original's words unless allowed."""
        allowed, reason = self.authorize(user, asked)
        if not allowed:
            raise refusal(user, asked, reason)

    def allowed(
        self, user: User, verb: str, group: str, resource: str, namespace: str = "", name: str = ""
    ) -> bool:
        """A question admission asks, such as whether someone may `bind` a role; "r/sub" names a subresource."""
        resource, _, subresource = resource.partition("/")
        asked = Attributes(user, verb, group, "*", resource, subresource, namespace, name)
        return self.authorize(user, asked)[0]

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        """RBAC rules of a user in a namespace, and the roles that were missing."""
        return self._index.get().rules_for(user, namespace)

    def role_rules(self, ref: dict[str, str], namespace: str) -> tuple[tuple[Rule, ...], str]:
        """Rules of a roleRef, or why there are none."""
        return self._index.get().role(ref, namespace)


def refusal(user: User, asked: Asked, reason: str = "") -> ApiError:
    """The 403 of a denied request."""
    if asked.is_resource:
        resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
        where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
        text = f'User "{user.name}" cannot {asked.verb} resource "{resource}" in API group "{asked.group}" {where}'
    else:
        text = f'User "{user.name}" cannot {asked.verb} path "{asked.path}"'
    # Markup in a path or name must not come back as such to a browser.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if reason:
        text = f"{text}: {reason}"
    if asked.is_resource:
        return forbidden(asked.group, asked.resource, asked.name, text)
    return ApiError(403, "Forbidden", f"forbidden: {text}", {})
