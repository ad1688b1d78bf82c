"""A request and its answer, as every plank passes them: over TLS or inside one process they are the same values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. Set by authentication, or by the composition root for clients inside the process."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Request:
    """`path` is decoded, without the query; `query` is the raw text after `?`; header names are lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: User | None = None  # None: authenticate from headers and `peer`
    peer: Mapping[str, Any] | None = None  # the connection's certificate: {"cn": str, "o": [str], "der": bytes}
    remote: str = ""  # address of the caller, for audit


@dataclass(slots=True)
class Response:
    """`body` is bytes, or chunks as they come (watch, logs). `upgrade` takes over the raw connection after 101."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    upgrade: Callable[[Any], Awaitable[None]] | None = None


class Transport(Protocol):
    """How a client reaches a server: `client.https.HttpsTransport`, or a server's `handle` itself."""

    async def __call__(self, request: Request) -> Response: ...
