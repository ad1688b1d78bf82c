"""Namespace: what its deletion means. Everything in it goes first, custom resources included; then it does.

Pods are the first to go: what protects them (network policies, say) stays as long as they run. Source: API reference
Namespace v1 (status.conditions), "Automatic deletion": conditions say what still remains; KEP-5080 (ordered deletion).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sampan.api import meta
from sampan.base.objects import Object
from sampan.client.plan import Delete, Key, Plan, Update, View, by_metadata

from .base import Rule, stamp, status_patch

_DISCOVERY = (
    "NamespaceDeletionDiscoveryFailure",
    "ResourcesDiscovered",
    "All resources successfully discovered",
)
_PARSING = (
    "NamespaceDeletionGroupVersionParsingFailure",
    "ParsedGroupVersions",
    "All legacy kube types successfully parsed",
)
_DELETING = (
    "NamespaceDeletionContentFailure",
    "ContentDeleted",
    "All content successfully deleted, may be waiting on finalization",
)
_GONE = ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed")
_UNHELD = (
    "NamespaceFinalizersRemaining",
    "ContentHasNoFinalizers",
    "All content-preserving finalizers finished",
)
_BATCH = 500
_AGAIN = 5.0  # seconds until other servers, or kinds that could not be read, are looked at again


def rules() -> list[Rule]:
    return [Rule("namespace-controller", "namespaces", reconcile, {"*": _terminating})]


@by_metadata
def _terminating(obj: Object, view: View) -> list[Key]:
    """Anything that changes in a namespace under deletion brings it nearer to its end."""
    name = meta.namespace(obj)
    found = view.get("namespaces", name) if name else None
    return [Key("", name)] if found and meta.deleted(found) else []


class _Left(NamedTuple):
    """What a namespace still holds, or `reads`: what must be read before that can be told."""

    contents: Sequence[tuple[str, Object]] = ()  # by GroupResource; the pods alone, while there are any
    blind: bool = False  # some kinds cannot be followed: nobody wakes us when an object of them goes
    unread: Mapping[str, str] = {}  # GroupResource -> why it could not be read
    elsewhere: Object = {}  # what other servers say they have
    reads: Sequence[tuple[str, str, str]] = ()


def reconcile(namespace: Object, view: View, now: float) -> Plan:
    """Deletes what is not yet being deleted, waits for the rest, and finalizes the empty namespace."""
    finalizers = namespace.get("spec", {}).get("finalizers") or []
    if not meta.deleted(namespace) or "kubernetes" not in finalizers:
        return Plan()
    name = meta.name(namespace)
    contents, blind, unread, elsewhere, reads = _left(name, view)
    if reads:
        return Plan(reads=list(reads))
    plan = Plan()
    plan.then(*status_patch("namespaces", namespace, _status(namespace, contents, elsewhere, unread, now)))
    doomed = [
        Delete(r, meta.name(o), name, uid=meta.uid(o), propagation="Background")
        for r, o in contents
        if not meta.deleted(o)
    ]
    if doomed:
        plan.why = f"deletes {len(doomed)} of {len(contents)} objects"
        for i in range(0, len(doomed), _BATCH):
            plan.then(*doomed[i : i + _BATCH])
        return plan
    if contents:
        plan.why = f"waits for {len(contents)} objects"
        return plan.requeue(_AGAIN) if blind else plan
    if elsewhere.get("remaining") or elsewhere.get("failed"):
        plan.why = "waits for what other servers have in it"
        return plan.requeue(_AGAIN)
    if unread:
        plan.why = f"cannot tell whether there are {', '.join(unread)} in it"
        return plan.requeue(_AGAIN)
    left = [f for f in finalizers if f != "kubernetes"]
    plan.why = "is empty"
    plan.then(
        Update("namespaces", namespace | {"spec": namespace["spec"] | {"finalizers": left}}, "finalize")
    )
    return plan


def _left(name: str, view: View) -> _Left:
    everything = view.contents(name)
    if everything:
        return _Left([(r, o) for r, o in everything if r == "pods"] or list(everything))
    unseen = [("effect:contents", name, r) for r in view.unseen()]
    if reads := [read for read in unseen if read not in view.fetched]:
        return _Left(reads=reads)
    others = ("effect:aggregated", name, "")
    if _others(view) and others not in view.fetched:
        return _Left(reads=[others])
    answers = {read[2]: view.fetched[read] or {} for read in unseen}
    return _Left(
        contents=[(resource, o) for resource, answer in answers.items() for o in answer.get("items", ())],
        blind=bool(unseen),
        unread={resource: answer["error"] for resource, answer in answers.items() if "error" in answer},
        elsewhere=view.fetched.get(others) or {},
    )


def _others(view: View) -> bool:
    """Whether any API is another server's, which may have objects of the namespace."""
    return any(service["spec"].get("service") for service in view.list("apiservices.apiregistration.k8s.io"))


def _status(
    namespace: Object,
    remaining: Sequence[tuple[str, Object]],
    elsewhere: Object,
    unread: Mapping[str, str],
    now: float,
) -> Object:
    counted = Counter(r for r, _ in remaining) + Counter(elsewhere.get("remaining"))
    held = Counter(f for _, o in remaining for f in o["metadata"].get("finalizers") or ())
    content, finalizers, discovery, deleting = _GONE, _UNHELD, _DISCOVERY, _DELETING
    state = {"NamespaceContentRemaining": "False", "NamespaceFinalizersRemaining": "False"}
    if failed := elsewhere.get("failed"):
        text = "unable to retrieve the complete list of server APIs: " + ", ".join(failed)
        discovery = (
            _DISCOVERY[0],
            "DiscoveryFailed",
            f"Discovery failed for some groups, {len(failed)} failing: {text}",
        )
        state[_DISCOVERY[0]] = "True"
    if unread:
        text = f"Failed to delete all resource types, {len(unread)} remaining: {', '.join(unread.values())}"
        deleting = (_DELETING[0], "ContentDeletionFailed", text)
        state[_DELETING[0]] = "True"
    if counted:
        some = ", ".join(f"{_dotted(r)} has {n} resource instances" for r, n in sorted(counted.items()))
        content = (_GONE[0], "SomeResourcesRemain", f"Some resources are remaining: {some}")
        state[_GONE[0]] = "True"
    if held:
        some = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(held.items()))
        finalizers = (
            _UNHELD[0],
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {some}",
        )
        state[_UNHELD[0]] = "True"
    conditions = list(namespace.get("status", {}).get("conditions") or ())
    for kind, reason, message in (discovery, _PARSING, deleting, content, finalizers):
        conditions = _set(conditions, kind, state.get(kind, "False"), reason, message, now)
    return {"phase": "Terminating", "conditions": conditions}


def _dotted(resource: str) -> str:
    return resource if "." in resource else f"{resource}."


def _set(
    conditions: list[Object], kind: str, state: str, reason: str, message: str, now: float
) -> list[Object]:
    new = {"type": kind, "status": state, "reason": reason, "message": message}
    for i, old in enumerate(conditions):
        if old["type"] == kind:
            since = old["lastTransitionTime"] if old["status"] == state else stamp(now)
            return [*conditions[:i], new | {"lastTransitionTime": since}, *conditions[i + 1 :]]
    return [*conditions, new | {"lastTransitionTime": stamp(now)}]
