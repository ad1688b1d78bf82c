"""What admission is asked about, and what its plugins may know: the values every plugin shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sampan.api.registry import Registry, Resource
from sampan.api.status import ApiError, forbidden
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.messages import User
from sampan.server.auth.authorize import Authorizer
from sampan.server.lookup import Lookup

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"


@dataclass(slots=True)
class Attrs:
    """One operation. Plugins change `obj` in place; `warnings` are shown to the client."""

    op: str
    row: Resource
    subresource: str
    namespace: str
    name: str
    obj: Object | None
    old: Object | None
    user: User
    dry_run: bool = False
    options: Any = None
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)  # for the audit log
    shape: Resource | None = None  # what `obj` is where it is no object of `row`: PodExecOptions, an Eviction
    left: dict[tuple[str, str], bytes] = field(default_factory=dict)  # mutating policy, binding -> its object

    def shown_name(self) -> str:
        """The name refusals give."""
        meta = (self.obj or {}).get("metadata") or {}
        return self.name or meta.get("name") or meta.get("generateName") or "Unknown"

    def forbidden(self, why: str) -> ApiError:
        """The 403 of a plugin."""
        return forbidden(self.row.group, self.row.plural, self.shown_name(), why)


@dataclass(slots=True)
class Context:
    """What plugins look at: the cluster, time and chance, and who may do what."""

    lookup: Lookup
    clock: Clock
    ids: Ids
    authorizer: Authorizer
    registry: Registry | None = None
    call: Callable[..., Awaitable[Object]] | None = None  # posts to a webhook; see `egress.callout`
    toleration_seconds: int = 300  # how long a pod outlives its lost node


Step = Callable[[Attrs, Context], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin is asked about these resources (GroupResource text; None: all) and operations.

    `subresources`: "" is the object itself; None means any. Most plugins care for the object alone.
    `reads`: the buckets that its answer to a CREATE depends on beside that itself; None when nobody has said. One that
    `sleeps` does nothing as long as they are empty, and its answers depend on more once they are not.
    """

    name: str
    resources: frozenset[str] | None
    operations: frozenset[str]
    admit: Step | None = None
    validate: Step | None = None
    subresources: frozenset[str] | None = frozenset({""})
    reads: tuple[str, ...] | None = None
    sleeps: bool = False

    def concerns(self, op: str, resource: str, subresource: str) -> bool:
        """Whether it is to be asked about this."""
        return (
            op in self.operations
            and (self.resources is None or resource in self.resources)
            and (self.subresources is None or subresource in self.subresources)
        )


def only(*names: str) -> frozenset[str]:
    return frozenset(names)
