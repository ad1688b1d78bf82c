"""How a write asks admission: what the request says of itself becomes the attributes that plugins see.

Source: Kubernetes documentation, "Admission Control in Kubernetes": first what may change an object, then what only refuses.
"""

from __future__ import annotations

from typing import Any

from sampan.api.registry import Resource
from sampan.base.objects import Object
from sampan.server.admission.attrs import Attrs
from sampan.server.call import Call


async def mutate(
    call: Call,
    operation: str,
    obj: Object | None,
    old: Object | None,
    options: Any = None,
    *,
    name: str = "",
    namespace: str | None = None,
    shape: Resource | None = None,
) -> Attrs | None:
    """The part of admission that may change `obj`, in place. What it returns is for `judge`. Raises ApiError.

    `name` and `namespace` are those of the request where not given; `shape`: see `Attrs`.
    """
    if call.server.admission is None:
        return None
    info = call.info
    attrs = Attrs(
        operation,
        call.row,
        info.subresource,
        info.namespace if namespace is None else namespace,
        name or info.name,
        obj,
        old,
        call.user,
        bool(getattr(options, "dry_run", False)),
        options,
        shape=shape,
    )
    await call.server.admission.mutate(attrs)
    return attrs


async def judge(call: Call, attrs: Attrs | None) -> None:
    """The part of admission that only allows or refuses, the last step before the append. Raises ApiError."""
    if attrs is None:
        return
    await call.server.admission.judge(attrs)
    call.warn_of(attrs.warnings)


async def admit(
    call: Call,
    operation: str,
    obj: Object | None,
    old: Object | None,
    options: Any = None,
    **more: Any,
) -> None:
    """Both parts, where there is nothing to prepare between them. Raises ApiError."""
    await judge(call, await mutate(call, operation, obj, old, options, **more))
