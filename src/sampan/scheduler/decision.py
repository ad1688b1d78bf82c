"""What a decision says. Apart from `schedule`, which makes it, because a cluster without nodes needs no NumPy to decide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.base.objects import Object

if TYPE_CHECKING:
    from .filters import Refusals
    from .preempt import Victims

NO_NODES = "no nodes available to schedule pods"
SELECTED_NODE = (
    "volume.kubernetes.io/selected-node"  # tells the volume controller for which node to make a volume
)


@dataclass
class Decision:
    """`node` is empty when no node will do; then `message` says why, `victims` whom to remove so that one will.

    `waits`: those that were chosen earlier are still leaving.

    `claims` wait for the pod's node to be known: each with the volume chosen for it, or None for one to be made.
    """

    node: str = ""
    message: str = ""
    score: float = 0.0
    victims: Victims | None = None
    waits: bool = False
    claims: list[tuple[Object, Object | None]] = field(default_factory=list)
    refusals: Refusals | None = None
    time: float = 0.0  # when it was made; the shell says
    _names: tuple[str, ...] = ()

    def refused(self) -> dict[str, tuple[str, ...]]:
        """For every node that was refused, why."""
        if self.refusals is None:
            return {}
        return {
            name: self.refusals.reasons[code][0]
            for name, code in zip(self._names, self.refusals.code, strict=False)
            if code
        }
