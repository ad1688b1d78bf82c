"""Who may ask a kubelet, and for what: a client certificate or a bearer token, then what the API server says of it.

Source: "Kubelet authentication/authorization". Nobody is anonymous; metrics-server and Prometheus come with a token of
their service account and rights on nodes/stats and nodes/metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Generic, TypeVar

from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.messages import Request

T = TypeVar("T")
# Of the control plane: let in without a question, so that logs and exec need no second way through the server.
CLIENT_NAMES = ("kube-apiserver-kubelet-client",)
CLIENT_GROUPS = ("system:masters",)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_WHOLE = {"stats": "stats", "metrics": "metrics", "logs": "log", "checkpoint": "checkpoint"}
_FINE = {"pods": "pods", "runningpods": "pods", "healthz": "healthz", "configz": "configz"}  # KEP-2862
_WHO, _YES, _NO = (
    120.0,
    300.0,
    30.0,
)  # seconds an answer is kept: kubelet's cacheTTL and its two of authorization
_MOST = 1024  # answers kept


class Denied(Exception):
    """`status` is 401 or 403."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Access:
    """`await check(request)` returns when the caller may have what he asks for."""

    def __init__(self, client: Client, node: str, clock: Clock) -> None:
        """`client`: with the identity of the node, which may ask for reviews."""
        self._client, self._node = client, node
        self._users: _Kept[Object | None] = _Kept(clock.monotonic)
        self._answers: _Kept[bool] = _Kept(clock.monotonic)

    async def check(self, request: Request) -> None:
        """Raises Denied; ApiError or OSError when the server cannot be asked."""
        peer = request.peer or {}
        if peer.get("cn") in CLIENT_NAMES or any(g in CLIENT_GROUPS for g in peer.get("o", ())):
            return
        user = await self._user(request)
        if user is None:
            raise Denied(401, "Unauthorized")
        verb, subresources = wanted(request.method, request.path)
        for subresource in subresources:
            if await self._may(user, verb, subresource):
                return
        raise Denied(
            403,
            f"Forbidden (user={user['username']}, verb={verb}, resource=nodes, "
            f"subresource(s)=[{' '.join(subresources)}])\n",
        )

    async def _user(self, request: Request) -> Object | None:
        """username, uid, groups and extra; None when the caller shows nothing that is good."""
        peer = request.peer or {}
        if peer.get("cn"):
            return {"username": peer["cn"], "groups": [*peer.get("o", ()), "system:authenticated"]}
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        key = hashlib.sha256(token.strip().encode()).hexdigest()
        known, user = self._users.get(key)
        if known:
            return user
        review = _review("authentication.k8s.io/v1", "TokenReview", {"token": token.strip()})
        status = (await self._client.create("tokenreviews.authentication.k8s.io", review)).get("status", {})
        user = status.get("user") if status.get("authenticated") else None
        self._users.put(key, user, _WHO if user else _NO)
        return user

    async def _may(self, user: Object, verb: str, subresource: str) -> bool:
        key = repr((user, verb, subresource))
        known, allowed = self._answers.get(key)
        if known:
            return bool(allowed)
        spec = {
            "user": user["username"],
            "groups": user.get("groups") or [],
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self._node,
            },
        }
        spec |= {name: user[name] for name in ("uid", "extra") if user.get(name)}
        review = _review("authorization.k8s.io/v1", "SubjectAccessReview", spec)
        answer = await self._client.create("subjectaccessreviews.authorization.k8s.io", review)
        allowed = bool(answer.get("status", {}).get("allowed"))
        self._answers.put(key, allowed, _YES if allowed else _NO)
        return allowed


def wanted(method: str, path: str) -> tuple[str, list[str]]:
    """(verb, subresources of nodes) a request needs; one of the subresources is enough. Pure."""
    first = path.strip("/").partition("/")[0]
    verb = _VERBS.get(method, "get")
    if first in _WHOLE:
        return verb, [_WHOLE[first]]
    return verb, [_FINE[first], "proxy"] if first in _FINE else ["proxy"]


def _review(version: str, kind: str, spec: Object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {}, "spec": spec}


class _Kept(Generic[T]):
    """Answers with an end, the oldest forgotten when there are too many."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._all: dict[str, tuple[float, T]] = {}

    def get(self, key: str) -> tuple[bool, T | None]:
        """(known, answer)."""
        end, answer = self._all.get(key, (0.0, None))
        return (True, answer) if end > self._now() else (False, None)

    def put(self, key: str, answer: T, seconds: float) -> None:
        self._all.pop(key, None)
        self._all[key] = (self._now() + seconds, answer)
        if len(self._all) > _MOST:
            del self._all[next(iter(self._all))]
