"""Nothing is made in a namespace that is not there or is going away, and the first namespaces stay."""

from __future__ import annotations

from sampan.api.status import not_found
from sampan.server.admission.attrs import CREATE, DELETE, UPDATE, Attrs, Context, Plugin, only

_IMMORTAL = ("default", "kube-system", "kube-public")
# Questions about rights are answered for namespaces that do not exist, too.
_REVIEWS = ("localsubjectaccessreviews.authorization.k8s.io", "subjectaccessreviews.authorization.k8s.io")


def admit(attrs: Attrs, ctx: Context) -> None:
    """Raises 404 without the namespace, 403 for something new in one that is ending, and for the end of one that must stay.

    Looks at what is written last, be it durable or not: a namespace that begins to end must get nothing more.
    """
    row = attrs.row
    if row.plural == "namespaces" and not row.group:
        if attrs.op == DELETE and attrs.name in _IMMORTAL:
            raise attrs.forbidden("this namespace may not be deleted")
        return
    if not row.namespaced or not attrs.namespace or attrs.op == DELETE or row.name in _REVIEWS:
        return
    namespace = ctx.lookup.latest("namespaces", attrs.namespace)
    if namespace is None:
        raise not_found("", "namespaces", attrs.namespace)
    if attrs.op != CREATE or (namespace.get("status") or {}).get("phase") != "Terminating":
        return
    why = f"unable to create new content in namespace {attrs.namespace} because it is being terminated"
    error = attrs.forbidden(why)
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {attrs.namespace} is being terminated",
        "field": "metadata.namespace",
    }
    error.details = {**(error.details or {}), "causes": [cause]}
    raise error


PLUGIN = Plugin(
    "NamespaceLifecycle",
    None,
    only(CREATE, UPDATE, DELETE),
    admit=admit,
    subresources=None,
    reads=("namespaces",),
)
