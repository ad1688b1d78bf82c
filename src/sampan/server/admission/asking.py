"""One request as the expressions of policies and match conditions see it, and what they may cost together.

Source: Kubernetes documentation, "Validating Admission Policy" (variables of expressions, authorizer, resource constraints).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampan.api.cel import CelError, CostExceeded, Program
from sampan.api.cel.lib_authorizer import Authorizer as CelAuthorizer
from sampan.api.cel.lib_authorizer import ResourceCheck
from sampan.api.registry import Resource
from sampan.client.messages import User
from sampan.server import conversion
from sampan.server.admission import request
from sampan.server.admission.attrs import Attrs, Context
from sampan.server.admission.matching import namespace_of
from sampan.server.auth.authorize import Attributes

BUDGET = 10_000_000  # cost of all expressions of a policy for one request


class Asking:
    """One request as expressions see it: values are made when first needed, costs are added up."""

    def __init__(self, attrs: Attrs, row: Resource, ctx: Context, budget: int = BUDGET) -> None:
        self._attrs, self._ctx = attrs, ctx
        self._row = attrs.row if conversion.by_webhook(row) else row  # nothing is awaited while judging
        self.budget = budget
        self._values: list[Any] | None = None

    def forget(self) -> None:
        """The object was changed: what was made of it is made anew."""
        self._values = None

    @property
    def row(self) -> Resource:
        """In whose version the object is shown."""
        return self._row

    def values(self) -> list[Any]:
        """In the order of `api.cel.admission.BASE`."""
        if self._values is None:
            attrs, ctx = self._attrs, self._ctx
            asked = request.request_of("", attrs, self._row)
            asked.setdefault("namespace", "")
            asked.setdefault("subResource", "")
            asked.setdefault("requestSubResource", "")
            asked.setdefault("name", attrs.name)
            authorizer = CelAuthorizer(self._ask, {})
            self._values = [
                request.in_version(attrs.obj, attrs.row, self._row),
                request.in_version(attrs.old, attrs.row, self._row),
                asked,
                namespace_of(attrs, ctx),
                authorizer,
                ResourceCheck(self._ask, self._asked()),
            ]
        return self._values

    def _asked(self) -> dict[str, str]:
        attrs = self._attrs
        return {
            "group": attrs.row.group,
            "resource": attrs.row.plural,
            "subresource": attrs.subresource,
            "namespace": attrs.namespace,
            "name": attrs.name,
        }

    def _ask(self, asked: Mapping[str, Any]) -> tuple[bool, str]:
        user = self._attrs.user
        if account := asked.get("account"):
            namespace, name = account
            groups = (
                "system:serviceaccounts",
                f"system:serviceaccounts:{namespace}",
                "system:authenticated",
            )
            user = User(f"system:serviceaccount:{namespace}:{name}", groups)
        attributes = Attributes(
            user,
            asked["verb"],
            asked.get("group", ""),
            "*",
            asked.get("resource", ""),
            asked.get("subresource", ""),
            asked.get("namespace", ""),
            asked.get("name", ""),
            asked.get("path", ""),
            "path" not in asked,
        )
        return self._ctx.authorizer.authorize(user, attributes)

    def spend(self, program: Program, values: list[Any]) -> Any:
        """Evaluate within what is left. Raises CelError, CostExceeded."""
        value, cost = program.evaluate(values)
        self.budget -= cost
        if self.budget < 0:
            raise CostExceeded(
                "validation failed due to running out of cost budget, no further validation rules will be run"
            )
        return value

    def conditions(self, given: list[tuple[str, Program]], values: list[Any]) -> bool:
        """Whether all hold: one that does not decides, whatever becomes of the others. Raises CelError."""
        failures = []
        for _, program in given:
            try:
                if self.spend(program, values) is False:
                    return False
            except (CelError, CostExceeded) as error:
                failures.append(f"expression '{program.text}' resulted in error: {error}")
        if failures:
            raise CelError(failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]")
        return True
