"""Server-side apply: a manager says what it wants, and the server works out what that changes. Source: KEP-555.

The applied configuration is merged into the live object; what the manager applied before and now leaves out goes away,
unless somebody else owns it too; a value that another manager owns and that would change is a conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api import fieldset, lastapplied, managed
from sampan.api.copying import copied
from sampan.api.fieldset import Trie, element, is_atomic
from sampan.api.managed import Manager, Managers
from sampan.api.schema import Node, child_of
from sampan.api.status import ApiError
from sampan.base.objects import Object


def apply(
    live: Object | None,
    applied: Object,
    node: Node | None,
    *,
    manager: str,
    force: bool,
    subresource: str,
    now: str,
    api_version: str,
    within: Callable[[Trie | None], Trie | None] = lambda fields: fields,
) -> Object:
    """The new object with its managedFields; equal to `live` when nothing changes. The arguments are not changed.

    `within` gives the part of a set of fields that this way of writing can change: the rest is not looked at, however
    the configuration has it.
    Raises ApiError: 409 with a cause for each field another manager owns, 500 for fields the schema lacks or elements
    that appear twice.
    """
    applied = {**applied, "metadata": {k: v for k, v in applied["metadata"].items() if k != "managedFields"}}
    _check(applied, node, "", _subject(applied))
    wish = managed.manageable(applied)
    wanted = within(fieldset.applied(wish, node))
    managers = _managers(live, node, now, api_version)
    key = Manager(manager, "Apply", api_version, subresource)
    managers.move(key)
    before = managers.sets.get(key)
    base = live or {"apiVersion": applied["apiVersion"], "kind": applied["kind"], "metadata": {}}
    merged = _merge(copied(base), copied(applied), node)
    managers.replace(key, wanted, now)
    owned: Trie | None = None
    for fields in managers.sets.values():
        owned = fieldset.union(owned, fields)
    dead = fieldset.difference(before, owned)
    if dead is not None:
        _remove(merged, dead, owned, node)
    removed, modified, added = map(
        within, fieldset.compare(managed.manageable(live or {}), managed.manageable(merged), node)
    )
    if not force:
        changed = fieldset.union(modified, added)
        if manager == lastapplied.MANAGER:
            changed = fieldset.difference(changed, lastapplied.fields(live, node))
        _refuse_conflicts(managers, key, changed)
    managers.take((removed, modified, added), key)
    managed.write(merged, managers)
    if manager == lastapplied.MANAGER:
        lastapplied.renew(merged, applied)
    return merged


def _managers(live: Object | None, node: Node | None, now: str, api_version: str) -> Managers:
    """Entries of the live object; one without any is owned by `before-first-apply`."""
    managers = Managers.of(live)
    if live is not None and not managers.sets:
        _, _, fields = fieldset.compare({}, managed.manageable(live), node)
        managers.replace(Manager(managed.BEFORE_FIRST_APPLY, "Update", api_version), fields, now)
    return managers


def _refuse_conflicts(managers: Managers, key: Manager, changed: Trie | None) -> None:
    if changed is None:
        return
    causes: list[Object] = []
    texts: dict[str, list[str]] = {}
    for other in sorted(managers.sets):
        clash = None if other == key else fieldset.intersection(managers.sets[other], changed)
        for path in sorted(map(fieldset.show, fieldset.members(clash))):
            whom = _name(other)
            texts.setdefault(whom, []).append(path)
            causes.append(
                {"reason": "FieldManagerConflict", "message": f"conflict with {whom}", "field": path}
            )
    if not causes:
        return
    count = len(causes)
    if count == 1:
        what = f"conflict with {next(iter(texts))}: {causes[0]['field']}"
    else:
        what = "\n".join(
            f"conflicts with {whom}:\n" + "\n".join(f"- {path}" for path in texts[whom])
            for whom in sorted(texts)
        )
    message = f"Apply failed with {count} conflict{'s' if count > 1 else ''}: {what}"
    raise ApiError(409, "Conflict", message, {"causes": causes})


def _name(manager: Manager) -> str:
    text = f'"{manager.name}"'
    if manager.subresource:
        text += f' with subresource "{manager.subresource}"'
    return f"{text} using {manager.api_version}" if manager.operation == "Update" else text


def laid_over(live: Object, wish: Object, node: Node | None) -> Object:
    """The live object with a part of one laid over it, nothing else gone; neither is changed.

    Raises ValueError for what the schema lacks, and for lists and maps that can only be replaced as a whole.
    """
    try:
        _check(wish, node, "", "")
    except ApiError as error:
        raise ValueError(error.message.rpartition("): ")[2]) from None
    if atomic := _atomic(wish, node):
        where = ", ".join(atomic)
        raise ValueError(
            f"invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {where}"
        )
    return _merge(copied(live), copied(wish), node)


def _atomic(wish: Any, node: Node | None, path: str = "") -> list[str]:
    """Where the wish sets something that can only be replaced as a whole."""
    if not isinstance(wish, dict | list) or node is None:
        return []
    found = [path] if path and is_atomic(wish, node) else []
    if isinstance(wish, dict):
        parts = [(value, child_of(node, key), f"{path}.{key}") for key, value in wish.items()]
    else:
        parts = [(item, node.items, f"{path}[{index}]") for index, item in enumerate(wish)]
    for part in parts:
        found += _atomic(*part)
    return found


def _merge(live: Any, wish: Any, node: Node | None) -> Any:
    """The live value with the wish laid over it."""
    if isinstance(live, dict) and isinstance(wish, dict) and not is_atomic(wish, node):
        for key, value in wish.items():
            child = child_of(node, key)
            live[key] = _merge(live[key], value, child) if live.get(key) is not None else value
        return live
    if isinstance(live, list) and isinstance(wish, list) and not is_atomic(wish, node):
        assert node is not None
        return _merge_lists(live, wish, node)
    return wish


def _merge_lists(live: list[Any], wish: list[Any], node: Node) -> list[Any]:
    """Elements by their keys: shared ones in the wish's order, the live ones' own places kept around them."""
    lefts = [(element(item, node), item) for item in live]
    rights = [(element(item, node), item) for item in wish]
    known, wanted = fieldset.by_key(live, node), dict(rights)
    shared = [key for key, _ in rights if key in known]
    result: list[Any] = []

    def put(key: str) -> None:
        result.append(_merge(known[key], wanted[key], node.items) if key in known else wanted[key])
        if shared and shared[0] == key:
            shared.pop(0)

    i = j = 0
    while i < len(lefts) or j < len(rights):
        left = lefts[i][0] if i < len(lefts) else None
        if left is not None and left not in wanted:
            result.append(lefts[i][1])
            i += 1
        elif j < len(rights) and (left is None or left == rights[j][0] or (shared and shared[0] == left)):
            i += left == rights[j][0]
            put(rights[j][0])
            j += 1
        else:
            i += 1
    return result


def _remove(value: Any, dead: Trie, owned: Trie | None, node: Node | None) -> None:
    """Take the members of `dead` out of a map; a map or list that this empties goes too, unless somebody owns it.

    A field stays for the sake of what others own in it. An element of a list or a key of a map goes with all of that.
    """
    for key, below in dead.items():
        if not key.startswith("f:") or key[2:] not in value:
            continue
        field, child = key[2:], child_of(node, key[2:])
        rest = (owned or {}).get(key)
        declared = node is not None and field in node.properties
        if fieldset.is_member(below) and (rest is None or not (declared or fieldset.is_member(rest))):
            del value[field]
            continue
        item = value[field]
        if isinstance(item, list):
            value[field] = item = _remove_elements(item, below, rest, child)
        elif isinstance(item, dict):
            _remove(item, below, rest, child)
        if not item and rest is None:
            del value[field]


def _remove_elements(items: list[Any], dead: Trie, owned: Trie | None, node: Node | None) -> list[Any]:
    if node is None or node.list_type not in ("map", "set"):
        return items
    kept = []
    for item in items:
        key = element(item, node)
        below, rest = dead.get(key), (owned or {}).get(key)
        if below is not None and fieldset.is_member(below) and (rest is None or not fieldset.is_member(rest)):
            continue
        if below is not None and isinstance(item, dict):
            _remove(item, below, rest, node.items)
        kept.append(item)
    return kept


def _subject(applied: Object) -> str:
    meta = applied["metadata"]
    name = f"{meta['namespace']}/{meta.get('name', '')}" if meta.get("namespace") else meta.get("name", "")
    group, _, version = applied["apiVersion"].rpartition("/")
    return f"{name}; {group}/{version}, Kind={applied['kind']}"


def _check(value: Any, node: Node | None, path: str, subject: str) -> None:
    """Refuse what the schema does not declare and elements that appear twice."""
    if node is None or node.preserve_unknown or node.type == "any":
        return
    if isinstance(value, dict):
        for key, item in value.items():
            child = child_of(node, key)
            if child is None and node.type == "object" and node.properties:
                raise _untyped(f"{path}.{key}: field not declared in schema", subject)
            _check(item, child, f"{path}.{key}", subject)
    elif isinstance(value, list):
        keyed = not is_atomic(value, node)
        seen = set()
        for i, item in enumerate(value):
            if keyed:
                key = element(item, node)
                place = fieldset.show((key,))
                if key in seen:
                    raise _untyped(f"{path}: duplicate entries for key {place}", subject)
                seen.add(key)
            else:
                place = f"[{i}]"
            _check(item, node.items, path + place, subject)


def _untyped(text: str, subject: str) -> ApiError:
    return ApiError(500, "", f"failed to create typed patch object ({subject}): {text}")
