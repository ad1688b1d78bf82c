"""A pod outlives a lost node by five minutes, unless it says how long it tolerates that."""

from __future__ import annotations

from sampan.server.admission.attrs import CREATE, UPDATE, Attrs, Context, Plugin, only

_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def admit(attrs: Attrs, ctx: Context) -> None:
    """Adds a toleration with a limit for `not-ready` and for `unreachable`, where the pod has none."""
    spec = (attrs.obj or {}).setdefault("spec", {})
    tolerations = spec.get("tolerations") or []
    added = [
        {
            "key": taint,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": ctx.toleration_seconds,
        }
        for taint in _TAINTS
        if not any(_tolerates(t, taint) for t in tolerations)
    ]
    if added:
        spec["tolerations"] = [*tolerations, *added]


def _tolerates(toleration: dict[str, object], taint: str) -> bool:
    return toleration.get("key") in (taint, "", None) and toleration.get("effect") in ("NoExecute", "", None)


PLUGIN = Plugin("DefaultTolerationSeconds", only("pods"), only(CREATE, UPDATE), admit=admit, reads=())
