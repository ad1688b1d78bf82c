"""The plugin of ValidatingAdmissionPolicies: nothing is loaded or asked as long as no policy is bound."""

from __future__ import annotations

from sampan.server.admission.attrs import CONNECT, CREATE, DELETE, UPDATE, Attrs, Context, Plugin, only

_BINDINGS = "validatingadmissionpolicybindings.admissionregistration.k8s.io"


def validate(attrs: Attrs, ctx: Context) -> None:
    if ctx.lookup.store.count(_BINDINGS):
        from sampan.server.admission import policy

        policy.validate(attrs, ctx)


PLUGIN = Plugin(
    "ValidatingAdmissionPolicy",
    None,
    only(CREATE, UPDATE, DELETE, CONNECT),
    validate=validate,
    subresources=None,
)
