"""Which resources a server serves: one row each, built in (`api.resources`) or made at run time from a definition.

A resource is named across the project as Kubernetes' GroupResource text: `pods`, `deployments.apps`,
`leases.coordination.k8s.io`. That name is also its bucket in the store, whatever version it is spoken in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Resource:
    """One served (group, version, plural). `schema` is set for custom resources only."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()  # e.g. ("status", "scale")
    verbs: tuple[str, ...] = (
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    )
    list_kind: str = ""
    bucket: str = ""  # GroupResource under which objects are stored, when not its own (events, HPA v1)
    deprecated: str = ""  # the warning that every request for it gets
    custom: bool = False
    definition: dict[str, Any] | None = field(default=None, compare=False)  # the CRD of a custom resource
    # Asked for many times a request, so made once.
    name: str = field(init=False, compare=False)  # GroupResource text: `deployments.apps`, `pods`
    store_key: str = field(init=False, compare=False)
    api_version: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        name = f"{self.plural}.{self.group}" if self.group else self.plural
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "store_key", self.bucket or name)
        object.__setattr__(
            self, "api_version", f"{self.group}/{self.version}" if self.group else self.version
        )

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path. A namespaced resource without a namespace is the collection over all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = f"/{name}" if name else ""
        return f"{root}{middle}/{self.plural}{tail}" + (f"/{subresource}" if subresource else "")


class Registry:
    """The served rows, in order of preference within each group. Looking up is one dict access."""

    def __init__(self, rows: Iterable[Resource] = ()) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str, str], Resource] = {}
        self._preferred: dict[str, Resource] = {}
        self._groups: dict[str, dict[str, None]] = {}
        self.generation = 0  # changes whenever a row does: caches of documents key on it
        for row in rows:
            self.add(row)

    def add(self, row: Resource) -> None:
        """Serve a row; the first version added for a GroupResource is the preferred one."""
        self._by_path[row.group, row.version, row.plural] = row
        self._by_kind[row.group, row.version, row.kind] = row
        preferred = self._preferred.get(row.name)
        if preferred is None or preferred.version == row.version:
            self._preferred[row.name] = row
        self._groups.setdefault(row.group, {})[row.version] = None
        self.generation += 1

    def remove(self, row: Resource) -> None:
        """Stop serving a row; its group or version goes too when it was the last."""
        self._by_path.pop((row.group, row.version, row.plural), None)
        self._by_kind.pop((row.group, row.version, row.kind), None)
        rest = [r for r in self if r.name == row.name]
        if rest:
            self._preferred[row.name] = rest[0]
        else:
            self._preferred.pop(row.name, None)
        if not any(r.group == row.group and r.version == row.version for r in self):
            versions = self._groups.get(row.group, {})
            versions.pop(row.version, None)
            if not versions:
                self._groups.pop(row.group, None)
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        return self._by_kind.get((group, version, kind))

    def get(self, name: str) -> Resource | None:
        """The preferred version of a GroupResource such as `deployments.apps`."""
        return self._preferred.get(name)

    def groups(self) -> list[str]:
        return list(self._groups)

    def versions(self, group: str) -> list[str]:
        return list(self._groups.get(group, ()))

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._by_path.values()))

    def copy(self) -> Registry:
        return Registry(self)
