"""Roles and bindings give away only what their writer holds; a step of ours, in the original a part of storage."""

from __future__ import annotations

from sampan.server.admission.attrs import CREATE, UPDATE, Attrs, Context, Plugin, only
from sampan.server.auth.escalation import check_escalation
from sampan.server.auth.rbac import BUCKETS


def validate(attrs: Attrs, ctx: Context) -> None:
    check_escalation(ctx.authorizer, attrs.user, attrs.row, attrs.obj or {}, attrs.old)


PLUGIN = Plugin("RoleEscalation", only(*BUCKETS), only(CREATE, UPDATE), validate=validate)
