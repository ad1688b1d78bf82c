"""CREATE and UPDATE: from a decoded object to stored bytes, with optimistic concurrency.

The order of steps is the original's: admission, what the kind prepares, ownership of fields, validation, the append.
Nothing is awaited between the last read of an object and its append (`store.put(expected=…)`); when the base has
moved meanwhile, an unconditional write starts again. Source: API conventions, "Concurrency Control and Consistency".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from sampan.api import managed
from sampan.api.copying import copied
from sampan.api.registry import Resource
from sampan.api.shared_specs import shared_spec
from sampan.api.status import (
    ApiError,
    FieldError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    invalid_value,
    not_found,
)
from sampan.api.warnings import warnings_of
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.client.messages import Response
from sampan.server import admit, conversion, decode, definitions, objects, respond
from sampan.server.admission.attrs import Attrs
from sampan.server.call import Call
from sampan.server.options import WriteOptions, write_options
from sampan.server.pod_templates import Template
from sampan.server.strategies import Prep, Strategy, strategy_of
from sampan.server.strategies.base import has_status, prepare_create, prepare_part
from sampan.store.protocol import Conflict, Draft, Item

# (the old object, which is shared, what gives a copy of it) -> the object that is wanted
Transform = Callable[[Object, Callable[[], Object]], Object]

_RETRIES = 100  # of an unconditional write whose base keeps moving
_NAME_TRIES = 8  # of a generated name that is taken
_NAME_LIMIT = 63 - 5  # a generateName is cut so that the suffix fits a DNS label
_BROUGHT = ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "uid")


@dataclass(slots=True)
class Written:
    """What a write came to: `item` as stored, or `obj` when nothing was (dry run, removed by its last finalizer)."""

    obj: Object
    item: Item | None = None
    created: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What a subresource shows of an object: its kind, how it is made of the object, and how a changed one is put back."""

    shape: Resource
    of: Callable[[Object], Object]
    put: Callable[[Object, Object], None]


async def create(call: Call) -> Response:
    """POST to a collection. Raises 400, 403, 409, 415, 422."""
    options = write_options(call.info.query, "CreateOptions")
    templates = call.server.pod_templates
    state = templates.state(call, options)
    if state is not None and (known := templates.find(call, options)) is not None:
        return respond.item(call, await _create_alike(call, *known), 201)
    obj = decode.body(call, call.row, options.validation)
    written = await create_object(call, obj, options)
    if state is not None and written.item is not None:
        templates.learn(call, options, state, written.obj, written.item)
    return answer(call, written, 201)


async def _create_alike(call: Call, template: Template, name: str) -> Item:
    """Store one more pod of a template; `name` is "" if it is to be generated. Raises 409."""
    row, server = call.row, call.server
    for _ in range(1 if name else _NAME_TRIES):
        chosen = name or template.prefix + server.ids.suffix()
        draft = template.draft(chosen, server.ids.uid(), rfc3339(server.clock.now()))
        key = f"{call.info.namespace}/{chosen}"
        latest = server.store.latest(row.store_key, key)
        if latest is None:
            try:
                item = await server.store.put(row.store_key, key, draft, 0)
            except Conflict as clash:
                latest = clash.latest
            else:
                server.recent.keep(draft, item)
                return item
    raise _exists(row, chosen, latest)


async def update(call: Call) -> Response:
    """PUT of an object, or of its status. Raises 400, 403, 404, 409, 415, 422."""
    options = write_options(call.info.query, "UpdateOptions")
    sent = decode.body(call, call.row, options.validation)
    check_names(call, sent)
    written = await update_object(call, None, options, sent=sent)
    return answer(call, written, 201 if written.created else 200)


def answer(call: Call, written: Written, status: int) -> Response:
    """What was stored, as it was stored; or what would have been."""
    if written.item is not None:
        return respond.item(call, written.item, status)
    return respond.obj(call, written.obj, status)


async def create_object(call: Call, obj: Object, options: WriteOptions) -> Written:
    """Store a decoded, defaulted object under the request's namespace."""
    row, info, server = call.row, call.info, call.server
    meta = obj["metadata"]
    version = meta.get("resourceVersion") or ""
    if version.isdigit() and version.strip("0"):  # what is no revision is forgotten, as in the original
        raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
    _set_namespace(call, meta)
    if info.name and not meta.get("name"):
        meta["name"] = info.name  # a create by PUT or apply names it in the path
    generated = not meta.get("name") and bool(meta.get("generateName"))
    for attempt in range(_NAME_TRIES):
        candidate = copied(obj) if generated and attempt < _NAME_TRIES - 1 else obj
        if generated:
            base = meta["generateName"][:_NAME_LIMIT]
            candidate["metadata"]["name"] = base + server.ids.suffix()
        try:
            return await _create_once(call, candidate, options)
        except ApiError as error:
            if not (generated and error.reason == "AlreadyExists") or attempt == _NAME_TRIES - 1:
                raise
    raise already_exists(row.group, row.plural, meta.get("name", ""))


async def create_applied(call: Call, obj: Object, options: WriteOptions) -> Written:
    """A create by server-side apply: managedFields are there already. Conflicts when someone was faster."""
    _set_namespace(call, obj["metadata"])
    obj["metadata"].pop("resourceVersion", None)
    return await _create_once(call, obj, options, owned=True)


async def _create_once(call: Call, obj: Object, options: WriteOptions, *, owned: bool = False) -> Written:
    row, server = call.row, call.server
    meta, strategy = obj["metadata"], strategy_of(row)
    for field in _BROUGHT:
        meta.pop(field, None)
    name = meta.get("name", "")
    now = server.clock.now()
    if has_status(row) and not strategy.keeps_status:
        obj.pop("status", None)
    if not owned:  # what the writer sent and what was defaulted; not what admission and the kind add
        own(call, None, obj, options)
    attrs = await admit.mutate(call, "CREATE", obj, None, options, name=name)
    meta = obj["metadata"]
    meta["uid"] = server.ids.uid()
    meta["creationTimestamp"] = rfc3339(now)
    prepare_create(strategy, obj, Prep(row, call.user, now, call.info.subresource))
    server.allocate(call, obj, None, options.dry_run)
    _refuse(row, name, server.validate_create(row, obj))
    await admit.judge(call, attrs)
    call.warn_of(warnings_of(row, obj, None))
    if row.store_key == definitions.BUCKET:
        server.definitions.accept(obj, None)
    key = objects.key_of(row, meta.get("namespace", ""), meta["name"])
    latest = server.store.latest(row.store_key, key)
    if latest is not None:
        raise _exists(row, meta["name"], latest)
    if options.dry_run:
        return Written(obj, created=True)
    converts = conversion.by_webhook(row)
    if row.store_key == "pods":
        obj["spec"] = shared_spec(obj["spec"])
    draft = await _draft(call, obj, applied=owned)
    try:
        item = await server.store.put(row.store_key, key, draft, 0)
    except Conflict as clash:
        raise _exists(row, meta["name"], clash.latest) from None
    server.recent.keep(draft, item)
    server.written(row, item)
    return Written(obj, server.conversions.written(row, obj, item) if converts else item, created=True)


def _exists(row: Resource, name: str, latest: Item | None) -> ApiError:
    error = already_exists(row.group, row.plural, name)
    if latest is not None and orjson.loads(latest.value)["metadata"].get("deletionTimestamp"):
        error.message = f"object is being deleted: {error.message}"
    return error


def _set_namespace(call: Call, meta: Object) -> None:
    if not call.row.namespaced:
        meta.pop("namespace", None)
        return
    wanted = call.info.namespace
    if meta.get("namespace") and meta["namespace"] != wanted:
        raise bad_request(
            f"the namespace of the object ({meta['namespace']}) does not match the namespace on the request ({wanted})"
        )
    meta["namespace"] = wanted


def check_names(call: Call, obj: Object) -> None:
    """What an update says it is must be what its path names. Fills in the namespace. Raises 400."""
    meta, info = obj["metadata"], call.info
    name = meta.get("name", "")
    if not name:
        raise bad_request(
            f"the name of the object ({info.name} based on URL) was undeterminable: name must be provided"
        )
    if name != info.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({info.name})")
    _set_namespace(call, meta)


async def update_object(
    call: Call,
    transform: Transform | None,
    options: WriteOptions,
    *,
    sent: Object | None = None,
    manage: Callable[[Object, Object], None] | None = None,
    part: Part | None = None,
) -> Written:
    """Read, transform, store; again when the base has moved and the writer did not insist on it.

    What was there may be shared with others (`Recent`): nothing here changes it. What is wanted may share parts of it, since
    neither changes any more when it is stored.

    `sent` is the body of a PUT, which needs no `transform`; `manage(old, new)` replaces the usual bookkeeping of
    managedFields (server-side apply); `part` is what admission is shown instead of the whole.
    """
    row, info, server = call.row, call.info, call.server
    strategy = strategy_of(row)
    key = objects.key_of(row, info.namespace, info.name)
    for _ in range(_RETRIES):
        latest = server.store.latest(row.store_key, key)
        if latest is None:
            return await _update_missing(call, strategy, sent, options)
        seen = await server.conversions.item(row, latest) if conversion.by_webhook(row) else latest
        old = server.recent.load(seen, row)
        copy = partial(objects.load, seen, row)
        new = transform(old, copy) if transform is not None else _wanted(sent or {})
        insists = _check_version(call, strategy, new, old, conditional=sent is not None)
        try:
            return await _replace(call, strategy, latest, old, new, options, manage, part)
        except Conflict as clash:
            if clash.latest is None:
                raise not_found(row.group, row.plural, info.name) from None
            if insists:
                raise conflict(row.group, row.plural, info.name) from None
    raise conflict(row.group, row.plural, info.name)


def _wanted(sent: Object) -> Object:
    """What a PUT asks for; a copy if it may have to be tried again, since it names no version."""
    if sent["metadata"].get("resourceVersion") not in (None, "", "0"):
        return sent
    copy: Object = orjson.loads(orjson.dumps(sent))
    return copy


async def _update_missing(
    call: Call, strategy: Strategy, sent: Object | None, options: WriteOptions
) -> Written:
    row, name = call.row, call.info.name
    if sent is None:
        raise not_found(row.group, row.plural, name)
    meta = sent["metadata"]
    if meta.get("uid"):
        raise conflict(row.group, row.plural, name, _uid_text(call, meta["uid"], ""))
    if not strategy.create_on_update or call.info.subresource:
        raise not_found(row.group, row.plural, name)
    if meta.get("resourceVersion") and meta["resourceVersion"] != "0":
        raise conflict(row.group, row.plural, name)
    meta.pop("resourceVersion", None)
    call.authorize_also("create")
    return await create_object(call, sent, options)


def _uid_text(call: Call, wanted: str, have: str) -> str:
    key = f"/registry/{call.row.plural}/{objects.key_of(call.row, call.info.namespace, call.info.name)}"
    return (
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {have}"
    )


def _check_version(call: Call, strategy: Strategy, new: Object, old: Object, *, conditional: bool) -> bool:
    """uid and resourceVersion of what is wanted against what is there. Returns whether the writer insists on it."""
    row, name = call.row, call.info.name
    meta, before = new["metadata"], old["metadata"]
    if meta.get("uid") and meta["uid"] != before["uid"]:
        if conditional:
            raise conflict(row.group, row.plural, name, _uid_text(call, meta["uid"], before["uid"]))
        error = invalid_value("metadata.uid", meta["uid"], "field is immutable")
        raise invalid(row.group, row.kind, name, [error, error])  # named twice in the original, too
    version = meta.get("resourceVersion") or ""
    if conditional:
        if version in ("", "0"):
            if strategy.needs_version and version == "":
                error = FieldError(
                    "FieldValueInvalid",
                    "metadata.resourceVersion",
                    "Invalid value: 0x0: must be specified for an update",
                )
                raise invalid(row.group, row.plural, name, [error])
            meta["resourceVersion"] = before["resourceVersion"]
            return False
        if version != before["resourceVersion"]:
            raise conflict(row.group, row.plural, name)
        return True
    if version and version != before["resourceVersion"]:
        raise conflict(row.group, row.plural, name)
    meta["resourceVersion"] = before["resourceVersion"]
    return False


async def _replace(
    call: Call,
    strategy: Strategy,
    base: Item,
    old: Object,
    new: Object,
    options: WriteOptions,
    manage: Callable[[Object, Object], None] | None,
    part: Part | None,
) -> Written:
    """One attempt at replacing `base`. Raises store Conflict when it has moved."""
    row, info, server = call.row, call.info, call.server
    attrs = await _mutate(call, old, new, options, part)
    prepare_part(strategy, new, old, Prep(row, call.user, server.clock.now(), info.subresource))
    if manage is not None:
        manage(old, new)
    else:
        own(call, old, new, options)
    server.allocate(call, new, old, options.dry_run)
    if info.subresource != "binding":
        _refuse(row, info.name, server.validate_update(row, new, old, info.subresource))
    await admit.judge(call, attrs)
    call.warn_of(warnings_of(row, new, old))
    if row.store_key == definitions.BUCKET and info.subresource != "status":
        server.definitions.accept(new, old)
    return await _store_over(call, base, old, new, options, applied=manage is not None)


async def _mutate(
    call: Call, old: Object, new: Object, options: WriteOptions, part: Part | None
) -> Attrs | None:
    """Plugins see the object, or what its part (scale) is shown as; their changes go into `new`. Raises ApiError."""
    if part is not None:
        shown = part.of(new)
        attrs = await admit.mutate(call, "UPDATE", shown, part.of(old), options, shape=part.shape)
        part.put(new, shown)
        return attrs
    if call.info.subresource == "binding":  # admitted as what it is: a Binding
        return None
    return await admit.mutate(call, "UPDATE", new, old, options)


async def _store_over(
    call: Call, base: Item, old: Object, new: Object, options: WriteOptions, *, applied: bool
) -> Written:
    """What is allowed becomes what is stored: nothing, where nothing changed; the end of it, where nothing holds it.

    Nothing is awaited between here and the append but what `_draft` asks a webhook. Raises store Conflict.
    """
    row, server = call.row, call.server
    key = objects.key_of(row, call.info.namespace, call.info.name)
    converts = conversion.by_webhook(row)
    if _same(new, old):
        await objects.shown(server.store, row, key, base)
        return Written(old, server.conversions.written(row, old, base) if converts else base)
    if removable(row, new):
        return await _remove(call, key, base, new, options)
    if options.dry_run:
        if (latest := server.store.latest(row.store_key, key)) is not base:
            raise Conflict(latest)
        await objects.shown(server.store, row, key, base)
        return Written(new)
    draft = await _draft(call, new, applied=applied)
    item = await server.store.put(row.store_key, key, draft, base.revision)
    server.recent.keep(draft, item)
    server.written(row, item)
    return Written(new, server.conversions.written(row, new, item) if converts else item)


async def _draft(call: Call, obj: Object, *, applied: bool) -> Draft:
    """`obj`, ready to be stored. One that is too large with its managedFields goes without, unless it is applied. Raises 413."""
    row, server = call.row, call.server
    try:
        if conversion.by_webhook(row):
            return await server.conversions.draft(row, obj)
        return objects.to_draft(server.registry, row, obj, final=True)
    except ApiError as error:
        if error.code != 413 or applied or not obj["metadata"].pop("managedFields", None):
            raise
    return await _draft(call, obj, applied=applied)


def _same(new: Object, old: Object) -> bool:
    """A write that changes nothing keeps the revision; so does one that changes only times in managedFields."""
    if new == old:
        return True
    meta, before = new["metadata"], old["metadata"]
    if meta.get("managedFields") == before.get("managedFields"):
        return False
    if _without_times(meta.get("managedFields")) != _without_times(before.get("managedFields")):
        return False
    return {**new, "metadata": {**meta, "managedFields": None}} == {
        **old,
        "metadata": {**before, "managedFields": None},
    }


def _without_times(entries: Any) -> Any:
    return [{k: v for k, v in e.items() if k != "time"} for e in entries or ()]


def removable(row: Resource, obj: Object) -> bool:
    """A deletion that nothing holds any more: no finalizers, and the grace period was given up."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if row.store_key == "namespaces":
        return not (obj.get("spec") or {}).get("finalizers")
    return not meta.get("deletionGracePeriodSeconds")


async def _remove(call: Call, key: str, base: Item, new: Object, options: WriteOptions) -> Written:
    """The last finalizer is gone: the object goes with it."""
    row, server = call.row, call.server
    if not options.dry_run:
        await server.store.delete(row.store_key, key, base.revision)
        server.removed(row, new)
    return Written(new)


def own(call: Call, old: Object | None, new: Object, options: WriteOptions) -> None:
    """managedFields of a write that is no apply. A status write owns under its subresource."""
    server, row = call.server, call.row
    if call.info.subresource == "binding":
        return
    managed.update(
        old,
        new,
        decode.node_of(row),
        manager=options.manager or call.manager,
        subresource=call.info.subresource,
        now=rfc3339(server.clock.now()),
        api_version=row.api_version,
    )


# Kinds that began in another group are refused in its name to this day.
_FIRST_GROUP = {
    "ingresses.networking.k8s.io": "extensions",
    "networkpolicies.networking.k8s.io": "extensions",
}


def _refuse(row: Resource, name: str, errors: list[FieldError]) -> None:
    if errors:
        raise invalid(_FIRST_GROUP.get(row.name, row.group), row.kind, name, errors)
