"""DELETE: at once, gracefully, or not before finalizers are done; of one object or of a selection.

Source: API concepts, "Resource deletion"; "Garbage collection"; the reference of DeleteOptions.
"""

from __future__ import annotations

from sampan.api.registry import Resource
from sampan.api.status import ApiError, bad_request, conflict, not_found
from sampan.base.clock import rfc3339, rfc3339_parse
from sampan.base.objects import Object
from sampan.client.messages import Response
from sampan.server import admit, conversion, decode, negotiate, objects, read, respond
from sampan.server.call import Call
from sampan.server.options import DeleteOptions, delete_options, list_options
from sampan.server.selectable import compile_match
from sampan.server.strategies import Strategy, strategy_of
from sampan.server.strategies.pods import grace_of
from sampan.store.protocol import Conflict, Item

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_RETRIES = 100


async def delete(call: Call) -> Response:
    """DELETE of one object. Raises 403, 404, 409, 415, 422."""
    options = options_of(call)
    obj, gone = await delete_object(call, call.info.name, options)
    if gone and not strategy_of(call.row).returns_deleted:
        return respond.obj(call, _done(call.row, obj))
    status = 202 if not gone and options.orphan is False else 200
    return respond.obj(call, obj, status)


async def delete_collection(call: Call) -> Response:
    """DELETE of a collection: answers the list of what was selected."""
    selected = list_options(call.info.query)
    match = compile_match(call.row, selected)
    options = options_of(call)
    items, revision, token, remaining = read.select(call, selected, match)
    deleted = []
    for item in items:
        namespace, name = objects.name_of(item.key)
        try:
            obj, _ = await delete_object(call, name, options, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            continue
        deleted.append(objects.untyped(obj, call.row))
    head = {"kind": call.row.list_kind or f"{call.row.kind}List", "apiVersion": call.row.api_version}
    meta: Object = {"resourceVersion": str(revision)}
    if token:
        meta["continue"] = token
    if remaining:
        meta["remainingItemCount"] = remaining
    return respond.document(
        head | {"metadata": meta, "items": deleted}, form=negotiate.Form(media=call.form.media)
    )


def options_of(call: Call) -> DeleteOptions:
    """DeleteOptions from body or query. Raises 400, 415, 422."""
    body = call.request.body
    if not body:
        return delete_options(call.info.query, None)
    media = negotiate.body_type(call.request.headers)
    sent = decode.parse(call, call.row, media)
    kind = sent.get("kind") or "DeleteOptions"
    if kind != "DeleteOptions":
        raise bad_request(
            f'{kind} in version "{sent.get("apiVersion", "v1")}" cannot be handled as a DeleteOptions: '
            f'no kind "{kind}" is registered'
        )
    return delete_options(call.info.query, sent)


async def delete_object(
    call: Call, name: str, options: DeleteOptions, namespace: str | None = None, *, admitted: bool = False
) -> tuple[Object, bool]:
    """(the object as it is now or was last, whether it is gone). Starts again when the object moved meanwhile.

    `admitted`: admission was asked about something else that comes to this deletion.
    """
    row, server = call.row, call.server
    namespace = call.info.namespace if namespace is None else namespace
    key = objects.key_of(row, namespace, name)
    begun: Object | None = None  # as this deletion has marked it: a node may be faster with the rest of it
    for _ in range(_RETRIES):
        latest = server.store.latest(row.store_key, key)
        if latest is None:
            break
        seen = await server.conversions.item(row, latest) if conversion.by_webhook(row) else latest
        old = objects.load(seen, row)
        if begun is not None and old["metadata"]["uid"] != begun["metadata"]["uid"]:
            break  # another object of that name already
        _check_preconditions(row, name, old, options)
        if not admitted:
            await admit.admit(call, "DELETE", None, old, options, name=name, namespace=namespace)
        try:
            new, base, removable = await _begin(call, key, latest, seen, old, options)
            if not removable:
                await objects.shown(server.store, row, key, base)
                return new, False
            begun = new
            return await _finish(call, key, base, new, options), True
        except Conflict as clash:
            if clash.latest is None:
                break
        except KeyError:
            break
    else:
        raise conflict(row.group, row.plural, name)
    if begun is None:
        raise not_found(row.group, row.plural, name)
    return begun, True


def _check_preconditions(row: Resource, name: str, obj: Object, options: DeleteOptions) -> None:
    meta = obj["metadata"]
    if options.uid and options.uid != meta["uid"]:
        if row.store_key == "namespaces":
            why = (
                f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {meta['uid']}"
            )
            raise conflict(row.group, row.plural, name, why)
        raise conflict(
            row.group,
            row.kind,
            name,
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated",
        )
    version = options.resource_version
    if version and version != meta["resourceVersion"]:
        raise conflict(
            row.group,
            row.kind,
            name,
            f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record "
            f"({meta['resourceVersion']}). The object might have been modified",
        )


async def _begin(
    call: Call, key: str, base: Item, seen: Item, old: Object, options: DeleteOptions
) -> tuple[Object, Item, bool]:
    """(the object, marked as being deleted where its kind is; its item; whether nothing holds it any more).

    `seen` is `base` in the request's version. Raises store Conflict when `base` has moved.
    """
    row, server = call.row, call.server
    strategy = strategy_of(row)
    new = objects.load(seen, row)
    _set_finalizers(strategy, new, options)
    if strategy.graceful:
        pending = _grace(new, old, options, server.clock.now())
        if pending and new == old:
            return old, base, False
    elif new["metadata"].get("finalizers") or row.store_key == "namespaces":
        _mark(new, 0, server.clock.now())
        if row.store_key == "namespaces":
            new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}
    removable = _nothing_holds(row, new)
    if new != old and (not removable or strategy.graceful) and not options.dry_run:
        if converts := conversion.by_webhook(row):
            draft = await server.conversions.draft(row, new)
        else:
            draft = objects.to_draft(server.registry, row, new)
        base = await server.store.put(row.store_key, key, draft, base.revision)
        new = objects.load(server.conversions.written(row, new, base) if converts else base, row)
        server.written(row, base)
    return new, base, removable


async def _finish(call: Call, key: str, base: Item, new: Object, options: DeleteOptions) -> Object:
    """The object as it was last, now removed. Raises store Conflict when `base` has moved, KeyError when it is gone."""
    row, server = call.row, call.server
    if not options.dry_run:
        change = await server.store.delete(row.store_key, key, base.revision)
        new["metadata"]["resourceVersion"] = str(change.revision)
        server.removed(row, new)
    return new


def _nothing_holds(row: Resource, obj: Object) -> bool:
    meta = obj["metadata"]
    if meta.get("finalizers"):
        return False
    if row.store_key == "namespaces" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not meta.get("deletionGracePeriodSeconds")


def _mark(obj: Object, grace: int, now: float) -> None:
    """Deletion has begun; counted as a change of generation, once."""
    meta = obj["metadata"]
    if meta.get("deletionTimestamp"):
        return
    meta["deletionTimestamp"] = rfc3339(now + grace)
    meta["deletionGracePeriodSeconds"] = grace
    if meta.get("generation"):
        meta["generation"] += 1


def _grace(obj: Object, old: Object, options: DeleteOptions, now: float) -> bool:
    """Marks a gracefully deleted object. A second deletion may shorten its grace. True: it is under way already."""
    meta = obj["metadata"]
    wanted = grace_of(old, options.grace)
    if not meta.get("deletionTimestamp"):
        _mark(obj, wanted, now)
        return False
    current = meta.get("deletionGracePeriodSeconds")
    if current is None:
        return False
    if options.grace is None or wanted >= current:
        return bool(current) or bool(meta.get("finalizers"))
    began = rfc3339_parse(meta["deletionTimestamp"]) - current
    meta["deletionTimestamp"] = rfc3339(began + wanted)
    meta["deletionGracePeriodSeconds"] = wanted
    return False


def _set_finalizers(strategy: Strategy, obj: Object, options: DeleteOptions) -> None:
    """The garbage collector's finalizers, as the propagation policy asks; only if they are not there already."""
    meta = obj["metadata"]
    finalizers = list(meta.get("finalizers") or [])
    orphan, foreground = _propagation(strategy, finalizers, options)
    kept = [f for f in finalizers if f not in (ORPHAN, FOREGROUND)]
    for wanted, finalizer in ((orphan, ORPHAN), (foreground, FOREGROUND)):
        if wanted:
            kept.append(finalizer)
    if sorted(kept) == sorted(finalizers):
        return
    if kept:
        meta["finalizers"] = kept
    else:
        meta.pop("finalizers", None)


def _propagation(strategy: Strategy, finalizers: list[str], options: DeleteOptions) -> tuple[bool, bool]:
    """(orphan dependants, wait for dependants)."""
    if options.orphan is not None:
        return options.orphan, False
    if options.policy:
        return options.policy == "Orphan", options.policy == "Foreground"
    if ORPHAN in finalizers:
        return True, False
    if FOREGROUND in finalizers:
        return False, True
    return strategy.orphans, False


def _done(row: Resource, obj: Object) -> Object:
    """The Status of a deletion that is complete."""
    details = {"name": obj["metadata"]["name"]}
    if row.group:
        details["group"] = row.group
    details |= {"kind": row.plural, "uid": obj["metadata"]["uid"]}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
