"""ControllerRevisions: the templates that a StatefulSet or DaemonSet had, so that pods can be told apart and undone.

`kubectl rollout history|undo` read them. Source: API reference ControllerRevision v1. A template that comes back gets
its old revision, renumbered as the newest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Patch, Step, View

from .base import selector_of
from .revisions import template_hash

RESOURCE = "controllerrevisions.apps"


@dataclass
class History:
    """`all` from the oldest; `update` is the revision of the present template, `steps` what makes it so, `equal`
    all revisions that hold it (somebody may have copied one)."""

    all: list[Object]
    update: Object
    equal: list[Object] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    collided: bool = False

    def named(self, name: str) -> Object | None:
        return next((r for r in [*self.all, self.update] if meta.name(r) == name), None)


def data(owner: Object) -> Object:
    """What a revision holds: a strategic merge patch that puts the template back."""
    template = owner["spec"]["template"]
    return {"spec": {"template": template | {"$patch": "replace"}}}


def template_of(revision: Object) -> Object:
    return {k: v for k, v in revision["data"]["spec"]["template"].items() if k != "$patch"}


def of(owner: Object, view: View, label: str) -> History:
    """The history of `owner`, with the revision that its present template needs; `label` gets the template's hash."""
    found = [r for r in view.owned(RESOURCE, meta.uid(owner)) if selector_of(owner).matches(meta.labels(r))]
    found.sort(key=lambda r: (r["revision"], meta.name(r)))
    wanted = data(owner)
    equal = [r for r in found if r["data"] == wanted]
    following = found[-1]["revision"] + 1 if found else 1
    if not equal:
        return _create(owner, found, wanted, following, view, label)
    newest = equal[-1]
    if newest is found[-1]:
        return History(found, newest, equal)
    renumbered = Patch(RESOURCE, meta.name(newest), {"revision": following}, meta.namespace(owner))
    return History(found, newest | {"revision": following}, equal, [renumbered])


def _create(
    owner: Object, found: list[Object], wanted: Object, number: int, view: View, label: str
) -> History:
    hashed = template_hash(owner["spec"]["template"], owner.get("status", {}).get("collisionCount") or 0)
    name = f"{meta.name(owner)}-{hashed}"
    labels = owner["spec"]["template"].get("metadata", {}).get("labels") or {}
    made = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": meta.namespace(owner),
            "labels": labels | {label: hashed},
            "annotations": {k: v for k, v in meta.annotations(owner).items() if "last-applied" not in k},
            "ownerReferences": [meta.owner_ref(owner, controller=True)],
        },
        "data": wanted,
        "revision": number,
    }
    taken = view.get(RESOURCE, name, meta.namespace(owner)) is not None
    return History(found, made, [made], [Create(RESOURCE, made, meta.namespace(owner))], taken)


def surplus(history: History, live: set[str], limit: int) -> list[Step]:
    """Deletes the oldest revisions that no pod has, beyond `revisionHistoryLimit`. `live` are names."""
    unused = [
        r for r in history.all if meta.name(r) not in live and meta.name(r) != meta.name(history.update)
    ]
    gone = unused[: max(0, len(unused) - limit)]
    return [Delete(RESOURCE, meta.name(r), meta.namespace(r), uid=meta.uid(r)) for r in gone]
