"""Every refusal is a `Status` with the code, reason and causes that Kubernetes gives.

`ApiError` travels up to the edge and becomes that Status; the factories below are the only places that know which
code belongs to which reason. Source: API conventions, "Response Status Kind"; meta/v1 StatusReason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class FieldError:
    """One cause of a refused object. `reason` is a meta/v1 CauseType such as FieldValueInvalid."""

    reason: str
    field: str
    message: str  # as it appears in causes[].message, e.g. 'Invalid value: "x": must be ...'

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class ApiError(Exception):
    """A refusal on its way to the client. `details` is StatusDetails; `retry_after` in whole seconds."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after
        self.headers: dict[str, str] | None = None  # more, for the answer

    def status(self) -> dict[str, Any]:
        """The meta/v1 Status object that is sent."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body

    @classmethod
    def from_status(cls, status: dict[str, Any]) -> ApiError:
        """The error a client sees when a server answered with this Status."""
        return cls(
            status.get("code", 500),
            status.get("reason", ""),
            status.get("message", ""),
            status.get("details"),
        )


def _named(group: str, kind: str, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    return details


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    """404 for a named object; `details.kind` carries the resource, as the original does."""
    return ApiError(
        404, "NotFound", f'{_qualified(group, plural)} "{name}" not found', _named(group, plural, name)
    )


def no_such_path() -> ApiError:
    """404 for a version or resource that a known group lacks."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed() -> ApiError:
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {}
    )


def already_exists(group: str, plural: str, name: str) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f'{_qualified(group, plural)} "{name}" already exists',
        _named(group, plural, name),
    )


def conflict(group: str, plural: str, name: str, why: str = "") -> ApiError:
    """409; without `why`, the text of a stale resourceVersion."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {why}',
        _named(group, plural, name),
    )


def invalid(group: str, kind: str, name: str, errors: Iterable[FieldError]) -> ApiError:
    """422 with one cause an error. The message joins distinct errors: one bare, several in brackets."""
    errors = list(errors)
    texts = list(dict.fromkeys(str(e) for e in errors))
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = _named(group, kind, name)
    details["causes"] = [{"reason": e.reason, "message": e.message, "field": e.field} for e in errors]
    return ApiError(422, "Invalid", f'{_qualified(group, kind)} "{name}" is invalid: {joined}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """403; the message is `RESOURCE "NAME" is forbidden: WHY`, without the name when there is none."""
    subject = f'{_qualified(group, plural)} "{name}"' if name else _qualified(group, plural)
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", _named(group, plural, name))


def gone(message: str) -> ApiError:
    """410: a revision that history no longer holds."""
    return ApiError(410, "Expired", message)


def not_acceptable(accepted: Iterable[str]) -> ApiError:
    return ApiError(
        406,
        "NotAcceptable",
        f"only the following media types are accepted: {', '.join(accepted)}",
    )


def unsupported_media_type(accepted: Iterable[str]) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}",
    )


def too_many_requests(message: str, retry_after: int) -> ApiError:
    return ApiError(
        429, "TooManyRequests", message, {"retryAfterSeconds": retry_after}, retry_after=retry_after
    )


def internal(message: str) -> ApiError:
    return ApiError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        {"causes": [{"message": message}]},
    )


# The causes. Wording and reasons: meta/v1 CauseType; clients match on them.


def required(field: str, detail: str = "") -> FieldError:
    return FieldError(
        "FieldValueRequired", field, f"Required value: {detail}" if detail else "Required value"
    )


def invalid_value(field: str, value: Any, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", field, f"Invalid value: {show(value)}: {detail}")


def invalid_whole(field: str, detail: str) -> FieldError:
    """Wrong as a whole, so that showing the value would not help."""
    return FieldError("FieldValueInvalid", field, f"Invalid value: {detail}")


def not_supported(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    listed = ", ".join(f'"{s}"' for s in supported)
    return FieldError(
        "FieldValueNotSupported", field, f"Unsupported value: {show(value)}: supported values: {listed}"
    )


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError("FieldValueDuplicate", field, f"Duplicate value: {show(value)}")


def forbidden_field(field: str, detail: str) -> FieldError:
    return FieldError("FieldValueForbidden", field, f"Forbidden: {detail}")


def not_found_field(field: str, value: Any) -> FieldError:
    return FieldError("FieldValueNotFound", field, f"Not found: {show(value)}")


def too_long(field: str, limit: int) -> FieldError:
    return FieldError("FieldValueTooLong", field, f"Too long: may not be more than {limit} bytes")


def too_many(field: str, actual: int, limit: int) -> FieldError:
    return FieldError("FieldValueTooMany", field, f"Too many: {actual}: must have at most {limit} items")


def show(value: Any) -> str:
    """A value as Go prints it in a cause: strings quoted, objects as JSON."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return orjson.dumps(value).decode()
