"""A claim may grow only when it is bound and its class allows that (PersistentVolumeClaimResize)."""

from __future__ import annotations

from sampan.api import quantity
from sampan.server.admission.attrs import UPDATE, Attrs, Context, Plugin, only


def validate(attrs: Attrs, ctx: Context) -> None:
    """Raises 403 for growth where the claim is not bound, or its class does not set allowVolumeExpansion."""
    new, old = attrs.obj or {}, attrs.old or {}
    wanted, had = (
        ((c.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage", "0")
        for c in (new, old)
    )
    if quantity.compare(wanted, had) <= 0:
        return
    if (old.get("status") or {}).get("phase") != "Bound":
        raise attrs.forbidden("Only bound persistent volume claims can be expanded")
    name = (new.get("spec") or {}).get("storageClassName") or ""
    found = ctx.lookup.get("storageclasses.storage.k8s.io", name) if name else None
    if not (found or {}).get("allowVolumeExpansion"):
        raise attrs.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support "
            "resize"
        )


PLUGIN = Plugin(
    "PersistentVolumeClaimResize", only("persistentvolumeclaims"), only(UPDATE), validate=validate
)
