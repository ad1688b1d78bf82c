"""CustomResourceDefinitions: names are defaulted from the plural and the kind; the server tells the rest in status."""

from __future__ import annotations

from typing import Any

from sampan.server.strategies.base import Prep, Strategy

Object = dict[str, Any]


def _create(obj: Object, prep: Prep) -> None:
    spec = obj.get("spec") or {}
    stored = [v.get("name", "") for v in spec.get("versions") or [] if v.get("storage")]
    obj["status"] = {
        "conditions": None,
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": stored,
    }


def _update(new: Object, old: Object, prep: Prep) -> None:
    """A version that is stored from now on stays in storedVersions until somebody has migrated."""
    stored = list((old.get("status") or {}).get("storedVersions") or [])
    for version in (new.get("spec") or {}).get("versions") or []:
        if version.get("storage") and version.get("name") not in stored:
            stored.append(version["name"])
            new["status"] = {**(new.get("status") or {}), "storedVersions": stored}


DEFINITION = Strategy(create=_create, update=_update, generation=True, needs_version=True)
