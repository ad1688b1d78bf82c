"""Reading and writing what every object has: names, labels, owners, conditions.

Objects are plain JSON dicts; an absent field reads as empty. Source: API conventions, "Metadata" and "Typical
status properties" (conditions).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sampan.base.clock import rfc3339
from sampan.base.objects import ReadOnlyObject

_NONE: dict[str, Any] = {}


def metadata(obj: ReadOnlyObject) -> dict[str, Any]:
    return obj.get("metadata") or _NONE


def name(obj: ReadOnlyObject) -> str:
    return (obj.get("metadata") or _NONE).get("name") or ""


def namespace(obj: ReadOnlyObject) -> str:
    return (obj.get("metadata") or _NONE).get("namespace") or ""


def uid(obj: ReadOnlyObject) -> str:
    return (obj.get("metadata") or _NONE).get("uid") or ""


def resource_version(obj: ReadOnlyObject) -> str:
    return (obj.get("metadata") or _NONE).get("resourceVersion") or ""


def generation(obj: ReadOnlyObject) -> int:
    return (obj.get("metadata") or _NONE).get("generation") or 0


def labels(obj: ReadOnlyObject) -> dict[str, str]:
    """The labels; treat as read-only, it may be a shared empty dict."""
    return (obj.get("metadata") or _NONE).get("labels") or _NONE


def annotations(obj: ReadOnlyObject) -> dict[str, str]:
    """The annotations; treat as read-only, it may be a shared empty dict."""
    return (obj.get("metadata") or _NONE).get("annotations") or _NONE


def finalizers(obj: ReadOnlyObject) -> list[str]:
    return (obj.get("metadata") or _NONE).get("finalizers") or []


def key(obj: ReadOnlyObject) -> str:
    """The store's key: `namespace/name`, or `name` when cluster-scoped."""
    meta = obj.get("metadata") or _NONE
    space = meta.get("namespace")
    own = meta.get("name") or ""
    return f"{space}/{own}" if space else own


def split_key(text: str) -> tuple[str, str]:
    """(namespace, name) of a store's key; the namespace of a cluster-scoped object is empty."""
    space, _, own = text.rpartition("/")
    return space, own


def deleted(obj: ReadOnlyObject) -> bool:
    """Whether deletion has begun; finalizers or a grace period may still hold the object."""
    return bool((obj.get("metadata") or _NONE).get("deletionTimestamp"))


def owners(obj: ReadOnlyObject) -> list[dict[str, Any]]:
    return (obj.get("metadata") or _NONE).get("ownerReferences") or []


def owner(obj: ReadOnlyObject) -> dict[str, Any] | None:
    """The ownerReference of the managing controller, if any. At most one has `controller: true`."""
    for reference in (obj.get("metadata") or _NONE).get("ownerReferences") or ():
        if reference.get("controller"):
            return reference
    return None


def owner_ref(obj: ReadOnlyObject, controller: bool = True) -> dict[str, Any]:
    """An ownerReference to `obj`; a controller's also blocks the owner's foreground deletion."""
    reference = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": name(obj), "uid": uid(obj)}
    if controller:
        reference["controller"] = True
        reference["blockOwnerDeletion"] = True
    return reference


def object_ref(obj: ReadOnlyObject) -> dict[str, Any]:
    """A core/v1 ObjectReference to `obj`, as events carry it."""
    reference = {"kind": obj.get("kind", ""), "apiVersion": obj.get("apiVersion", ""), "name": name(obj)}
    for field in ("namespace", "uid", "resourceVersion"):
        found = metadata(obj).get(field)
        if found:
            reference[field] = found
    return reference


def conditions(obj: ReadOnlyObject) -> list[dict[str, Any]]:
    return (obj.get("status") or _NONE).get("conditions") or []


def condition(obj: ReadOnlyObject, type: str) -> dict[str, Any] | None:
    """The status condition of that type, if the object has it."""
    for found in (obj.get("status") or _NONE).get("conditions") or ():
        if found.get("type") == type:
            return found
    return None


def is_true(obj: ReadOnlyObject, type: str) -> bool:
    """Whether the condition of that type has status "True"."""
    found = condition(obj, type)
    return found is not None and found.get("status") == "True"


def set_condition(
    present: Sequence[dict[str, Any]] | None, new: Mapping[str, Any], now: float
) -> list[dict[str, Any]]:
    """`present` with `new` in the place of its type, or at the end.

    `lastTransitionTime` moves only when `status` changes; a time given in `new` wins when it does.
    """
    result = [dict(c) for c in present or ()]
    for index, old in enumerate(result):
        if old.get("type") == new["type"]:
            merged = {**old, **new}
            if old.get("status") == new.get("status"):
                merged["lastTransitionTime"] = old.get("lastTransitionTime") or rfc3339(now)
            elif not new.get("lastTransitionTime"):
                merged["lastTransitionTime"] = rfc3339(now)
            result[index] = merged
            return result
    result.append({"lastTransitionTime": rfc3339(now), **{k: v for k, v in new.items() if v is not None}})
    return result
