"""What the state machine asks its shell to do: data, each with a key so that nothing is done twice at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sampan.node.runtime import Limits


@dataclass(frozen=True, slots=True)
class MountVolumes:
    """Set up the pod's volumes; may be asked for again."""

    key: str = "volumes"


@dataclass(frozen=True, slots=True)
class RunSandbox:
    """Make the pod's surroundings, removing those of an earlier attempt first."""

    attempt: int
    key: str = "sandbox"


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Get the image, resolve the configuration, start, run postStart. `ran`: seconds the last attempt lived."""

    name: str
    attempt: int
    ran: float | None = None
    key: str = "start"


@dataclass(frozen=True, slots=True)
class StopContainer:
    """preStop, the stop signal, and SIGKILL when `grace` seconds have passed since the first of these."""

    id: str
    name: str
    grace: float
    why: str  # event text
    key: str
    replaces: bool = False  # it starts anew, with another definition


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove what is left of an attempt that has ended."""

    id: str
    key: str


@dataclass(frozen=True, slots=True)
class ResizeContainer:
    """Apply changed resources to a running container (KEP-1287)."""

    id: str
    limits: Limits
    key: str


@dataclass(frozen=True, slots=True)
class ResizePod:
    """Apply changed resources of the pod as a whole (KEP-5419)."""

    key: str = "resize-pod"


@dataclass(frozen=True, slots=True)
class RestartAll:
    """Kill what runs, then let the pod begin again (KEP-5532)."""

    key: str = "restart-all"


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Wait until no new traffic is sent here, at most `limit` seconds."""

    limit: float
    key: str = "withdraw"


@dataclass(frozen=True, slots=True)
class Cleanup:
    """Sandbox, address and volumes go; `delete`: also the record in the API, after its last status."""

    delete: bool
    key: str = "cleanup"


Action = (
    MountVolumes
    | RunSandbox
    | StartContainer
    | StopContainer
    | RemoveContainer
    | ResizeContainer
    | ResizePod
    | RestartAll
    | Withdraw
    | Cleanup
)


@dataclass(frozen=True, slots=True)
class Note:
    """An event to record once for each `key` (a state machine that runs often must not repeat itself)."""

    key: str
    type: str
    reason: str
    message: str
    container: str = ""


@dataclass(slots=True)
class Step:
    """The outcome of one look at a pod. `probes`: container name -> id of those to be probed.

    `wake`: the next time (epoch seconds) at which something changes by itself.
    """

    actions: list[Action] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    probes: Mapping[str, str] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    ending: bool = False
    wake: float | None = None

    def wake_at(self, when: float) -> None:
        self.wake = when if self.wake is None else min(self.wake, when)
