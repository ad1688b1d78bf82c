"""Revisions of a Deployment: which ReplicaSet holds the current template, what it is called, and its number.

`kubectl rollout history|undo` read the annotations written here; undo copies an old template back, which finds its
old ReplicaSet again and gives it the next number.
"""

from __future__ import annotations

from typing import Any

import orjson

from sampan.api import meta
from sampan.base.ids import SUFFIX_ALPHABET
from sampan.base.objects import Object

from . import rolling
from .base import seconds

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    rolling.DESIRED,
    rolling.MAXIMUM,
}


def fnv32a(data: bytes) -> int:
    """The 32-bit FNV-1a hash."""
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def template_hash(template: Any, collisions: int = 0) -> str:
    """A short, stable text for a template, in the alphabet of generated names."""
    data = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    if collisions:
        data += collisions.to_bytes(4, "little")
    return "".join(SUFFIX_ALPHABET[ord(digit) % len(SUFFIX_ALPHABET)] for digit in str(fnv32a(data)))


def without_hash(template: Object) -> Object:
    """A set's template as the Deployment has it."""
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {k: v for k, v in (metadata.get("labels") or {}).items() if k != HASH}
    metadata.pop("creationTimestamp", None)
    return {"metadata": {k: v for k, v in metadata.items() if v}, "spec": template.get("spec") or {}}


def split(d: Object, sets: list[Object]) -> tuple[Object | None, list[Object]]:
    """(the set of the current template or None, the others), each from the oldest."""
    wanted = without_hash(d["spec"]["template"])
    ordered = sorted(sets, key=lambda s: (seconds(s["metadata"].get("creationTimestamp")), meta.name(s)))
    new = next((s for s in ordered if without_hash(s["spec"]["template"]) == wanted), None)
    return new, [s for s in ordered if s is not new]


def number(s: Object) -> int:
    try:
        return int(text(s) or 0)
    except ValueError:
        return 0


def text(obj: Object) -> str:
    return meta.annotations(obj).get(REVISION, "")


def _hash_of(d: Object) -> str:
    return template_hash(without_hash(d["spec"]["template"]), d.get("status", {}).get("collisionCount") or 0)


def set_name(d: Object) -> str:
    return f"{meta.name(d)}-{_hash_of(d)}"


def annotations_for(d: Object, s: Object | None, old: list[Object]) -> dict[str, str]:
    """Annotations of the new set: the Deployment's own, its number (one more than all old ones) and the numbers it had before."""
    result = dict(meta.annotations(s)) if s else {}
    result |= {k: v for k, v in meta.annotations(d).items() if k not in _NOT_COPIED}
    following = max((number(o) for o in old), default=0) + 1
    before = number(s) if s else 0
    if before < following:
        if before:
            result[HISTORY] = ",".join([*filter(None, [result.get(HISTORY)]), str(before)])
        result[REVISION] = str(following)
    return result


def new_set(d: Object, old: list[Object], size: int) -> Object:
    """The ReplicaSet of the current template; the hash label keeps its pods apart from those of the other sets."""
    spec, hashed = d["spec"], {HASH: _hash_of(d)}
    template = spec["template"]
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if k != "creationTimestamp"}
    metadata["labels"] = (metadata.get("labels") or {}) | hashed
    selector = spec["selector"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": set_name(d),
            "namespace": meta.namespace(d),
            "labels": dict(metadata["labels"]),
            "annotations": annotations_for(d, None, old) | rolling.size_annotations(d),
            "ownerReferences": [meta.owner_ref(d, controller=True)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": spec.get("minReadySeconds", 0),
            "selector": selector | {"matchLabels": (selector.get("matchLabels") or {}) | hashed},
            "template": template | {"metadata": metadata},
        },
    }
