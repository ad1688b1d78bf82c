"""Formats of strings in schemas. Source: OpenAPI v3; kube-openapi's registry of formats."""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit


def fits(kind: str, value: str) -> bool:
    """Whether a text is of a format; formats that nobody knows fit everything."""
    check = _FORMATS.get(kind)
    return check is None or check(value)


def _date_time(value: str) -> bool:
    try:
        datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return False
    return "T" in value or "t" in value


def _date(value: str) -> bool:
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        return False
    return len(value) == 10


def _address(version: int) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            return ipaddress.ip_address(value).version == version
        except ValueError:
            return False

    return check


def _cidr(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return "/" in value


def _byte(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _uri(value: str) -> bool:
    try:
        return bool(urlsplit(value).scheme) or value.startswith("/")
    except ValueError:
        return False


def _like(text: str) -> Callable[[str], bool]:
    found = re.compile(text, re.IGNORECASE).fullmatch
    return lambda value: found(value) is not None


_HEX = "[0-9a-f]"
_LABEL = "[0-9a-z]([-0-9a-z]*[0-9a-z])?"
_DURATION = re.compile(r"([+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h|d|w))+|[+-]?0").fullmatch
_FORMATS: dict[str, Callable[[str], bool]] = {
    "byte": _byte,
    "cidr": _cidr,
    "date": _date,
    "date-time": _date_time,
    "datetime": _date_time,
    "duration": lambda value: _DURATION(value) is not None,
    "email": _like(r"[^@\s]+@[^@\s]+"),
    "hexcolor": _like(f"#?({_HEX}{{3}}|{_HEX}{{6}})"),
    "hostname": _like(rf"{_LABEL}(\.{_LABEL})*\.?"),
    "ipv4": _address(4),
    "ipv6": _address(6),
    "isbn": _like(r"[-0-9 x]{10,17}"),
    "isbn10": _like(r"[-0-9 ]{9,12}[0-9x]"),
    "isbn13": _like(r"[-0-9 ]{13,17}"),
    "creditcard": _like(r"[-0-9 ]{13,19}"),
    "mac": _like(f"{_HEX}{{2}}([:-]{_HEX}{{2}}){{5}}|{_HEX}{{4}}(\\.{_HEX}{{4}}){{2}}"),
    "rgbcolor": _like(r"rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)"),
    "ssn": _like(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "uri": _uri,
    "uuid": _like(f"{_HEX}{{8}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{12}}"),
    "uuid3": _like(f"{_HEX}{{8}}-?{_HEX}{{4}}-?3{_HEX}{{3}}-?{_HEX}{{4}}-?{_HEX}{{12}}"),
    "uuid4": _like(f"{_HEX}{{8}}-?{_HEX}{{4}}-?4{_HEX}{{3}}-?[89ab]{_HEX}{{3}}-?{_HEX}{{12}}"),
    "uuid5": _like(f"{_HEX}{{8}}-?{_HEX}{{4}}-?5{_HEX}{{3}}-?[89ab]{_HEX}{{3}}-?{_HEX}{{12}}"),
}
