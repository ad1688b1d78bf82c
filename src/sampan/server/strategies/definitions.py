"""CustomResourceDefinitions: names are defaulted from the plural and the kind; the server tells the rest in status."""

from __future__ import annotations

from sampan.base.objects import Object
from sampan.server.strategies.base import Prep, Strategy


def _create(obj: Object, prep: Prep) -> None:
    _complete(obj)
    spec = obj["spec"]
    stored = [v.get("name", "") for v in spec.get("versions") or [] if v.get("storage")][:1]
    obj["status"] = {
        "conditions": None,
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": stored,
    }


def _update(new: Object, old: Object, prep: Prep) -> None:
    """A version that is stored from now on stays in storedVersions until somebody has migrated."""
    _complete(new)
    stored = list((old.get("status") or {}).get("storedVersions") or [])
    for version in (new.get("spec") or {}).get("versions") or []:
        if version.get("storage") and version.get("name") not in stored:
            stored.append(version["name"])
            new["status"] = {**(new.get("status") or {}), "storedVersions": stored}


def _complete(obj: Object) -> None:
    """Names and conversion that a definition may leave out."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if kind := names.get("kind", ""):
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})


DEFINITION = Strategy(create=_create, update=_update, generation=True, needs_version=True)
