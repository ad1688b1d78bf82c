"""What a node of an ordinary user lacks: said by its conditions, and by `sampan doctor` before there is one."""

from __future__ import annotations

UNLIMITED = "this node may not make control groups: limits of containers are not enforced"
SINGLE = "containers have the single user 0: chown and other users fail in them"
CUT_OFF = "only TCP and DNS reach the outside, and Services reach the host only through a forwarder"


def conditions(*, limited: bool, rootless: bool, single: bool) -> list[dict[str, str]]:
    """Node conditions, one for each loss that applies."""
    found = [
        (not limited, "ContainersUnlimited", "NoControlGroups", UNLIMITED),
        (rootless and single, "ContainersSingleUser", "NoSubordinateIds", SINGLE),
        (rootless, "NetworkForwarded", "Rootless", CUT_OFF),
    ]
    return [
        {"type": kind, "status": "True", "reason": reason, "message": message}
        for applies, kind, reason, message in found
        if applies
    ]
