"""The decision: `schedule(pod, snapshot) -> Decision`, pure; where a pod goes, or for every node why not.

The words of a refusal are kube-scheduler's, since people and tools search for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from sampan.api import meta
from sampan.base.objects import Object

from . import filters, scores, volumes
from .decision import NO_NODES, Decision
from .filters import Refusals
from .podinfo import PodInfo
from .preempt import find_victims, still_leaving
from .snapshot import Array, Snapshot

_NEVER = "preemption: not eligible due to preemptionPolicy=Never."
_LEAVING = "preemption: not eligible due to a terminating pod on the nominated node."


def schedule(pod: Object, snapshot: Snapshot, choice: Callable[[int], int] = lambda _: 0) -> Decision:
    """`choice(n)` breaks ties among n equally good nodes (`base.ids.Ids.choice`)."""
    if not snapshot.size:
        return Decision(message=NO_NODES)
    info, key = snapshot.info(pod), meta.key(pod)
    needs = volumes.needs(info, snapshot) if info.claims else volumes.Needs()
    if needs.refusal:
        return Decision(message=_message(snapshot.size, [needs.refusal], _unhelpful(snapshot.size)))
    refusals = filters.run(info, snapshot, key)
    if info.claims:
        volumes.restrict(needs, snapshot, refusals)
    if info.spec.get(
        "resourceClaims"
    ):  # no devices here: better waiting than running without what it asks for
        refusals.refuse(np.ones(snapshot.size, bool), "cannot allocate all claims", final=True)
    possible = refusals.open
    if not possible.any():
        return _refused(key, info, snapshot, refusals)
    names = tuple(snapshot.names) if len(refusals.reasons) > 1 else ()
    at, score = _best(pod, info, snapshot, possible, choice)
    chosen = volumes.choose(needs.waiting, snapshot.nodes[at]) or []
    return Decision(snapshot.names[at], score=score, claims=chosen, refusals=refusals, _names=names)


def _best(
    pod: Object, info: PodInfo, snapshot: Snapshot, possible: Array, choice: Callable[[int], int]
) -> tuple[int, float]:
    """The nominated node if it will do, else one of the best."""
    nominated = snapshot.index.get(pod.get("status", {}).get("nominatedNodeName", ""))
    if nominated is not None and possible[nominated]:
        return nominated, 0.0
    count = int(possible.sum())
    if count == 1:
        return int(possible.argmax()), 0.0
    score = np.where(possible, scores.total(info, snapshot, possible), -1.0)
    highest = score.max()
    best = np.flatnonzero(score == highest)
    return int(best[choice(len(best)) if len(best) > 1 else 0]), float(highest)


def _refused(key: str, info: PodInfo, snapshot: Snapshot, refusals: Refusals) -> Decision:
    size = snapshot.size
    reasons = [r for code in refusals.code for r in refusals.reasons[code][0]]
    victims, waits = None, False
    if info.spec.get("preemptionPolicy") == "Never":
        after = _NEVER
    elif waits := still_leaving(key, info, snapshot):
        after = _LEAVING
    else:
        final = refusals.final()
        victims = find_victims(key, info, snapshot, np.flatnonzero(~final))
        hopeless = int(final.sum())
        why = ["Preemption is not helpful for scheduling"] * hopeless
        why += ["No preemption victims found for incoming pod"] * (size - hopeless)
        after = "" if victims else "preemption: " + _message(size, why)
    text = _message(size, reasons, after)
    names = tuple(snapshot.names)
    return Decision(message=text, victims=victims, waits=waits, refusals=refusals, _names=names)


def _unhelpful(size: int) -> str:
    return "preemption: " + _message(size, ["Preemption is not helpful for scheduling"] * size)


def _message(size: int, reasons: Iterable[str], after: str = "") -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.` Reasons sorted as text."""
    reasons = list(reasons)
    if len(reasons) == 1 and reasons[0].startswith(("persistentvolumeclaim", "pod has")):
        listed = reasons
    else:
        listed = sorted(f"{count} {reason}" for reason, count in Counter(reasons).items())
    return f"0/{size} nodes are available: {', '.join(listed)}." + (f" {after}" if after else "")
