"""No namespace gets more than its quota: usage is added up from the objects themselves, writes on their way included.

Nothing is awaited between this check and the append, so two writers cannot both take the last share.
Source: Kubernetes documentation, "Resource Quotas".
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api import quantity, quota
from sampan.api.quantity import Quantity
from sampan.base.objects import Object
from sampan.server.admission.attrs import CREATE, UPDATE, Attrs, Context, Plugin, only

_ZERO = quantity.parse("0")


def validate(attrs: Attrs, ctx: Context) -> None:
    """Raises 403 when what this write adds would exceed a quota of its namespace. Changes that add nothing pass."""
    if not attrs.namespace or attrs.obj is None or attrs.row.plural == "namespaces":
        return
    quotas = ctx.lookup.list("resourcequotas", f"{attrs.namespace}/")
    if not quotas:
        return
    resource, now = attrs.row.store_key, ctx.clock.now()
    if attrs.op == CREATE and attrs.subresource:
        return
    asked = quota.usage(resource, attrs.obj, now)
    before = quota.usage(resource, attrs.old, now) if attrs.old is not None else {}
    for limit in quotas:
        _check(attrs, ctx, limit, resource, asked, before)


def _check(
    attrs: Attrs, ctx: Context, limit: Object, resource: str, asked: quota.Amounts, before: quota.Amounts
) -> None:
    obj, old = attrs.obj or {}, attrs.old
    if not quota.in_scope(limit, resource, obj):
        return
    hard = {k: quantity.parse(v) for k, v in ((limit.get("spec") or {}).get("hard") or {}).items()}
    if resource == "pods" and attrs.op == CREATE:
        missing = quota.unspecified(obj, hard)
        if missing:
            text = "; ".join(f"{name} for: {','.join(names)}" for name, names in missing.items())
            raise attrs.forbidden(f"failed quota: {limit['metadata']['name']}: must specify {text}")
    if old is not None and not quota.in_scope(limit, resource, old):
        before = {}
    delta = {name: amount - before.get(name, _ZERO) for name, amount in asked.items() if name in hard}
    delta = {name: amount for name, amount in delta.items() if amount > _ZERO}
    if not delta:
        return
    used = used_of(ctx, limit, delta, attrs.namespace, resource)
    exceeded = sorted(name for name, amount in delta.items() if used[name] + amount > hard[name])
    if exceeded:
        raise attrs.forbidden(
            f"exceeded quota: {limit['metadata']['name']}, requested: {_show(delta, exceeded)}, "
            f"used: {_show(used, exceeded)}, limited: {_show(hard, exceeded)}"
        )


def used_of(
    ctx: Context, limit: Object, names: Iterable[str], namespace: str, resource: str
) -> dict[str, Quantity]:
    """What the objects of a resource in a namespace use of a quota, under these names."""
    names = list(names)
    items = ctx.lookup.current(resource, f"{namespace}/")
    spec = limit.get("spec") or {}
    if names == [f"count/{resource}"] and not spec.get("scopes") and not spec.get("scopeSelector"):
        return {names[0]: quantity.parse(str(len(items)))}
    total = dict.fromkeys(names, _ZERO)
    now = ctx.clock.now()
    for item in items:
        obj = ctx.lookup.decode(resource, item)
        if not quota.in_scope(limit, resource, obj):
            continue
        own = quota.usage(resource, obj, now)
        for name in names:
            if name in own:
                total[name] = total[name] + own[name]
    return total


def _show(amounts: dict[str, Quantity], names: list[str]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in names)


PLUGIN = Plugin(
    "ResourceQuota",
    None,
    only(CREATE, UPDATE),
    validate=validate,
    subresources=only("", "resize"),
    reads=("resourcequotas",),
    sleeps=True,
)
