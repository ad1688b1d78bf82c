"""Restart rules of containers, and the one that restarts all of a pod's containers in place (KEP-5307, KEP-5532).

Such a restart has two parts. First what runs is killed: no order, no grace, no preStop. Then every attempt so far counts
as of an earlier life (`World.before`): the pod starts from its first init container on, in the sandbox and with the
volumes it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.base.objects import Object
from sampan.node.runtime import ContainerStatus

if TYPE_CHECKING:
    from sampan.node.pods.world import World

ACTION = "RestartAllContainers"
CONDITION = "AllContainersRestarting"
REASON = "RestartingAllContainers"
MESSAGE = "The container is removed because RestartAllContainers in place"


def action(container: Object, exit_code: int) -> str:
    """What the first rule that fits an exit asks for, "" when none does."""
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        listed = exit_code in (codes.get("values") or ())
        if listed == (codes.get("operator") == "In"):
            return rule.get("action", "")
    return ""


def taking_part(pod: Object) -> list[Object]:
    """Ephemeral containers never start again."""
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def possible(pod: Object) -> bool:
    """Whether some exit of some container restarts them all."""
    rules = (rule for c in taking_part(pod) for rule in c.get("restartPolicyRules") or ())
    return any(rule.get("action") == ACTION for rule in rules)


def triggered(pod: Object, world: World) -> bool:
    """Whether the end of a container asks for it now."""
    if not possible(pod):
        return False
    latest = ((c, world.latest(c["name"])) for c in taking_part(pod))
    return any(one is not None and one.config.id not in world.before and _asks(c, one) for c, one in latest)


def _asks(container: Object, status: ContainerStatus) -> bool:
    return status.state == "exited" and action(container, status.exit_code) == ACTION


def under_way(pod: Object) -> bool:
    """Whether the pod's condition says so: an agent died before it had killed all."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == CONDITION and c["status"] == "True" for c in conditions)


def earlier_lives(pod: Object, world: World) -> set[str]:
    """For an agent that takes a pod over: the attempts that ended before a restart of all that is done or has begun anew."""
    if not possible(pod):
        return set()
    attempts = [(c, one) for c in taking_part(pod) for one in world.attempts(c["name"])]
    found = {one.config.id for _, one in attempts if one.reason == REASON}
    newest = max((one.created_at for _, one in attempts), default=0.0)
    asked = [one.finished_at for c, one in attempts if _asks(c, one) and one.finished_at < newest]
    if asked:
        found |= {one.config.id for _, one in attempts if one.created_at <= max(asked)}
    return found
