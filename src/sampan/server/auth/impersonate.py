"""Acting as somebody else: the Impersonate-* headers, for those who may.

Source: Kubernetes documentation, "User Impersonation".
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from sampan.api.status import ApiError, internal
from sampan.client.messages import User
from sampan.server.auth.authenticate import ANONYMOUS, AUTHENTICATED
from sampan.server.auth.authorize import Attributes, Authorizer, refusal
from sampan.server.auth.tokens import account_user

_PREFIX = "impersonate-"
_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"
_AUTHENTICATION = "authentication.k8s.io"


def asked(headers: Mapping[str, str]) -> bool:
    """Whether a request asks to be taken for another user's."""
    return "impersonate-" in "\n".join(headers) and any(n.startswith("impersonate-") for n in headers)


def impersonate(user: User, headers: Mapping[str, str], authorizer: Authorizer) -> User:
    """The user to act as; `user` itself without such headers. Raises 403 when it may not.

    Repeated headers arrive joined by ", "; a group or value of that form is not otherwise possible here.
    """
    if not any(h.startswith(_PREFIX) for h in headers):
        return user
    name = headers.get("impersonate-user", "")
    groups = _values(headers.get("impersonate-group", ""))
    uid = headers.get("impersonate-uid", "")
    extra = {
        unquote(h[len(_EXTRA) :]).lower(): tuple(_values(v))
        for h, v in headers.items()
        if h.startswith(_EXTRA)
    }
    if not name:
        raise _nobody(groups, uid, extra)
    account = _account(name)
    if account:
        _check(authorizer, user, Attributes(user, "impersonate", "", "v1", "serviceaccounts", "", *account))
    else:
        _check(authorizer, user, Attributes(user, "impersonate", "", "v1", "users", name=name))
    for group in groups:
        _check(authorizer, user, Attributes(user, "impersonate", "", "v1", "groups", name=group))
    for key, values in extra.items():
        for value in values:
            asked = Attributes(user, "impersonate", _AUTHENTICATION, "v1", "userextras", key, name=value)
            _check(authorizer, user, asked)
    if uid:
        _check(authorizer, user, Attributes(user, "impersonate", _AUTHENTICATION, "v1", "uids", name=uid))
    if account and not groups:
        groups = list(account_user(*account).groups)
    return User(name, _with_standing(name, groups), uid, extra)


def _check(authorizer: Authorizer, user: User, asked: Attributes) -> None:
    allowed, reason = authorizer.authorize(user, asked)
    if not allowed:
        raise refusal(user, asked, reason)


def _with_standing(name: str, groups: list[str]) -> tuple[str, ...]:
    """Groups including the one that says whether this is somebody known."""
    standing = ANONYMOUS.groups[0] if name == ANONYMOUS.name else AUTHENTICATED
    if AUTHENTICATED in groups or ANONYMOUS.groups[0] in groups:
        return tuple(groups)
    return (*groups, standing)


def _account(name: str) -> tuple[str, str] | None:
    """(namespace, name) when the user name is that of a service account."""
    namespace, colon, account = name.removeprefix(_ACCOUNT).partition(":")
    return (namespace, account) if name.startswith(_ACCOUNT) and colon and namespace and account else None


def _values(header: str) -> list[str]:
    return [v.strip() for v in header.split(",") if v.strip()]


def _nobody(groups: list[str], uid: str, extra: Mapping[str, tuple[str, ...]]) -> ApiError:
    asked = [*groups, *([uid] if uid else []), *extra]
    return internal(f"requested {asked} without impersonating a user")
