"""The small checks that every family of rules is made of.

A check appends what it finds to `errors`, in the order the original finds it; nothing is returned and nothing raised.
Paths are texts such as `spec.containers[0].name`. Source: API conventions, "Validation".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from sampan.api import names, quantity
from sampan.api.status import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    invalid_whole,
    not_found_field,
    not_supported,
    required,
    show,
    too_long,
    too_many,
)
from sampan.base.objects import Object

__all__ = [
    "Errors",
    "FieldError",
    "Object",
    "duplicate",
    "forbidden_field",
    "invalid_value",
    "invalid_whole",
    "not_found_field",
    "not_supported",
    "required",
    "show",
    "too_long",
    "too_many",
]

Errors = list[FieldError]
Check = Callable[[str], Sequence[str]]

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"
RANGE_31 = "must be between 1 and 2147483647, inclusive"
_INT32 = 2**31 - 1
NONE: Object = {}

# Names recur (labels, keys, kinds of resource): each is judged once.
key_problems = lru_cache(maxsize=4096)(names.qualified_name)
value_problems = lru_cache(maxsize=4096)(names.label_value)
label_problems = lru_cache(maxsize=2048)(names.dns1123_label)
subdomain_problems = lru_cache(maxsize=2048)(names.dns1123_subdomain)


def texts(errors: Errors, path: str, value: str, check: Check) -> None:
    """One error for each sentence that `check` has about `value`."""
    for problem in check(value):
        errors.append(invalid_value(path, value, problem))


def dns_label(errors: Errors, path: str, value: str) -> None:
    for problem in label_problems(value):
        errors.append(invalid_value(path, value, problem))


def dns_subdomain(errors: Errors, path: str, value: str) -> None:
    for problem in subdomain_problems(value):
        errors.append(invalid_value(path, value, problem))


def qualified(errors: Errors, path: str, value: str) -> None:
    for problem in key_problems(value):
        errors.append(invalid_value(path, value, problem))


def nonnegative(errors: Errors, obj: Mapping[str, Any], field: str, path: str) -> None:
    """`obj[field]`, when it is there, is at least 0. `path` is that of `obj`."""
    value = obj.get(field)
    if value is not None and value < 0:
        errors.append(invalid_value(f"{path}.{field}", value, NOT_NEGATIVE))


def one_of(errors: Errors, path: str, value: Any, allowed: Iterable[str]) -> None:
    """`value` is one of `allowed`, which are named in the order given."""
    if value not in allowed:
        errors.append(not_supported(path, value, allowed))


def required_one_of(errors: Errors, path: str, value: Any, allowed: Iterable[str]) -> None:
    """As `one_of`, of a field that must not be empty either."""
    if value not in allowed:
        errors.append(not_supported(path, value, allowed) if value else required(path))


def immutable(errors: Errors, path: str, new: Any, old: Any) -> None:
    """Absent and empty are the same; anything else that differs is refused."""
    if new != old and (new or old):
        errors.append(invalid_value(path, new, IMMUTABLE))


def labels(errors: Errors, path: str, given: Mapping[str, str] | None) -> None:
    """Keys and values of a label map."""
    if not given:
        return
    for key, value in given.items():
        for problem in key_problems(key):
            errors.append(invalid_value(path, key, problem))
        for problem in value_problems(value):
            errors.append(invalid_value(path, value, problem))


_SET_OPERATORS = ("In", "NotIn")


def label_selector(errors: Errors, path: str, selector: Object | None) -> None:
    """A meta/v1 LabelSelector. Source: LabelSelectorRequirement."""
    if not selector:
        return
    labels(errors, f"{path}.matchLabels", selector.get("matchLabels"))
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        _selector_term(errors, f"{path}.matchExpressions[{index}]", term)


def _selector_term(errors: Errors, path: str, term: Object) -> None:
    operator, values = term.get("operator", ""), term.get("values") or ()
    if operator in _SET_OPERATORS:
        if not values:
            text = "must be specified when `operator` is 'In' or 'NotIn'"
            errors.append(required(f"{path}.values", text))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden_field(f"{path}.values", text))
    else:
        errors.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    qualified(errors, f"{path}.key", term.get("key", ""))
    for index, value in enumerate(values):
        texts(errors, f"{path}.values[{index}]", value, value_problems)


def port_number(errors: Errors, path: str, number: int) -> None:
    if not 1 <= number <= 65535:
        errors.append(invalid_value(path, number, "must be between 1 and 65535, inclusive"))


def port_or_name(errors: Errors, path: str, port: int | str) -> None:
    """The number of a port, or the name of a container's."""
    if isinstance(port, str):
        texts(errors, path, port, names.port_name)
    else:
        port_number(errors, path, port)


def id_range(errors: Errors, path: str, value: int | None) -> None:
    """A uid or gid."""
    if value is not None and not 0 <= value <= _INT32:
        errors.append(invalid_value(path, value, "must be between 0 and 2147483647, inclusive"))


def amount(value: Any) -> quantity.Quantity | None:
    """A quantity, or None when it cannot be read (decoding has refused it before)."""
    try:
        return quantity.parse(value)
    except ValueError:
        return None


def int_or_percent(errors: Errors, path: str, value: int | str) -> None:
    """A count that is not negative, or a percentage."""
    if isinstance(value, str):
        texts(errors, path, value, names.percent)
    elif value < 0:
        errors.append(invalid_value(path, value, NOT_NEGATIVE))


def not_over_hundred(errors: Errors, path: str, value: int | str) -> None:
    share = percentage(value)
    if share is not None and share > 100:
        errors.append(invalid_value(path, value, "must not be greater than 100%"))


def percentage(value: int | str) -> int | None:
    """70 for "70%", None for what is no percentage."""
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdigit():
        return int(value[:-1])
    return None


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address, or None. Leading zeros are refused, as the original has done since 1.33 for new fields."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


VALID_ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A CIDR block, or None. Bits beyond the prefix may be set."""
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def special_address(errors: Errors, path: str, text: str) -> None:
    """An address traffic can be sent to from elsewhere: not unspecified, loopback or link-local."""
    found = address(text)
    if found is None:
        errors.append(invalid_value(path, text, VALID_ADDRESS))
        return
    if found.is_unspecified:
        errors.append(invalid_value(path, text, f"may not be unspecified ({text})"))
    if found.is_loopback:
        errors.append(invalid_value(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    first = found.packed[:2]
    if found.is_link_local:
        detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        errors.append(invalid_value(path, text, detail))
    if (
        found.version == 4
        and found.packed[:3] == b"\xe0\x00\x00"
        or found.version == 6
        and first == b"\xff\x02"
    ):
        detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        errors.append(invalid_value(path, text, detail))


def as_json(value: Any) -> bytes:
    """A value as something that can be compared and hashed."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
