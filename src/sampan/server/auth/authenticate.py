"""Who asks? The connection's certificate, then a bearer token of any of four kinds, else nobody in particular.

Good tokens are remembered for ten seconds under a keyed digest, so that no token is kept and lookups take the same time
whatever was guessed. Source: Kubernetes documentation, "Authenticating".
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampan.api.status import unauthorized
from sampan.base.clock import Clock, rfc3339_parse
from sampan.client.messages import Request, User
from sampan.server.auth.tokens import Refused, TokenIssuer
from sampan.server.lookup import Lookup

ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
AUTHENTICATED = "system:authenticated"
_REMEMBERED = 10.0  # seconds a good token is not checked again
_CACHE_LIMIT = 10_000
_BOOTSTRAP = re.compile(r"^([a-z0-9]{6})\.([a-z0-9]{16})$")
_BOOTSTRAP_GROUP = re.compile(r"^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$")
_CREDENTIAL = "authentication.kubernetes.io/credential-id"
_PROTOCOL = "base64url.bearer.authorization.k8s.io."  # a browser's WebSocket can send no Authorization header


class Authenticator:
    """`authenticate` a request, or `token` for a TokenReview."""

    def __init__(
        self,
        clock: Clock,
        *,
        issuer: TokenIssuer | None = None,
        lookup: Lookup | None = None,
        static: Mapping[str, User] | None = None,
        anonymous: bool = True,
    ) -> None:
        """`static` maps tokens to users (see `read_token_file`); `lookup` is for bootstrap tokens."""
        self._clock = clock
        self._issuer = issuer
        self._lookup = lookup
        self._secret = secrets.token_bytes(32)
        self._static = {self._digest(token): user for token, user in (static or {}).items()}
        self._anonymous = anonymous
        self._good: dict[bytes, tuple[float, User]] = {}
        self._peers: dict[tuple[str, tuple[str, ...], bytes], User] = {}

    def authenticate(self, request: Request) -> User:
        """The user, with system:authenticated among its groups. Raises 401 for a token that is no good."""
        if request.peer is not None:
            user = self._peer(request.peer)
            if user is not None:
                return user
        token = bearer(request.headers)
        if token:
            return self._bearer(token)
        if not self._anonymous:
            raise unauthorized()
        return ANONYMOUS

    def _peer(self, peer: Mapping[str, Any]) -> User | None:
        """TLS has checked the certificate already; its CN is the user, O the groups, its digest the credential."""
        der: bytes = peer.get("der") or b""
        name, groups = str(peer.get("cn") or ""), tuple(peer.get("o") or ())
        user = self._peers.get((name, groups, der))
        if user is None and name:
            if len(self._peers) > _CACHE_LIMIT:
                self._peers.clear()
            extra = {_CREDENTIAL: (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)} if der else {}
            user = self._peers[name, groups, der] = authenticated(User(name, groups, extra=extra))
        return user

    def _bearer(self, token: str) -> User:
        digest = self._digest(token)
        now = self._clock.monotonic()
        known = self._good.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        try:
            user, _, expires = self._check(token, digest, ())
        except Refused:
            raise unauthorized() from None
        until = now + _REMEMBERED
        if expires is not None:
            until = min(until, now + expires - self._clock.now())
        if len(self._good) >= _CACHE_LIMIT:
            self._good.clear()
        self._good[digest] = (until, user)
        return user

    def token(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """For a TokenReview: the user and the audiences among those asked for. Raises Refused."""
        user, good, _ = self._check(token, self._digest(token), audiences)
        return user, good

    def _check(
        self, token: str, digest: bytes, audiences: Sequence[str]
    ) -> tuple[User, tuple[str, ...], float | None]:
        own = self._issuer.audiences if self._issuer else ()
        ours = tuple(a for a in audiences if a in own) if audiences else own
        if audiences and not ours and self._issuer is None:
            raise Refused("none of the audiences is ours")
        static = self._static.get(digest)
        if static is not None:
            return authenticated(static), ours, None
        if match := _BOOTSTRAP.match(token):
            user, expires = self._bootstrap(match[1], match[2])
            return authenticated(user), ours, expires
        if self._issuer is None:
            raise Refused("unknown token")
        user, good, expires = self._issuer.verify(token, audiences)
        return authenticated(user), good, expires

    def _bootstrap(self, token_id: str, token_secret: str) -> tuple[User, float | None]:
        """A Secret kube-system/bootstrap-token-ID ("Authenticating with Bootstrap Tokens")."""
        found = (
            self._lookup.get("secrets", f"kube-system/bootstrap-token-{token_id}") if self._lookup else None
        )
        if (
            not found
            or found.get("type") != "bootstrap.kubernetes.io/token"
            or found["metadata"].get("deletionTimestamp")
        ):
            raise Refused("no such bootstrap token")
        data = {k: _decode(v) for k, v in (found.get("data") or {}).items()}
        if not hmac.compare_digest(data.get("token-secret", "").encode(), token_secret.encode()):
            raise Refused("bootstrap token has another secret")
        if data.get("token-id") != token_id or data.get("usage-bootstrap-authentication") != "true":
            raise Refused("bootstrap token is not for authentication")
        expires = None
        if text := data.get("expiration"):
            try:
                expires = rfc3339_parse(text)
            except ValueError:
                raise Refused("bootstrap token has a bad expiration") from None
            if expires <= self._clock.now():
                raise Refused("bootstrap token has expired")
        extra = [g.strip() for g in data.get("auth-extra-groups", "").split(",") if g.strip()]
        if not all(_BOOTSTRAP_GROUP.match(g) for g in extra):
            raise Refused("bootstrap token names groups it must not")
        groups = tuple(sorted({"system:bootstrappers", *extra}))
        return User(f"system:bootstrap:{token_id}", groups), expires

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode(), digest_size=16, key=self._secret).digest()


def authenticated(user: User) -> User:
    """The user with system:authenticated, unless it is there or the user is anonymous."""
    if AUTHENTICATED in user.groups or user.name == ANONYMOUS.name:
        return user
    return User(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)


def bearer(headers: Mapping[str, str]) -> str:
    """The bearer token of a request's headers, or ""."""
    value = headers.get("authorization")
    if value:
        scheme, _, token = value.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""
    protocols = headers.get("sec-websocket-protocol")
    if protocols and _PROTOCOL in protocols:
        for protocol in protocols.split(","):
            protocol = protocol.strip()
            if protocol.startswith(_PROTOCOL):
                return _decode(protocol[len(_PROTOCOL) :].replace("-", "+").replace("_", "/"))
    return ""


def _decode(value: str) -> str:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def read_tokens(lines: Iterable[str]) -> dict[str, User]:
    """Users by token from `token,user,uid,"group1,group2"` lines, as kube-apiserver's --token-auth-file has them.

    Raises ValueError for a line with fewer than three columns.
    """
    users: dict[str, User] = {}
    for number, row in enumerate(csv.reader(lines, skipinitialspace=True), 1):
        if not row or row[0].startswith("#"):
            continue
        if len(row) < 3:
            raise ValueError(
                f"line {number} of the token file has {len(row)} columns; at least token,user,uid are needed"
            )
        if not row[0]:
            continue
        groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
        users[row[0]] = User(row[1], groups, row[2])
    return users


def read_token_file(path: Path) -> dict[str, User]:
    """`read_tokens` of a file; blocking."""
    return read_tokens(path.read_text().splitlines())
