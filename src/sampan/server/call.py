"""One request on its way through the server: what each step has found out so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.api.registry import Resource
from sampan.client.messages import Request, User
from sampan.server.negotiate import PLAIN, Form
from sampan.server.route import RequestInfo
from sampan.store.protocol import Item

if TYPE_CHECKING:
    from sampan.server.app import Server


@dataclass(slots=True)
class Call:
    """`row` is the resource that `info` names; `warnings` become Warning headers of the answer."""

    server: Server
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
