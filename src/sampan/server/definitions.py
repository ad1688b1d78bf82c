"""CustomResourceDefinitions come alive: names are accepted, rows served, instances removed with their definition.

Source: "Extend the Kubernetes API with CustomResourceDefinitions"; KEP-95.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any

import orjson

from sampan.api import meta
from sampan.api.registry import Resource
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.client.messages import Request, User
from sampan.server import delete, objects
from sampan.server.call import Call, Kit
from sampan.server.options import DeleteOptions
from sampan.server.route import RequestInfo
from sampan.store.protocol import Compacted, Conflict

BUCKET = "customresourcedefinitions.apiextensions.k8s.io"
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


class Definitions:
    """Keeps the registry in step with the stored definitions."""

    def __init__(self, server: Kit) -> None:
        self._server = server
        self._served: dict[str, list[Resource]] = {}  # definition -> its rows
        self._cleaners: dict[str, asyncio.Task[None]] = {}

    def load(self) -> None:
        """Serve what is stored already: at start."""
        for item in self._server.store.list(BUCKET).items:
            self.changed(orjson.loads(item.value), starting=True)

    def accept(self, obj: Object, old: Object | None) -> None:
        """In place, before a valid definition is stored: what status says of its names, and the cleaner's finalizer."""
        now = rfc3339(self._server.clock.now())
        status = obj["status"] = dict(obj.get("status") or {})
        names = obj["spec"]["names"]
        accepted, refusal = self._accepted(obj)
        status["acceptedNames"] = accepted
        conditions = list(status.get("conditions") or [])
        established = meta.condition(obj, "Established")
        if refusal is None:
            conditions = _set(conditions, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now)
            conditions = _set(
                conditions,
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
                now,
            )
            status["acceptedNames"] = dict(names)
        else:
            conditions = _set(conditions, "NamesAccepted", "False", *refusal, now)
            if established is None or established.get("status") != "True":
                conditions = _set(
                    conditions, "Established", "False", "NotAccepted", "not all names are accepted", now
                )
        status["conditions"] = conditions
        if old is None:
            held = obj["metadata"].get("finalizers") or []
            if FINALIZER not in held:
                obj["metadata"]["finalizers"] = [*held, FINALIZER]

    def _accepted(self, obj: Object) -> tuple[Object, tuple[str, str] | None]:
        """(names without a rival, (reason, message) of the last conflict found)."""
        group, own = obj["spec"].get("group", ""), obj["metadata"]["name"]
        plurals, kinds = self._taken(group, own)
        names = obj["spec"]["names"]
        accepted: Object = {"plural": "", "kind": ""}
        refusal = None
        for part, reason, taken in (
            ("plural", "PluralConflict", plurals),
            ("singular", "SingularConflict", plurals),
            ("shortNames", "ShortNamesConflict", plurals),
            ("kind", "KindConflict", kinds),
            ("listKind", "ListKindConflict", kinds),
        ):
            wanted = names.get(part)
            rival = next((w for w in (wanted if isinstance(wanted, list) else [wanted]) if w in taken), None)
            if rival is not None:
                refusal = (reason, f'"{rival}" is already in use')
            elif wanted:
                accepted[part] = wanted
        if names.get("categories"):
            accepted["categories"] = names["categories"]
        return accepted, refusal

    def _taken(self, group: str, own: str) -> tuple[set[str], set[str]]:
        plurals: set[str] = set()
        kinds: set[str] = set()
        for item in self._server.store.list(BUCKET).items:
            other = self._server.lookup.get(BUCKET, item.key) or {}
            if item.key == own or other["spec"]["group"] != group:
                continue
            names = (other.get("status") or {}).get("acceptedNames") or {}
            plurals |= {n for n in (names.get("plural"), names.get("singular")) if n}
            plurals |= set(names.get("shortNames") or ())
            kinds |= {n for n in (names.get("kind"), names.get("listKind")) if n}
        return plurals, kinds

    def changed(self, obj: Object, *, starting: bool = False) -> None:
        """A definition was stored: serve its versions as they are now."""
        name = obj["metadata"]["name"]
        before = self._served.pop(name, [])
        for row in before:
            self._server.registry.remove(row)
        if before and not starting and _meaning(before[0].definition) != _meaning(obj):
            self._end_watches(before)
        established = meta.is_true(obj, "Established")
        if established:
            rows = rows_of(obj)
            for row in rows:
                self._server.registry.add(row)
            self._served[name] = rows
        if meta.deleted(obj) and FINALIZER in meta.finalizers(obj) and name not in self._cleaners:
            task = asyncio.get_running_loop().create_task(self._clean(name))
            self._cleaners[name] = task
            task.add_done_callback(partial(self._cleaned, name))

    def removed(self, obj: Object) -> None:
        """A definition is gone: stop serving it; rivals for its names may be accepted now."""
        gone = self._served.pop(obj["metadata"]["name"], [])
        for row in gone:
            self._server.registry.remove(row)
        self._end_watches(gone)
        for item in self._server.store.list(BUCKET).items:
            rival = orjson.loads(item.value)
            if rival["spec"]["group"] == obj["spec"]["group"] and not meta.is_true(rival, "NamesAccepted"):
                task = asyncio.get_running_loop().create_task(self._rename(item.key))
                self._cleaners[f"rename/{item.key}"] = task
                task.add_done_callback(partial(self._cleaned, f"rename/{item.key}"))

    def _cleaned(self, name: str, task: asyncio.Task[None]) -> None:
        self._cleaners.pop(name, None)

    def _end_watches(self, rows: list[Resource]) -> None:
        """Watchers begin again, and see objects as the definition now says."""
        names = {row.name for row in rows}
        for watcher, row in list(self._server.watchers.items()):
            if row.name in names:
                watcher.close()

    async def _rename(self, name: str) -> None:
        await self._rewrite(name, lambda obj: self.accept(obj, obj))

    async def _rewrite(self, name: str, change: Any) -> Object | None:
        """Change a stored definition, whoever else writes it."""
        server = self._server
        row = server.registry.get(BUCKET)
        assert row is not None
        while (item := server.store.latest(BUCKET, name)) is not None:
            obj = orjson.loads(item.value)
            change(obj)
            try:
                stored = await server.store.put(
                    BUCKET, name, objects.to_draft(server.registry, row, obj), item.revision
                )
            except Conflict:
                continue
            obj = orjson.loads(stored.value)
            self.changed(obj)
            return obj
        return None

    async def _clean(self, name: str) -> None:
        """Delete all instances of a definition, wait for those that finalizers hold, then let it go."""
        server = self._server
        now = rfc3339(server.clock.now())

        def terminating(obj: Object) -> None:
            text = "CustomResource deletion is in progress"
            conditions = (obj.get("status") or {}).get("conditions") or []
            obj["status"]["conditions"] = _set(
                conditions, "Terminating", "True", "InstanceDeletionInProgress", text, now
            )

        obj = await self._rewrite(name, terminating)
        if obj is None:
            return
        await self._delete_instances(obj)
        await self._release(name)

    async def _delete_instances(self, definition: Object) -> None:
        server = self._server
        row = next(iter(rows_of(definition)), None)
        if row is None:
            return
        row = objects.storage_row(server.registry, row)  # whatever becomes of its conversion webhook
        user = User("system:apiserver", ("system:masters",))
        info = RequestInfo("", "delete", True, row.group, row.version, row.plural)
        call = Call(server, Request("DELETE", ""), info, row, user)
        since = server.store.revision
        for item in server.store.list(row.store_key).items:
            namespace, instance = objects.name_of(item.key)
            await delete.delete_object(call, instance, DeleteOptions(), namespace)
        while server.store.count(row.store_key):
            cursor = server.store.watch(row.store_key, since=since)
            try:
                async for batch in cursor:
                    since = batch[-1].revision if batch else since
                    if not server.store.count(row.store_key):
                        return
            except Compacted:
                since = server.store.revision
            finally:
                cursor.close()

    async def _release(self, name: str) -> None:
        server = self._server
        while (item := server.store.latest(BUCKET, name)) is not None:
            obj = orjson.loads(item.value)
            rest = [f for f in meta.finalizers(obj) if f != FINALIZER]
            try:
                if rest:
                    obj["metadata"]["finalizers"] = rest
                    row = server.registry.get(BUCKET)
                    assert row is not None
                    draft = objects.to_draft(server.registry, row, obj)
                    await server.store.put(BUCKET, name, draft, item.revision)
                else:
                    await server.store.delete(BUCKET, name, item.revision)
                    self.removed(obj)
                return
            except (Conflict, KeyError):
                continue


def _meaning(definition: Object | None) -> Any:
    """What of a definition decides how its objects are served."""
    definition = definition or {}
    return definition.get("spec"), (definition.get("status") or {}).get("acceptedNames")


def _deprecation(group: str, kind: str, version: Object) -> str:
    """The warning for a version that its author calls deprecated (apiextensions CustomResourceDefinitionVersion)."""
    if not version.get("deprecated"):
        return ""
    return version.get("deprecationWarning") or f"{group}/{version['name']} {kind} is deprecated"


def rows_of(definition: Object) -> list[Resource]:
    """A row for each served version, the preferred one first."""
    spec = definition["spec"]
    names = (definition.get("status") or {}).get("acceptedNames") or spec["names"]
    rows = []
    for version in sorted(spec.get("versions") or [], key=lambda v: version_order(v["name"])):
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        rows.append(
            Resource(
                group=spec["group"],
                version=version["name"],
                kind=names["kind"],
                plural=names["plural"],
                namespaced=spec.get("scope") == "Namespaced",
                singular=names.get("singular", ""),
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                subresources=tuple(s for s in ("scale", "status") if subresources.get(s) is not None),
                list_kind=names.get("listKind", ""),
                deprecated=_deprecation(spec["group"], names["kind"], version),
                custom=True,
                definition=definition,
            )
        )
    return rows


_VERSION = re.compile(r"^v([0-9]+)(?:(alpha|beta)([0-9]+))?$")


def version_order(name: str) -> tuple[Any, ...]:
    """Sorts versions as clients prefer them: v10, v2, v1, v3beta1, v3alpha1, then others by name."""
    found = _VERSION.match(name)
    if found is None:
        return (1, name)
    major, stage, minor = found.groups()
    return (0, {None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0))


def _set(
    conditions: list[Object], kind: str, status: str, reason: str, message: str, now: str
) -> list[Object]:
    wanted = {"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}
    result = []
    found = False
    for condition in conditions:
        if condition.get("type") == kind:
            found = True
            if condition.get("status") == status:
                wanted["lastTransitionTime"] = condition.get("lastTransitionTime", now)
            result.append(wanted)
        else:
            result.append(condition)
    return result if found else [*result, wanted]
