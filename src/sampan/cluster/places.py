"""Places on the fabric for machines that join: given with the Node's pod ranges, and kept for the machine, not for the Node.

Somebody may delete the Node of a machine that runs, or that comes back: its pods still have their addresses, and its agent
registers with them again. So a place belongs to its machine, told by its address for the others, until the machine leaves
with `sampan down`. Who has which is in the ConfigMap kube-system/sampan-places, written before a machine learns its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Patch, Plan, View
from sampan.controllers import Rule
from sampan.node.network.tunnel_table import ADDRESS

FIRST = 100  # nodes of the first machine are below
LEAVES = (
    "sampan.dev/machine-leaves"  # annotation of a Node: its machine has cleared all, and asks for its removal
)
_PLACES = range(FIRST, 252, 2)
_NAMESPACE, _NAME = "kube-system", "sampan-places"  # place -> address of the machine
_READ = ("configmaps", _NAMESPACE, _NAME)


def rule(ranges: Callable[[int], Sequence[str]]) -> Rule:
    """Gives Nodes of machines that join their pod ranges, and takes places back from machines that leave.

    `ranges(index)` are those of a place. Places count in twos: one for the node, the next for its machine's host.
    """
    place_of = {ranges(index)[0]: index for index in _PLACES}

    def reconcile(node: Object, view: View, now: float) -> Plan:
        machine = meta.annotations(node).get(ADDRESS, "")
        if not machine:
            return Plan()
        if _READ not in view.fetched:
            return Plan(reads=[_READ])
        record = view.fetched[_READ]
        held = {int(place): owner for place, owner in ((record or {}).get("data") or {}).items()}
        place = place_of.get(_range(node))
        if LEAVES in meta.annotations(node):
            plan = Plan(why="its machine leaves")
            if held.get(place or 0) == machine:
                plan.then(_note(record, place, None))
            return plan.then(Delete("nodes", meta.name(node), uid=meta.uid(node)))
        if _range(node):
            return Plan() if place is None or place in held else Plan().then(_note(record, place, machine))
        taken = {place_of.get(_range(other)) for other in view.list("nodes")}
        free = [i for i in _PLACES if i not in taken and held.get(i, machine) == machine]
        if not free:
            return Plan(why=f"all {len(_PLACES)} places are taken")
        place = min(free, key=lambda i: (i not in held, i))
        own = list(ranges(place))
        change = {
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "spec": {"podCIDR": own[0], "podCIDRs": own},
        }
        plan = Plan(why=f"place {place} is free")
        if place not in held:
            plan.then(_note(record, place, machine))
        return plan.then(Patch("nodes", meta.name(node), change))

    return Rule("sampan-places", "nodes", reconcile, alone=True)


def _range(node: Object) -> str:
    """Its first pod range, "" of none."""
    spec = node.get("spec") or {}
    return str((spec.get("podCIDRs") or [spec.get("podCIDR") or ""])[0])


def _note(record: Object | None, place: int | None, machine: str | None) -> Create | Patch:
    """Whose a place is from now on; None: nobody's."""
    data = {str(place): machine}
    if record:
        return Patch("configmaps", _NAME, {"data": data}, _NAMESPACE)
    return Create("configmaps", {"metadata": {"name": _NAME}, "data": data}, _NAMESPACE)
