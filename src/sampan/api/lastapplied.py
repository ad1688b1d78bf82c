"""The annotation of client-side `kubectl apply`, where kubectl applies on the server.

Whoever moves from one to the other owns what the annotation says, as long as the object still says so, and may go back
any time, since the annotation is kept up to date. Source: Kubernetes documentation, "Server-Side Apply", "Migrating
between client-side and server-side apply".
"""

from __future__ import annotations

import orjson

from sampan.api import fieldset, managed, meta
from sampan.api.fieldset import Trie
from sampan.api.schema import Node
from sampan.base.objects import Object

MANAGER = "kubectl"  # other managers have nothing to do with the annotation
ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_LIMIT = 256 * 1024  # bytes that all annotations may take together


def fields(live: Object | None, node: Node | None) -> Trie | None:
    """What was applied by a client and is still so: no conflict for kubectl on the server."""
    try:
        applied = orjson.loads(meta.annotations(live or {}).get(ANNOTATION, ""))
    except orjson.JSONDecodeError:
        return None
    if live is None or not isinstance(applied, dict) or applied.get("apiVersion") != live.get("apiVersion"):
        return None
    applied = managed.manageable(applied)
    removed, modified, _ = fieldset.compare(applied, managed.manageable(live), node)
    return fieldset.difference(fieldset.applied(applied, node), fieldset.union(removed, modified))


def renew(obj: Object, applied: Object) -> None:
    """Write what is applied into the annotation, if the object has it. It goes where that is more than annotations may take."""
    annotations = meta.annotations(obj)
    if not annotations.get(ANNOTATION):
        return
    said = {**applied, "metadata": dict(applied["metadata"])}
    if said["metadata"].get("annotations"):
        said["metadata"]["annotations"] = {
            k: v for k, v in meta.annotations(applied).items() if k != ANNOTATION
        }
    text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    others = sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items() if k != ANNOTATION)
    if others + len(ANNOTATION) + len(text.encode()) > _LIMIT:
        del annotations[ANNOTATION]
    else:
        annotations[ANNOTATION] = text
