"""Which functions judge which kind: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sampan.api import names
from sampan.api.registry import Resource
from sampan.api.validate import pod
from sampan.api.validate.base import Errors, Object, label_problems, subdomain_problems
from sampan.api.validate.meta import NameCheck

Create = Callable[[Errors, Object], None]
Update = Callable[[Errors, Object, Object], None]


class Rules(NamedTuple):
    """`name` lists what is wrong with a name; `subresources` judges writes through them."""

    create: Create | None = None
    update: Update | None = None
    name: NameCheck = subdomain_problems
    subresources: Mapping[str, Update] = {}


GENERIC = Rules()

_RULES: dict[str, Rules] = {
    "pods": Rules(
        pod.create,
        pod.update,
        subresources={"status": pod.status, "ephemeralcontainers": pod.ephemeral, "resize": pod.resize},
    ),
    "namespaces": Rules(name=label_problems),
    "services": Rules(name=label_problems),
    "roles.rbac.authorization.k8s.io": Rules(name=names.path_segment),
    "rolebindings.rbac.authorization.k8s.io": Rules(name=names.path_segment),
    "clusterroles.rbac.authorization.k8s.io": Rules(name=names.path_segment),
    "clusterrolebindings.rbac.authorization.k8s.io": Rules(name=names.path_segment),
}


def rules_of(row: Resource) -> Rules:
    return _RULES.get(row.name, GENERIC)
