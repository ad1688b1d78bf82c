"""One request on its way through the server: what each step has found out so far, and what it finds at hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sampan.api.registry import Registry, Resource
from sampan.api.status import FieldError
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.messages import Request, User
from sampan.server.auth.authorize import Authorizer
from sampan.server.config import Config
from sampan.server.conversion import Conversions
from sampan.server.egress.nodes import NodeConnector
from sampan.server.frames import Frames
from sampan.server.lookup import Lookup
from sampan.server.negotiate import PLAIN, Form
from sampan.server.recent import Recent
from sampan.server.route import RequestInfo
from sampan.store.protocol import Item, Store, Watch


class Kit(Protocol):
    """What the steps of a request find at hand, and all they know of `app.Server`, which is one; see there.

    Not named are the types of what is plugged in (`admission`, `audit`, `authenticator`, `tokens`), and of what is a step
    itself (`definitions`, `pod_templates`).
    """

    store: Store
    registry: Registry
    clock: Clock
    ids: Ids
    config: Config
    lookup: Lookup
    recent: Recent
    conversions: Conversions
    frames: Frames
    watchers: dict[Watch, Resource]
    authorizer: Authorizer
    nodes: NodeConnector | None
    admission: Any
    audit: Any
    authenticator: Any
    tokens: Any
    definitions: Any
    pod_templates: Any

    def validate_create(self, row: Resource, obj: Object) -> list[FieldError]: ...

    def validate_update(
        self, row: Resource, new: Object, old: Object, subresource: str
    ) -> list[FieldError]: ...

    def allocate(self, call: Call, obj: Object, old: Object | None, dry_run: bool) -> None: ...

    def written(self, row: Resource, item: Item) -> None: ...

    def removed(self, row: Resource, obj: Object) -> None: ...


@dataclass(slots=True)
class Call:
    """`row` is the resource that `info` names; `warnings` become Warning headers of the answer."""

    server: Kit
    request: Request
    info: RequestInfo
    row: Resource
    user: User
    form: Form = PLAIN
    warnings: list[str] = field(default_factory=list)
    held: Item | None = None  # the named object, when it had to be converted before it can be read

    @property
    def manager(self) -> str:
        """The default field manager: User-Agent up to `/` (server-side apply, "Managers")."""
        agent = self.request.headers.get("user-agent", "")
        return agent.partition("/")[0][:128] or "unknown"

    def authorize_also(self, verb: str) -> None:
        """A PUT or apply that creates must be allowed to create, too, and so must a GET that becomes a connection.

        Raises 403.
        """
        if self.server.config.authorize:
            self.server.authorizer.check(self.user, replace(self.info, verb=verb))

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def warn_of(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.warn(text)


def warning_headers(warnings: list[str]) -> dict[str, str]:
    """RFC 7234 section 5.5, as `299 - "text"`; several are joined, since header names are unique here."""
    if not warnings:
        return {}
    quoted = (w.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for w in warnings)
    return {"warning": ", ".join(f'299 - "{w}"' for w in quoted)}
