"""What a controller wants done: data, not calls. The runner (`client.runner`) carries it out.

A controller is a pure function `reconcile(object, view, now) -> Plan`. Phases run in order, the steps of a phase side
by side; a failed phase stops the plan, and the key is tried again on fresh state with back-off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from sampan.api.selectors import LabelSelector
from sampan.base.objects import Object

Objects = list[Object]
Pairs = list[tuple[str, Object]]  # with their GroupResource


class Key(NamedTuple):
    """An object of a known resource. `namespace` is empty for cluster-scoped ones."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Event:
    """An Event about `regarding`, as `kubectl describe` shows it; the runner aggregates repeats."""

    regarding: Object
    type: str  # Normal | Warning
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Create:
    """`exists_ok`: an object of that name is as good (retry after a crash); the default fails with a conflict.

    `event` is sent when this very step succeeded; `{name}` in its message becomes the name that the server gave.
    """

    resource: str
    obj: Object
    namespace: str = ""
    exists_ok: bool = False
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Replaces a whole object; its resourceVersion makes it conditional."""

    resource: str
    obj: Object
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch of kind merge, json, strategic or apply. Put uid/resourceVersion in the patch to make it conditional."""

    resource: str
    name: str
    patch: Any
    namespace: str = ""
    kind: str = "merge"
    subresource: str = ""
    missing_ok: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """With `uid` only that very object goes; a missing one counts as deleted."""

    resource: str
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    grace: int | None = None
    propagation: str = ""


@dataclass(frozen=True, slots=True)
class Subresource:
    """POST to a subresource: pods/binding, pods/eviction, serviceaccounts/token."""

    resource: str
    name: str
    subresource: str
    obj: Object
    namespace: str = ""


Step = Create | Update | Patch | Delete | Subresource


@dataclass(slots=True)
class Plan:
    """What is to be done, in which order, and what is told of it.

    events: those with text `{error}` are sent only if a phase fails; the others after all phases succeeded.
    reads: (resource, namespace, name) of what the controller must see beyond its view. The runner fetches each (a missing
        one is None) and calls reconcile again with them in `view.fetched`. `RESOURCE/scale` is that subresource of it; an
        empty name lists the collection; `effect:NAME` calls the runner's effect of that name with (namespace, name), such
        as `effect:sign` for a certificate.
    rescue: steps that run if a phase fails: the text `{error}` in their strings becomes what the failure said (a
        ReplicaFailure condition, say).
    """

    phases: list[list[Step]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    requeue_after: float | None = None
    reads: list[tuple[str, str, str]] = field(default_factory=list)
    rescue: list[Step] = field(default_factory=list)
    why: str = ""  # one line for `sampan story`

    @property
    def idle(self) -> bool:
        """Nothing is to be read, written or told."""
        return not (self.reads or self.events or any(self.phases))

    def then(self, *steps: Step) -> Plan:
        """Adds a phase after those there are."""
        if steps:
            self.phases.append(list(steps))
        return self

    def requeue(self, seconds: float) -> Plan:
        """The sooner of what was asked before and `seconds`."""
        self.requeue_after = seconds if self.requeue_after is None else min(self.requeue_after, seconds)
        return self


class View(Protocol):
    """A read-only, indexed, eventually current picture of the cluster. What it returns must not be changed.

    Lists are sorted by (namespace, name), so that decisions do not depend on the order of arrival.
    """

    fetched: Mapping[tuple[str, str, str], Object | None]

    @property
    def moment(self) -> float:
        """Seconds that setting the machine's clock does not change: for how long ago this process saw something. `now`
        is for times that are written into objects."""
        ...

    def last_sign(self, resource: str, name: str, namespace: str = "") -> float:
        """The `moment` at which an object's declared sign of life was seen to change, or first seen; -inf without object.

        Times that another machine wrote are no measure of this: its clock may be wrong.
        """
        ...

    def get(self, resource: str, name: str, namespace: str = "") -> Object | None: ...

    def list(self, resource: str, namespace: str | None = None) -> Objects: ...

    def selected(self, resource: str, namespace: str, selector: LabelSelector) -> Objects:
        """Objects whose labels match."""
        ...

    def owned(self, resource: str, uid: str) -> Objects:
        """Objects whose controlling owner reference has this uid; with uid "" those that have no controller."""
        ...

    def dependents(self, uid: str) -> Pairs:
        """(GroupResource, object) of every object of any resource with an owner reference to this uid."""
        ...

    def contents(self, namespace: str) -> Pairs:
        """(GroupResource, object) of everything in a namespace, custom resources included; metadata suffices."""
        ...

    def unseen(self) -> Sequence[str]:
        """Namespaced resources that cannot be read (custom ones whose conversion fails): `contents` does not show them."""
        ...

    def indexed(self, resource: str, index: str, value: str) -> Objects:
        """Objects by a declared index, such as pods by `spec.nodeName`."""
        ...

    def count(self, resource: str, index: str = "", value: str = "") -> int:
        """How many `indexed` would give, or how many there are in all, at no cost."""
        ...


Mapper = Callable[[Object, View], Iterable[Key]]  # of a changed object, the keys that it concerns


def by_metadata(mapper: Mapper) -> Mapper:
    """Marks a function of `watches` that looks at an object's names, labels and owners alone: of a change that leaves
    these as they were it is asked once."""
    mapper.by_metadata = True  # type: ignore[attr-defined]
    return mapper


class Controller(Protocol):
    """One kind's meaning.

    resource: "*" is every object of every resource (garbage collection): its keys carry the resource in front,
        `Key(namespace, "deployments.apps/name")`.
    watches: other resources, and the keys that a change of theirs concerns. The runner asks about both the old and the new
        object of a change (but see `by_metadata`); a watched "*" is a change of anything.
    reconcile: gets objects with apiVersion and kind.

    These attributes may be missing:

    reads: resources it looks at without being woken by them.
    indexes: by resource, functions of an object under which `View.indexed` finds it.
    signs: by resource, the function of an object whose last change `View.last_sign` tells.
    alone: true asks for one key at a time, since what it gives out comes from a common stock.
    concerns: says of an object of `resource` whether a change of it can matter. Where it is false, `reconcile` has nothing
        to do, whatever else there is in the cluster, and `removed` neither.
    """

    @property
    def name(self) -> str: ...

    @property
    def resource(self) -> str: ...

    @property
    def watches(self) -> Mapping[str, Mapper]: ...

    def reconcile(self, obj: Object, view: View, now: float, /) -> Plan: ...

    @property
    def removed(self) -> Callable[[Key, View, float], Plan] | None:
        """What is left to do when the object is gone; None for nothing, ever."""
        ...
