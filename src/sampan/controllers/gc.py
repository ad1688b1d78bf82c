"""Garbage collection: objects whose owners are gone follow them, in the foreground, in the background, or not at all.

Works on metadata of every resource, custom ones included. Source: "Garbage Collection" and "Owners and Dependents".
An owner that the view does not know is read from the server before anything is deleted for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api import meta
from sampan.api.registry import Registry, Resource
from sampan.base.objects import Object
from sampan.client.plan import Delete, Event, Key, Patch, Plan, View

from .base import Rule

_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"


def rules(registry: Registry) -> list[Rule]:
    """Any change of anything may concern its dependents or its owners, custom resources included."""
    collector = _Collector(registry)
    watches = {"*": collector.concerned}
    return [Rule("generic-garbage-collector", "*", collector.reconcile, watches, concerns=_concerns)]


def _concerns(obj: Object) -> bool:
    return bool(meta.owners(obj)) or meta.deleted(obj)


class _Collector:
    """The registry tells which resource an owner reference's kind is; it changes as custom resources come and go."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def row(self, api_version: str, kind: str) -> Resource | None:
        group, _, version = api_version.rpartition("/")
        return self._registry.by_kind(group, version, kind)

    def concerned(self, obj: Object, view: View) -> Iterator[Key]:
        """Of a deleted object its dependents; of any object the owners that wait for it in the foreground."""
        row = self.row(obj["apiVersion"], obj["kind"])
        known = row and view.get(row.name, meta.name(obj), meta.namespace(obj))
        if meta.deleted(obj) or not known or meta.uid(known) != meta.uid(obj):
            for resource, dependent in view.dependents(meta.uid(obj)):
                yield Key(meta.namespace(dependent), f"{resource}/{meta.name(dependent)}")
        for ref in meta.owners(obj):
            owner_row = self.row(ref["apiVersion"], ref["kind"])
            if owner_row:
                namespace = meta.namespace(obj) if owner_row.namespaced else ""
                owner = view.get(owner_row.name, ref["name"], namespace)
                if owner and _FOREGROUND in meta.finalizers(owner):
                    yield Key(namespace, f"{owner_row.name}/{ref['name']}")

    def reconcile(self, obj: Object, view: View, now: float) -> Plan:
        row = self.row(obj["apiVersion"], obj["kind"])
        if row is None:
            return Plan()
        if meta.deleted(obj):
            if _ORPHAN in meta.finalizers(obj):
                return _orphan(row, obj, view)
            if _FOREGROUND in meta.finalizers(obj):
                return self._foreground(row, obj, view)
            return Plan()
        return self._collect(row, obj, view) if meta.owners(obj) else Plan()

    def _foreground(self, row: Resource, obj: Object, view: View) -> Plan:
        """Blocking dependents go first; the object's own end is released when none is left."""
        uid = meta.uid(obj)
        blocking = [
            (r, d)
            for r, d in view.dependents(uid)
            if any(ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in meta.owners(d))
        ]
        if not blocking:
            plan = Plan(why="no dependent blocks it any more")
            return plan.then(_without_finalizer(row.name, obj, _FOREGROUND))
        plan = Plan(why=f"waits for {len(blocking)} dependents")
        # Each dependent looks at its owners itself: one that has another, living owner must stay.
        for _, dependent in blocking:
            if not meta.deleted(dependent):
                own = self.row(dependent["apiVersion"], dependent["kind"])
                found = self._collect(own, dependent, view) if own else Plan()
                plan.reads += found.reads
                for index, phase in enumerate(found.phases):
                    if index == len(plan.phases):
                        plan.phases.append([])
                    plan.phases[index] += phase
        return plan

    def _collect(self, row: Resource, obj: Object, view: View) -> Plan:
        """Deletes an object all of whose owners are gone or go in the foreground; drops references to some that are."""
        plan = Plan()
        solid, absent, waiting = [], [], []
        for ref in meta.owners(obj):
            owner_row = self.row(ref["apiVersion"], ref["kind"])
            if owner_row is None:
                solid.append(ref)  # a kind that is not served now: nothing is known about it
                continue
            if owner_row.namespaced and not row.namespaced:
                plan.events.append(_bad_owner(obj, ref))
                solid.append(ref)
                continue
            read = (owner_row.name, meta.namespace(obj) if owner_row.namespaced else "", ref["name"])
            owner = view.get(read[0], read[2], read[1])
            if owner is None or meta.uid(owner) != ref["uid"]:
                if read not in view.fetched:
                    plan.reads.append(read)
                    continue
                owner = view.fetched[read]
            if owner is None or meta.uid(owner) != ref["uid"]:
                absent.append(ref)
            elif (
                meta.deleted(owner)
                and _FOREGROUND in meta.finalizers(owner)
                and ref.get("blockOwnerDeletion")
            ):
                waiting.append(ref)
            else:
                solid.append(ref)
        if plan.reads or not (absent or waiting):
            return plan
        if solid:
            plan.why = "some of its owners are gone"
            return plan.then(_patch(row.name, obj, {"ownerReferences": solid}))
        plan.why = "its owners are gone" if absent else "its owner is deleted in the foreground"
        if waiting and any(_FOREGROUND in meta.finalizers(d) for _, d in view.dependents(meta.uid(obj))):
            # Maybe the dependents wait for this one's owner: nobody goes unless this one blocks nobody.
            free = [{**ref, "blockOwnerDeletion": False} for ref in meta.owners(obj)]
            plan.then(_patch(row.name, obj, {"ownerReferences": free}))
        return plan.then(self._delete(row, obj, view, bool(waiting)))

    def _delete(self, row: Resource, obj: Object, view: View, waiting: bool) -> Delete:
        """In the way its finalizers ask for; below an owner that waits, dependents of its own make it wait too."""
        if _ORPHAN in meta.finalizers(obj):
            how = "Orphan"
        elif _FOREGROUND in meta.finalizers(obj) or (waiting and view.dependents(meta.uid(obj))):
            how = "Foreground"
        else:
            how = "Background"
        return Delete(row.name, meta.name(obj), meta.namespace(obj), uid=meta.uid(obj), propagation=how)


def _orphan(row: Resource, obj: Object, view: View) -> Plan:
    """Dependents lose their reference before the owner goes."""
    uid = meta.uid(obj)
    plan = Plan(why="leaves its dependents behind")
    plan.then(
        *(
            _patch(resource, d, {"ownerReferences": [r for r in meta.owners(d) if r["uid"] != uid]})
            for resource, d in view.dependents(uid)
        )
    )
    return plan.then(_without_finalizer(row.name, obj, _ORPHAN))


def _without_finalizer(resource: str, obj: Object, name: str) -> Patch:
    return _patch(resource, obj, {"finalizers": [f for f in meta.finalizers(obj) if f != name]})


def _patch(resource: str, obj: Object, change: Object) -> Patch:
    """Conditional on the revision seen: lists are replaced whole, and must not undo what another wrote."""
    condition = {"uid": meta.uid(obj), "resourceVersion": meta.resource_version(obj)}
    return Patch(
        resource, meta.name(obj), {"metadata": condition | change}, meta.namespace(obj), missing_ok=True
    )


def _bad_owner(obj: Object, ref: Object) -> Event:
    text = f'ownerRef [{ref["apiVersion"]}/{ref["kind"]}, name: {ref["name"]}, uid: {ref["uid"]}] does not exist in namespace ""'
    return Event(obj, "Warning", "OwnerRefInvalidNamespace", text)
