"""Questions about identity and rights, asked as objects: the reviews of authentication.k8s.io and authorization.k8s.io.

Each function takes the object that was posted and returns it with its status. Nothing is stored.
Source: API reference, "Authentication Resources" and "Authorization Resources".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan.api.status import FieldError, bad_request, forbidden_field, invalid, invalid_value, required
from sampan.base.objects import Object
from sampan.client.messages import User
from sampan.server.auth.authenticate import Authenticator
from sampan.server.auth.authorize import MASTERS, Attributes, Authorizer
from sampan.server.auth.tokens import Refused

_AUTHORIZATION = "authorization.k8s.io"
_ONE = "exactly one of nonResourceAttributes or resourceAttributes must be specified"


def _answer(obj: Object, status: Object) -> Object:
    metadata = {"creationTimestamp": None, **(obj.get("metadata") or {})}
    return obj | {"metadata": metadata, "status": status}


def subject_access_review(obj: Object, authorizer: Authorizer) -> Object:
    """May the user or groups of the spec do this?"""
    spec = obj.get("spec") or {}
    errors = _check_attributes(spec)
    if not spec.get("user") and not spec.get("groups"):
        errors.append(invalid_value("spec.user", "", "at least one of user or group must be specified"))
    _refuse(errors)
    extra = {k: tuple(v) for k, v in (spec.get("extra") or {}).items()}
    user = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
    return _answer(obj, _decide(user, spec, authorizer))


def self_subject_access_review(obj: Object, user: User, authorizer: Authorizer) -> Object:
    """May I do this?"""
    spec = obj.get("spec") or {}
    _refuse(_check_attributes(spec))
    return _answer(obj, _decide(user, spec, authorizer))


def local_subject_access_review(obj: Object, namespace: str, authorizer: Authorizer) -> Object:
    """Like `subject_access_review`, about one namespace."""
    attributes = (obj.get("spec") or {}).get("resourceAttributes") or {}
    own = (obj.get("metadata") or {}).get("namespace", namespace)
    if own and own != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if "nonResourceAttributes" in (obj.get("spec") or {}):
        detail = "disallowed on this kind of request"
        _refuse([forbidden_field("spec.nonResourceAttributes", detail)])
    if attributes and attributes.get("namespace", "") != namespace:
        raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
    return subject_access_review(obj, authorizer)


def self_subject_rules_review(obj: Object, user: User, authorizer: Authorizer) -> Object:
    """What may I do in a namespace? What the Node authorizer would allow is not told."""
    namespace = (obj.get("spec") or {}).get("namespace", "")
    if not namespace:
        raise bad_request("no namespace on request")
    rules, errors = authorizer.rules_for(user, namespace)
    raws: list[Mapping[str, Any]] = [r.raw for r in rules]
    if MASTERS in user.groups:
        raws = [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
            {"verbs": ["*"], "nonResourceURLs": ["*"]},
            *raws,
        ]
    resource_rules, path_rules = [], []
    for raw in raws:
        if raw.get("resources"):
            fields = ("verbs", "apiGroups", "resources", "resourceNames")
            resource_rules.append({k: raw[k] for k in fields if raw.get(k)})
        if raw.get("nonResourceURLs"):
            path_rules.append({k: raw[k] for k in ("verbs", "nonResourceURLs") if raw.get(k)})
    status: Object = {"resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": False}
    if errors:
        status |= {"incomplete": True, "evaluationError": "[" + ", ".join(errors) + "]"}
    return _answer(obj, status)


def token_review(obj: Object, authenticator: Authenticator) -> Object:
    """Whose token is this, and for which of the audiences asked for?"""
    spec = obj.get("spec") or {}
    token = spec.get("token", "")
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    try:
        user, audiences = authenticator.token(token, spec.get("audiences") or ())
    except Refused as refused:
        return _answer(obj, {"user": {}, "error": f"[invalid bearer token, {refused}]"})
    return _answer(obj, {"authenticated": True, "user": user_info(user), "audiences": list(audiences)})


def self_subject_review(obj: Object, user: User) -> Object:
    """Who am I?"""
    return _answer(obj, {"userInfo": user_info(user)})


def user_info(user: User) -> Object:
    """authentication.k8s.io/v1 UserInfo; what is empty is left out."""
    info: Object = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {k: list(v) for k, v in user.extra.items()}
    return info


Review = Callable[[Object, User, str, Authenticator, Authorizer], Object]

# Kind -> answer(obj, user, namespace, authenticator, authorizer), for the server's dispatch.
REVIEWS: dict[str, Review] = {
    "SubjectAccessReview": lambda obj, user, namespace, who, may: subject_access_review(obj, may),
    "SelfSubjectAccessReview": lambda obj, user, namespace, who, may: self_subject_access_review(
        obj, user, may
    ),
    "LocalSubjectAccessReview": lambda obj, user, namespace, who, may: local_subject_access_review(
        obj, namespace, may
    ),
    "SelfSubjectRulesReview": lambda obj, user, namespace, who, may: self_subject_rules_review(
        obj, user, may
    ),
    "TokenReview": lambda obj, user, namespace, who, may: token_review(obj, who),
    "SelfSubjectReview": lambda obj, user, namespace, who, may: self_subject_review(obj, user),
}


def _decide(user: User, spec: Object, authorizer: Authorizer) -> Object:
    allowed, reason = authorizer.authorize(user, _attributes(user, spec))
    return {"allowed": allowed} | ({"reason": reason} if reason else {})


def _attributes(user: User, spec: Object) -> Attributes:
    if (path := spec.get("nonResourceAttributes")) is not None:
        return Attributes(user, path.get("verb", ""), path=path.get("path", ""), is_resource=False)
    asked = spec["resourceAttributes"]
    fields = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Attributes(user, *(asked.get(f, "") for f in fields))


def _check_attributes(spec: Object) -> list[FieldError]:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        shown = f'authorization.NonResourceAttributes{{Path:"{path.get("path", "")}", Verb:"{path.get("verb", "")}"}}'
        why = "cannot be specified in combination with resourceAttributes"
        return [
            FieldError("FieldValueInvalid", "spec.nonResourceAttributes", f"Invalid value: {shown}: {why}")
        ]
    if resource is None and path is None:
        return [invalid_value("spec.resourceAttributes", "null", _ONE)]
    if resource is not None and resource.get("name") and not resource.get("resource"):
        return [required("spec.resourceAttributes.resource", "")]
    return []


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        raise invalid(_AUTHORIZATION, "", "", errors)
