"""How much went over the cables of pods and over the node's own interface: counters of /proc/net/dev."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sampan.node.network.pod import veth_name

Counters = tuple[int, int, int, int]  # received bytes and errors, sent bytes and errors


def by_sandbox(sandbox_ids: Iterable[str], text: str = "") -> Mapping[str, Counters]:
    """Of each sandbox as it sees them; "" is the node's own eth0. `text` stands in for /proc/net/dev. Blocking."""
    seen = _counters(text or Path("/proc/thread-self/net/dev").read_text())
    found = {"": seen["eth0"]} if "eth0" in seen else {}
    for id_ in sandbox_ids:
        outside = seen.get(veth_name(id_))
        if outside:
            found[id_] = (
                outside[2],
                outside[3],
                outside[0],
                outside[1],
            )  # what the node receives, the pod sent
    return found


def _counters(text: str) -> dict[str, Counters]:
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = [int(word) for word in rest.split()]
        found[name.strip()] = (fields[0], fields[2], fields[8], fields[10])
    return found
