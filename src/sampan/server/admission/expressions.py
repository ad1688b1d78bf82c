"""The plugins of admission policies: nothing is loaded or asked as long as no policy is bound."""

from __future__ import annotations

from sampan.server.admission.attrs import CONNECT, CREATE, DELETE, UPDATE, Attrs, Context, Plugin, only

_GROUP = "admissionregistration.k8s.io"
_VALIDATING = f"validatingadmissionpolicybindings.{_GROUP}"
_MUTATING = f"mutatingadmissionpolicybindings.{_GROUP}"


def validate(attrs: Attrs, ctx: Context) -> None:
    """`policy.validate`, once a policy is bound."""
    if ctx.lookup.store.count(_VALIDATING):
        from sampan.server.admission import policy

        policy.validate(attrs, ctx)


def mutate(attrs: Attrs, ctx: Context) -> None:
    """`mutation.mutate`, once a policy is bound."""
    if ctx.lookup.store.count(_MUTATING):
        from sampan.server.admission import mutation

        mutation.mutate(attrs, ctx)


def mutate_again(attrs: Attrs, ctx: Context) -> None:
    """Policies that others changed the object after are asked again (reinvocationPolicy IfNeeded)."""
    if attrs.left:
        from sampan.server.admission import mutation

        mutation.mutate_again(attrs, ctx)


PLUGIN = Plugin(
    "ValidatingAdmissionPolicy",
    None,
    only(CREATE, UPDATE, DELETE, CONNECT),
    validate=validate,
    subresources=None,
    reads=(_VALIDATING,),
    sleeps=True,
)
MUTATING = Plugin(
    "MutatingAdmissionPolicy",
    None,
    only(CREATE, UPDATE),
    admit=mutate,
    subresources=None,
    reads=(_MUTATING,),
    sleeps=True,
)
# After the webhooks: policies that ask for it see what these changed.
REINVOKED = Plugin(
    "MutatingAdmissionPolicyReinvocation",
    None,
    only(CREATE, UPDATE),
    admit=mutate_again,
    subresources=None,
    reads=(_MUTATING,),
    sleeps=True,
)
