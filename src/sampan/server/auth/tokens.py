"""Service-account tokens: signed with ES256, bound to objects, short-lived; and the documents that let others check.

Sources: Kubernetes documentation, "Managing Service Accounts"; authentication.k8s.io/v1 TokenRequest; RFC 7519;
OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import serialization

from sampan.api import meta
from sampan.api.status import bad_request, conflict, invalid, invalid_value, not_found
from sampan.base import pki
from sampan.base.clock import Clock, rfc3339, rfc3339_parse
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.messages import User
from sampan.server.lookup import Lookup

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"
LEGACY_ISSUER = "kubernetes/serviceaccount"
_DEFAULT_SECONDS, _LEAST_SECONDS, _MOST_SECONDS = 3600, 600, 1 << 32
# A kubelet asks for 3607 s; clients too old to read the file again get a year, and are warned about in the audit log.
_KUBELET_SECONDS, _EXTENDED_SECONDS = 3607, 365 * 24 * 3600
_DELETED_GRACE = 60.0  # seconds a token outlives the deletionTimestamp of what it is bound to
_EXTRA = "authentication.kubernetes.io/"
_LEGACY = "kubernetes.io/serviceaccount/"


class Refused(Exception):
    """The token is not good; the text is for the log only."""


def account_user(
    namespace: str, name: str, uid: str = "", extra: Mapping[str, tuple[str, ...]] | None = None
) -> User:
    """The user a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra or {})


class TokenIssuer:
    """Signs and checks tokens of service accounts. `audiences` are those of this API."""

    def __init__(
        self,
        key: bytes,
        lookup: Lookup,
        clock: Clock,
        ids: Ids,
        *,
        old_keys: Sequence[bytes] = (),
    ) -> None:
        self._key = pki.load_key(key)
        self._public = {_key_id(k): k.public_key() for k in (self._key, *(pki.load_key(o) for o in old_keys))}
        self._kid = _key_id(self._key)
        self._lookup = lookup
        self._clock = clock
        self._ids = ids
        self.issuer = DEFAULT_ISSUER
        self.audiences = (DEFAULT_ISSUER,)

    # Making

    def issue(
        self, account: Object, audiences: Sequence[str], seconds: float, bound: Object | None = None
    ) -> str:
        """A token for an account object, bound to the `bound` objects: `{"pod": {...}, "node": {...}}`."""
        now = int(self._clock.now())
        namespace = meta.namespace(account)
        claims: Object = {
            "aud": list(audiences),
            "exp": now + int(seconds),
            "iat": now,
            "iss": self.issuer,
            "jti": self._ids.uid(),
            "kubernetes.io": {
                "namespace": namespace,
                **(bound or {}),
                "serviceaccount": {"name": meta.name(account), "uid": meta.uid(account)},
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{meta.name(account)}",
        }
        return self._sign(claims)

    def _sign(self, claims: Object) -> str:
        import jwt  # 2 MB, with the first token

        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid, "typ": None})

    def request(self, obj: Object, namespace: str, name: str) -> Object:
        """Answers a TokenRequest for the account `namespace/name`; the object with its status.

        Raises 404 (account or bound object), 409 (its uid is another), 422 (expirationSeconds), 400.
        """
        account = self._lookup.get("serviceaccounts", f"{namespace}/{name}")
        if account is None:
            raise not_found("", "serviceaccounts", name)
        own = obj.get("metadata") or {}
        if own.get("name", name) != name or own.get("namespace", namespace) != namespace:
            raise bad_request(
                "the name or namespace in the token request does not match that of the service account"
            )
        spec = obj.get("spec") or {}
        seconds = spec.get("expirationSeconds", _DEFAULT_SECONDS)
        _check_seconds(seconds)
        audiences = spec.get("audiences") or list(self.audiences)
        bound = self._bind(spec.get("boundObjectRef"), account)
        lasting = seconds
        if seconds == _KUBELET_SECONDS and "pod" in bound and list(audiences) == list(self.audiences):
            lasting = _EXTENDED_SECONDS
            bound["warnafter"] = int(self._clock.now()) + seconds
        token = self.issue(account, audiences, lasting, bound)
        return obj | {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": own
            | {"name": name, "namespace": namespace, "creationTimestamp": rfc3339(self._clock.now())},
            "spec": spec
            | {"audiences": audiences, "expirationSeconds": seconds}
            | {"boundObjectRef": spec.get("boundObjectRef")},
            "status": {"token": token, "expirationTimestamp": rfc3339(self._clock.now() + seconds)},
        }

    def _bind(self, ref: Mapping[str, str] | None, account: Object) -> Object:
        """The claims for a boundObjectRef."""
        if not ref:
            return {}
        kind, name = ref.get("kind", ""), ref.get("name", "")
        bucket = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}.get(kind)
        if bucket is None or ref.get("apiVersion", "v1") != "v1":
            group, _, version = ref.get("apiVersion", "").rpartition("/")
            raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        namespace = meta.namespace(account)
        found = self._lookup.get(bucket, name if bucket == "nodes" else f"{namespace}/{name}")
        if found is None:
            raise not_found("", bucket, name)
        bound: Object = {kind.lower(): {"name": name, "uid": meta.uid(found)}}
        if kind == "Pod":
            spec = found.get("spec") or {}
            if spec.get("serviceAccountName", "") != meta.name(account):
                raise bad_request(
                    f'cannot bind token for serviceaccount "{meta.name(account)}" to pod running with different '
                    "serviceaccount name."
                )
            if node := self._lookup.get("nodes", spec.get("nodeName") or ""):
                bound["node"] = {"name": meta.name(node), "uid": meta.uid(node)}
        if ref.get("uid") and ref["uid"] != meta.uid(found):
            why = f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
            raise conflict("", kind, name, why + "The object might have been deleted and then recreated")
        return bound

    def legacy(self, account: Object, secret: str) -> str:
        """The lasting token kept in a Secret of type kubernetes.io/service-account-token."""
        namespace, name = meta.namespace(account), meta.name(account)
        return self._sign(
            {
                "iss": LEGACY_ISSUER,
                _LEGACY + "namespace": namespace,
                _LEGACY + "secret.name": secret,
                _LEGACY + "service-account.name": name,
                _LEGACY + "service-account.uid": meta.uid(account),
                "sub": f"system:serviceaccount:{namespace}:{name}",
            }
        )

    # Checking

    def verify(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...], float | None]:
        """`(user, audiences it is good for, expiry)`. `audiences` are those accepted; this API's when empty.

        Raises Refused, also when what the token is bound to is gone.
        """
        claims = self._claims(token)
        if claims.get("iss") == LEGACY_ISSUER:
            return self._verify_legacy(claims, token), tuple(audiences) or self.audiences, None
        given = claims.get("aud") or []
        given = [given] if isinstance(given, str) else given
        good = tuple(a for a in (audiences or self.audiences) if a in given)
        if not good:
            raise Refused(f"token audiences {given} are not accepted")
        private = claims.get("kubernetes.io") or {}
        namespace, account = private.get("namespace", ""), private.get("serviceaccount") or {}
        self._alive("serviceaccounts", f"{namespace}/{account.get('name', '')}", account.get("uid"))
        extra: dict[str, tuple[str, ...]] = {}
        if claims.get("jti"):
            extra[_EXTRA + "credential-id"] = (f"JTI={claims['jti']}",)
        for kind, bucket in (("secret", "secrets"), ("pod", "pods"), ("node", "nodes")):
            ref = private.get(kind)
            if not ref:
                continue
            if kind != "node" or "pod" not in private:  # the node of a pod is told, its absence forgiven
                key = ref["name"] if kind == "node" else f"{namespace}/{ref['name']}"
                self._alive(bucket, key, ref.get("uid"))
            if kind != "secret":
                extra[f"{_EXTRA}{kind}-name"] = (ref["name"],)
                extra[f"{_EXTRA}{kind}-uid"] = (ref.get("uid", ""),)
        return account_user(namespace, account["name"], account.get("uid", ""), extra), good, claims["exp"]

    def _claims(self, token: str) -> Object:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            key = self._public.get(header.get("kid", ""))
            if key is None:
                raise Refused("signed with an unknown key")
            # Times are checked below, by the injected clock.
            claims: Object = jwt.decode(
                token,
                key,
                algorithms=["ES256"],
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
        except jwt.PyJWTError as error:
            raise Refused(str(error)) from None
        now = self._clock.now()
        if claims.get("iss") == LEGACY_ISSUER:
            return claims
        if claims.get("iss") != self.issuer:
            raise Refused("another issuer")
        if not isinstance(claims.get("exp"), int | float) or claims["exp"] <= now:
            raise Refused("token has expired")
        if claims.get("nbf", 0) > now + 10:
            raise Refused("token is not valid yet")
        return claims

    def _verify_legacy(self, claims: Object, token: str) -> User:
        namespace, secret = claims.get(_LEGACY + "namespace", ""), claims.get(_LEGACY + "secret.name", "")
        name, uid = (
            claims.get(_LEGACY + "service-account.name", ""),
            claims.get(_LEGACY + "service-account.uid"),
        )
        found = self._alive("secrets", f"{namespace}/{secret}", None)
        if base64.b64encode(token.encode()).decode() != (found.get("data") or {}).get("token"):
            raise Refused("token is not the one in its secret")
        self._alive("serviceaccounts", f"{namespace}/{name}", uid)
        return account_user(namespace, name, uid or "")

    def _alive(self, bucket: str, key: str, uid: str | None) -> Object:
        found = self._lookup.get(bucket, key)
        if found is None or (uid is not None and meta.uid(found) != uid):
            raise Refused(f"{bucket} {key} is gone")
        deleted = (found.get("metadata") or {}).get("deletionTimestamp")
        if deleted and rfc3339_parse(deleted) + _DELETED_GRACE < self._clock.now():
            raise Refused(f"{bucket} {key} is being deleted")
        return found

    # Discovery, for those who verify tokens elsewhere

    def openid_configuration(self, server_url: str) -> Object:
        """The document at /.well-known/openid-configuration; `server_url` is where the keys can be fetched."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{server_url}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def jwks(self) -> Object:
        """The document at /openid/v1/jwks (RFC 7517)."""
        keys = []
        for kid, public in self._public.items():
            point = public.public_numbers()
            x, y = (_base64url(n.to_bytes(32, "big")) for n in (point.x, point.y))
            keys.append(
                {"use": "sig", "kty": "EC", "kid": kid, "crv": "P-256", "alg": "ES256", "x": x, "y": y}
            )
        return {"keys": keys}


def _check_seconds(seconds: Any) -> None:
    field = "spec.expirationSeconds"
    if seconds < _LEAST_SECONDS:
        error = invalid_value(field, seconds, "may not specify a duration less than 10 minutes")
    elif seconds > _MOST_SECONDS:
        error = invalid_value(field, seconds, "may not specify a duration larger than 2^32 seconds")
    else:
        return
    raise invalid("authentication.k8s.io", "TokenRequest", "", [error])


def _key_id(key: Any) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _base64url(hashlib.sha256(der).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
