"""Query parameters and their rules: ListOptions, CreateOptions, UpdateOptions, PatchOptions, DeleteOptions.

Source: API reference, "Common Parameters"; meta/v1 validation. Every refusal has Kubernetes' wording.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sampan.api import selectors
from sampan.api.status import ApiError, FieldError, bad_request, forbidden_field, invalid, not_supported
from sampan.server.route import Query, is_true

_MANAGER_LIMIT = 128
_DIGITS = 19  # of a number of 64 bits
_POLICIES = ("Foreground", "Background", "Orphan", "nil")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_VALIDATIONS = ("Ignore", "Warn", "Strict")


def integer(query: Query, key: str) -> int | None:
    """An integer parameter, None when absent. Raises 400 in Go's words."""
    values = query.get(key)
    if not values or not values[0]:
        return None
    text = values[0]
    if not _INTEGER.fullmatch(text):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if len(text.lstrip("+-0")) > _DIGITS - 1:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)


@dataclass(slots=True)
class ListOptions:
    """What a list, watch or deletecollection selects. `fields` is [(field, "=" or "!=", value)]."""

    labels: Any = None  # selectors.LabelSelector, or None for all
    fields: list[tuple[str, str, str]] | None = None
    limit: int = 0
    token: str = ""  # continue
    resource_version: str = ""
    match: str = ""
    timeout: int | None = None
    bookmarks: bool = False
    initial_events: bool | None = None


def list_options(query: Query, *, watching: bool = False) -> ListOptions:
    """Parsed and checked. Raises 400 for what does not parse, 422 on ListOptions for what contradicts itself."""
    if not query:
        return ListOptions()
    options = ListOptions(
        limit=max(0, integer(query, "limit") or 0),
        timeout=integer(query, "timeoutSeconds"),
        token=query.get("continue", [""])[0],
        resource_version=query.get("resourceVersion", [""])[0],
        match=query.get("resourceVersionMatch", [""])[0],
        bookmarks=is_true(query.get("allowWatchBookmarks")),
    )
    if "sendInitialEvents" in query:
        options.initial_events = is_true(query["sendInitialEvents"])
    try:
        if text := query.get("labelSelector", [""])[0]:
            options.labels = selectors.parse_labels(text)
        if text := query.get("fieldSelector", [""])[0]:
            options.fields = selectors.parse_fields(text)
    except ValueError as error:
        raise bad_request(str(error)) from None
    _check_list(options, watching)
    return options


def _check_list(options: ListOptions, watching: bool) -> None:
    rv, match, errors = options.resource_version, options.match, []
    path = "resourceVersionMatch"
    if options.initial_events is not None and not watching:
        errors.append(forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if watching and match and options.initial_events is None:
        errors.append(
            forbidden_field(
                path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        )
    elif watching and options.initial_events is not None and match != "NotOlderThan":
        if match:
            errors.append(not_supported(path, match, ["NotOlderThan"]))
        else:
            errors.append(
                forbidden_field(
                    path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
                )
            )
    elif not watching and match:
        if not rv:
            errors.append(forbidden_field(path, f"{path} is forbidden unless resourceVersion is provided"))
        if options.token:
            errors.append(forbidden_field(path, f"{path} is forbidden when continue is provided"))
        if match not in ("Exact", "NotOlderThan"):
            errors.append(not_supported(path, match, ["Exact", "NotOlderThan", ""]))
        if match == "Exact" and rv == "0":
            errors.append(forbidden_field(path, f'{path} "exact" is forbidden for resourceVersion "0"'))
    if errors:
        raise invalid("meta.k8s.io", "ListOptions", "", errors)
    if options.token and rv and rv != "0":
        raise bad_request("specifying resource version is not allowed when using continue")


@dataclass(slots=True)
class WriteOptions:
    """What a create, update or patch is asked to heed."""

    dry_run: bool = False
    manager: str = ""
    validation: str = "Warn"
    force: bool = False


def write_options(query: Query, kind: str, *, applying: bool = False) -> WriteOptions:
    """`kind` is CreateOptions, UpdateOptions or PatchOptions, for the refusals."""
    if not query:
        if applying:
            raise invalid("meta.k8s.io", kind, "", [_manager_required()])
        return WriteOptions()
    errors: list[FieldError] = []
    dry_run = query.get("dryRun", [])
    errors += check_dry_run(dry_run)
    manager = query.get("fieldManager", [""])[0]
    errors += _check_manager(manager)
    if applying and not manager:
        errors.append(_manager_required())
    if kind == "PatchOptions" and "force" in query and not applying:
        errors.append(forbidden_field("force", "may not be specified for non-apply patch"))
    validation = query.get("fieldValidation", [""])[0] or "Warn"
    if validation not in _VALIDATIONS:
        errors.append(not_supported("fieldValidation", validation, _VALIDATIONS))
    if errors:
        raise invalid("meta.k8s.io", kind, "", errors)
    return WriteOptions(bool(dry_run), manager, validation, is_true(query.get("force")))


def _manager_required() -> FieldError:
    return FieldError("FieldValueRequired", "fieldManager", "Required value: is required for apply patch")


def check_dry_run(values: list[str]) -> list[FieldError]:
    """The only value is `All`. Source: API reference, "Common Parameters", dryRun."""
    if all(v == "All" for v in values):
        return []
    shown = "[]string{" + ", ".join(f'"{v}"' for v in values) + "}"
    return [
        FieldError("FieldValueNotSupported", "dryRun", f'Unsupported value: {shown}: supported values: "All"')
    ]


def _check_manager(manager: str) -> list[FieldError]:
    if len(manager.encode()) > _MANAGER_LIMIT:
        return [FieldError("FieldValueTooLong", "fieldManager", "Too long: may not be more than 128 bytes")]
    for position, char in enumerate(manager):
        if not char.isprintable():
            shown = manager.translate(
                {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
            )
            detail = f"invalid character U+{ord(char):04X} (at position {position})"
            return [FieldError("FieldValueInvalid", "fieldManager", f'Invalid value: "{shown}": {detail}')]
    return []


@dataclass(slots=True)
class DeleteOptions:
    """What a delete is asked to heed. `policy` is Foreground, Background, Orphan or "" (the kind's default)."""

    dry_run: bool = False
    grace: int | None = None
    uid: str = ""
    resource_version: str = ""
    policy: str = ""
    orphan: bool | None = None


def delete_options(query: Query, body: dict[str, Any] | None) -> DeleteOptions:
    """From the body when there is one, else from the query. Raises 400 and 422 on DeleteOptions."""
    body = body or {}
    preconditions = body.get("preconditions") or {}
    dry_run = body.get("dryRun") or query.get("dryRun", [])
    grace = body.get("gracePeriodSeconds", integer(query, "gracePeriodSeconds"))
    policy = body.get("propagationPolicy") or query.get("propagationPolicy", [""])[0]
    orphan = body.get("orphanDependents")
    if orphan is None and "orphanDependents" in query:
        orphan = is_true(query["orphanDependents"])
    errors = []
    if policy and orphan is not None:
        errors.append(
            FieldError(
                "FieldValueInvalid",
                "propagationPolicy",
                f'Invalid value: "{policy}": orphanDependents and deletionPropagation cannot be both set',
            )
        )
    if policy and policy not in _POLICIES[:3]:
        errors.append(not_supported("propagationPolicy", policy, _POLICIES))
    errors += check_dry_run(dry_run)
    if errors:
        raise invalid("meta.k8s.io", "DeleteOptions", "", errors)
    return DeleteOptions(
        bool(dry_run),
        grace,
        preconditions.get("uid") or "",
        preconditions.get("resourceVersion") or "",
        policy,
        orphan,
    )


def too_large_version(wanted: int, current: int) -> ApiError:
    """504 for a resourceVersion this server has not reached."""
    message = f"Too large resource version: {wanted}, current: {current}"
    return ApiError(
        504,
        "Timeout",
        f"Timeout: {message}",
        {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
        retry_after=1,
    )


def version_number(text: str) -> int:
    """A resourceVersion of a list or watch as a number, 0 for absent. Raises 400."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        message = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise ApiError(400, "BadRequest", f"resourceVersion: {message}")
    if len(text.lstrip("0")) > _DIGITS:
        message = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": value out of range'
        raise ApiError(400, "BadRequest", f"resourceVersion: {message}")
    return int(text)
