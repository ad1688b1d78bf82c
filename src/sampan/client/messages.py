"""A request and its answer, as every plank passes them: over TLS or inside one process they are the same values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable


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
    peer: Mapping[str, Any] | None = (
        None  # the connection's certificate: {"cn": str, "o": [str], "der": bytes}
    )
    remote: str = ""  # address of the caller, for audit
    repeated: Sequence[tuple[str, str]] = ()  # headers sent once a value; only on the way out


class WatchEvent(NamedTuple):
    """`kind` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR; `value` the object's JSON, shared by all who see it.

    `obj` is what `value` says, where that is known already; whoever gets the event may keep it, but not change it.
    """

    kind: str
    revision: int  # of the event; 0 for an ERROR
    value: bytes
    obj: dict[str, Any] | None = None


class RawStream(Protocol):
    """A connection after 101, whose bytes mean what both sides have agreed on (RFC 9110, section 7.8)."""

    async def read(self) -> bytes:
        """The next bytes as they came, b"" when the other side has ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Waits while the other side is slow. Raises OSError when it is gone."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Response:
    """`body` is bytes, or chunks as they come (watch, logs). `upgrade` takes over the raw connection after 101.

    `events` are those of a watch, unframed, for a reader in the same process; it reads either them or `body`.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    upgrade: Callable[[RawStream], Awaitable[None]] | None = None
    events: Callable[[], AsyncIterator[Sequence[WatchEvent]]] | None = None


@runtime_checkable
class Pushed(Protocol):
    """A body that can do without its reader: while that waits for the next chunk, the body may `write` it instead, in
    order. `write` says no when the connection has enough to send; then the reader gets the chunk."""

    def push_to(self, write: Callable[[bytes], bool]) -> None: ...


class Transport(Protocol):
    """How a client reaches a server: `client.https.HttpsTransport`, or a server's `handle` itself."""

    async def __call__(self, request: Request) -> Response: ...
