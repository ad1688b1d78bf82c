"""What a composition root decides about a server."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.server.egress.nodes import NodeConnector

GIT_VERSION = "v1.37.0+sampan"


@dataclass(slots=True)
class Config:
    """What the composition root decides about a server."""

    anonymous: bool = True
    authorize: bool = True  # False: every authenticated user may do everything (tests of other things)
    git_version: str = GIT_VERSION
    nodes: NodeConnector | None = None
