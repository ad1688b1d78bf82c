"""Definitions of custom kinds that take any fields."""

from __future__ import annotations

from typing import Any


def definition(plural: str, kind: str, **version: Any) -> dict[str, Any]:
    """A CustomResourceDefinition of group x.io with the one version v1; `version` adds to that, e.g. `subresources`."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
        **version,
    }
    return {
        "metadata": {"name": f"{plural}.x.io"},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [served],
        },
    }
