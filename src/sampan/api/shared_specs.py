"""One decoded spec for all pods that have the same: most of a pod is what its template says.

So what is kept decoded of pods, by writers and in views, is small and stays in the processor's caches.
"""

from __future__ import annotations

import orjson

from sampan.base.memo import Memo
from sampan.base.objects import Object

_specs: Memo[Object] = Memo(1 << 17)


def shared_spec(spec: Object) -> Object:
    """An equal spec, the same one for all that ask; nobody changes it, nor `spec`, any more."""
    text = orjson.dumps(spec)
    known = _specs.get(None, text)
    if known is None:
        _specs.put(None, text, spec)
        return spec
    return known
