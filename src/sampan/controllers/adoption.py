"""Who owns what: a controller adopts orphans that its selector matches and releases what it matches no longer.

Source: "Owners and dependents", ControllerRef design: at most one controlling reference; before the first adoption the
owner is read again from the server, since a stale one would adopt for a controller that was deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sampan.api import meta
from sampan.api.selectors import LabelSelector
from sampan.base.objects import Object
from sampan.client.plan import Patch, Step, View


class Claim:
    """What belongs to `owner`: `mine`, the `steps` that make it so, and `reads` still needed before adopting."""

    def __init__(self) -> None:
        self.mine: list[Object] = []
        self.steps: list[Step] = []
        self.reads: list[tuple[str, str, str]] = []


def claim(
    owner: Object,
    owner_resource: str,
    resource: str,
    selector: LabelSelector,
    view: View,
    *,
    eligible: Callable[[Object], bool] = lambda _: True,
    finalizers: Iterable[str] = (),
) -> Claim:
    """Claims objects of `resource` in the owner's namespace.

    `eligible` leaves out objects that are neither adopted nor released (finished pods); `finalizers` are added with
    an adoption.
    """
    result = Claim()
    uid, namespace = meta.uid(owner), meta.namespace(owner)
    for obj in view.owned(resource, uid):
        if not eligible(obj):
            continue
        if selector.matches(meta.labels(obj)):
            result.mine.append(obj)
        elif not meta.deleted(owner):
            result.steps.append(_release(resource, obj, uid))
    orphans = [
        o
        for o in view.owned(resource, "")
        if meta.namespace(o) == namespace
        and not meta.deleted(o)
        and eligible(o)
        and selector.matches(meta.labels(o))
    ]
    if not orphans or meta.deleted(owner):
        return result
    read = (owner_resource, namespace, meta.name(owner))
    if read not in view.fetched:
        result.reads.append(read)
        return result
    live = view.fetched[read]
    if live is None or meta.uid(live) != uid or meta.deleted(live):
        return result
    for obj in orphans:
        result.mine.append(obj)
        result.steps.append(_adopt(resource, obj, owner, finalizers))
    result.mine.sort(key=meta.name)
    return result


def _adopt(resource: str, obj: Object, owner: Object, finalizers: Iterable[str]) -> Patch:
    change: Object = {"uid": meta.uid(obj), "ownerReferences": [meta.owner_ref(owner, controller=True)]}
    if finalizers:
        change["finalizers"] = list(finalizers)
    return Patch(resource, meta.name(obj), {"metadata": change}, meta.namespace(obj), kind="strategic")


def _release(resource: str, obj: Object, uid: str) -> Patch:
    change = {"uid": meta.uid(obj), "ownerReferences": [{"$patch": "delete", "uid": uid}]}
    return Patch(
        resource, meta.name(obj), {"metadata": change}, meta.namespace(obj), kind="strategic", missing_ok=True
    )
