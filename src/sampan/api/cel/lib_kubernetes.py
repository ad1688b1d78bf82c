"""What Kubernetes adds: url, quantity, ip, cidr, semver and named formats.

Source: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes CEL libraries".
"""

from __future__ import annotations

import base64
import ipaddress
import re
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from sampan.api import names, quantity
from sampan.api.cel.functions import add, define, size, walk
from sampan.api.cel.types import KINDS
from sampan.api.cel.values import NONE, CelError, Optional, parse_timestamp
from sampan.api.quantity import NANO, Quantity

# url


class Url:
    """CEL's type `net.url.URL`."""

    __slots__ = ("parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts = urlsplit(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


KINDS[Url] = "kubernetes.URL"


def _is_url(text: str) -> bool:
    """An absolute URI or an absolute path, as Go's ParseRequestURI takes them."""
    if not text or re.search(r"[\x00-\x20\x7f]", text) or "#" in text and not text.startswith("/"):
        return bool(text) and not re.search(r"[\x00-\x20\x7f]", text) and bool(urlsplit(text).scheme)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return text.startswith("/") or (bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text)) and bool(parts.scheme))


@define("url(string): kubernetes.URL", cost=walk)
def _url(text: str) -> Url:
    if not _is_url(text):
        raise CelError(
            f'URL parse error during conversion from string: parse "{text}": invalid URI for request'
        )
    return Url(text)


add("isURL(string): bool", _is_url, walk)
add("kubernetes.URL.getScheme(): string", lambda u: u.parts.scheme)
add("kubernetes.URL.getHost(): string", lambda u: u.parts.netloc.rpartition("@")[2])
add("kubernetes.URL.getHostname(): string", lambda u: u.parts.hostname or "")
add("kubernetes.URL.getPort(): string", lambda u: str(u.parts.port) if u.parts.port else "")
add("kubernetes.URL.getEscapedPath(): string", lambda u: u.parts.path)
add(
    "kubernetes.URL.getQuery(): map<string, list<string>>",
    lambda u: parse_qs(u.parts.query, keep_blank_values=True),
)
add("kubernetes.URL.getPath(): string", lambda u: unquote(u.parts.path))

# quantity

_QUANTITY = "kubernetes.Quantity"
KINDS[Quantity] = _QUANTITY


@define("quantity(string): kubernetes.Quantity", cost=walk)
def _quantity(text: str) -> Quantity:
    try:
        return quantity.parse(text)
    except ValueError as error:
        raise CelError(str(error)) from None


@define("isQuantity(string): bool", cost=walk)
def _is_quantity(text: str) -> bool:
    try:
        quantity.parse(text)
    except ValueError:
        return False
    return True


def _amount(value: Any) -> int:
    return value.nano if isinstance(value, Quantity) else value * NANO


add(f"{_QUANTITY}.sign(): int", lambda q: (q.nano > 0) - (q.nano < 0))
add(f"{_QUANTITY}.isInteger(): bool", lambda q: q.nano % NANO == 0 and abs(q.nano // NANO) < 2**63)
add(f"{_QUANTITY}.asApproximateFloat(): double", lambda q: q.nano / NANO)
add(f"{_QUANTITY}.isGreaterThan({_QUANTITY}): bool", lambda a, b: a > b)
add(f"{_QUANTITY}.isLessThan({_QUANTITY}): bool", lambda a, b: a < b)
add(f"{_QUANTITY}.compareTo({_QUANTITY}): int", lambda a, b: (a > b) - (a < b))
for _other in (_QUANTITY, "int"):
    add(f"{_QUANTITY}.add({_other}): {_QUANTITY}", lambda a, b: Quantity(a.nano + _amount(b), a.form))
    add(f"{_QUANTITY}.sub({_other}): {_QUANTITY}", lambda a, b: Quantity(a.nano - _amount(b), a.form))
add(f"string({_QUANTITY}): string", str)


@define(f"{_QUANTITY}.asInteger(): int")
def _as_integer(value: Quantity) -> int:
    if value.nano % NANO:
        raise CelError("cannot convert value to integer")
    return value.nano // NANO


# ip and cidr

for _class in (ipaddress.IPv4Address, ipaddress.IPv6Address):
    KINDS[_class] = "net.IP"


@lru_cache(maxsize=1024)
def _parse_ip(text: str) -> Any:
    address = ipaddress.ip_address(text)
    if "%" in text:
        raise ValueError(f'IP Address "{text}" with zone value is not allowed')
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped and "." in text:
        raise ValueError(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return address


@define("ip(string): net.IP", cost=walk)
def _ip(text: str) -> Any:
    try:
        return _parse_ip(text)
    except ValueError as error:
        known = str(error) if "not allowed" in str(error) else f'ParseAddr("{text}"): unable to parse IP'
        raise CelError(f'IP Address "{text}" parse error during conversion from string: {known}') from None


@define("isIP(string): bool", cost=walk)
def _is_ip(text: str) -> bool:
    try:
        _parse_ip(text)
    except ValueError:
        return False
    return True


add("ip.isCanonical(string): bool", lambda text: str(_ip(text)) == text, walk)
add("string(net.IP): string", str)
add("net.IP.family(): int", lambda a: a.version)
add("net.IP.isUnspecified(): bool", lambda a: a.is_unspecified)
add("net.IP.isLoopback(): bool", lambda a: a.is_loopback)
add(
    "net.IP.isLinkLocalMulticast(): bool",
    lambda a: (
        a in ipaddress.ip_network("224.0.0.0/24")
        if a.version == 4
        else a.packed[0] == 0xFF and a.packed[1] & 15 == 2
    ),
)
add("net.IP.isLinkLocalUnicast(): bool", lambda a: a.is_link_local)
add(
    "net.IP.isGlobalUnicast(): bool",
    lambda a: (
        not (
            a.is_unspecified
            or a.is_loopback
            or a.is_multicast
            or a.is_link_local
            or str(a) == "255.255.255.255"
        )
    ),
)


class Cidr:
    """An address and the length of its prefix."""

    __slots__ = ("face",)

    def __init__(self, face: Any) -> None:
        self.face = face

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cidr) and self.face == other.face

    def __hash__(self) -> int:
        return hash(self.face)

    def __str__(self) -> str:
        return str(self.face)


KINDS[Cidr] = "net.CIDR"


@lru_cache(maxsize=1024)
def _parse_cidr(text: str) -> Cidr:
    if not re.fullmatch(r"[0-9a-fA-F.:]+/(0|[1-9][0-9]*)", text):
        raise ValueError(text)
    return Cidr(ipaddress.ip_interface(text))


@define("cidr(string): net.CIDR", cost=walk)
def _cidr(text: str) -> Cidr:
    try:
        return _parse_cidr(text)
    except ValueError:
        raise CelError(
            f"network address parse error during conversion from string: netip.ParsePrefix(\"{text}\"): no '/'"
        ) from None


@define("isCIDR(string): bool", cost=walk)
def _is_cidr(text: str) -> bool:
    try:
        _parse_cidr(text)
    except ValueError:
        return False
    return True


def _contains_ip(cidr: Cidr, address: Any) -> bool:
    if isinstance(address, str):
        address = _ip(address)
    return address.version == cidr.face.version and address in cidr.face.network


def _contains_cidr(cidr: Cidr, other: Any) -> bool:
    inner = _cidr(other) if isinstance(other, str) else other
    return inner.face.version == cidr.face.version and inner.face.network.subnet_of(cidr.face.network)


add("net.CIDR.containsIP(net.IP): bool", _contains_ip)
add("net.CIDR.containsIP(string): bool", _contains_ip, lambda *a: walk(a[1]) + 1)
add("net.CIDR.containsCIDR(net.CIDR): bool", _contains_cidr)
add("net.CIDR.containsCIDR(string): bool", _contains_cidr, lambda *a: walk(a[1]) + 1)
add("net.CIDR.ip(): net.IP", lambda c: c.face.ip)
add("net.CIDR.masked(): net.CIDR", lambda c: Cidr(ipaddress.ip_interface(str(c.face.network))))
add("net.CIDR.prefixLength(): int", lambda c: c.face.network.prefixlen)
add("string(net.CIDR): string", str)

# semver


class Semver:
    """Semantic Versioning 2.0.0; build metadata does not order."""

    __slots__ = ("order", "parts", "text")

    def __init__(self, parts: tuple[int, int, int], before: str, text: str) -> None:
        self.parts, self.text = parts, text
        marks = (
            tuple((0, int(m), "") if m.isdigit() else (1, 0, m) for m in before.split(".")) if before else ()
        )
        self.order = (parts, not before, marks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Semver) and self.order == other.order

    def __hash__(self) -> int:
        return hash(self.order)

    def __str__(self) -> str:
        return self.text


KINDS[Semver] = "kubernetes.Semver"
_NUMBER = "(0|[1-9][0-9]*)"
_MARK = "(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_MARK}(?:\.{_MARK})*))?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)


def _parse_semver(text: str, normalize: bool = False) -> Semver | None:
    if normalize:
        head, mark, rest = re.fullmatch(r"(?s)v?([^-+]*)([-+]?)(.*)", text.strip()).groups()  # type: ignore[union-attr]
        numbers = [n.lstrip("0") or ("0" if n else "") for n in head.split(".")]
        text = ".".join([*numbers, *["0"] * (3 - len(numbers))]) + mark + rest
    found = _SEMVER.fullmatch(text)
    if found is None:
        return None
    return Semver((int(found[1]), int(found[2]), int(found[3])), found[4] or "", text)


@define("semver(string): kubernetes.Semver", "semver(string, bool): kubernetes.Semver", cost=walk)
def _semver(text: str, normalize: bool = False) -> Semver:
    made = _parse_semver(text, normalize)
    if made is None:
        raise CelError(
            "No Major.Minor.Patch elements found" if text.count(".") < 2 else f'Invalid semver "{text}"'
        )
    return made


@define("isSemver(string): bool", "isSemver(string, bool): bool", cost=walk)
def _is_semver(text: str, normalize: bool = False) -> bool:
    return _parse_semver(text, normalize) is not None


_SEMVER_KIND = "kubernetes.Semver"
for _position, _part in enumerate(("major", "minor", "patch")):
    add(f"{_SEMVER_KIND}.{_part}(): int", lambda v, at=_position: v.parts[at])
add(f"{_SEMVER_KIND}.isGreaterThan({_SEMVER_KIND}): bool", lambda a, b: a.order > b.order)
add(f"{_SEMVER_KIND}.isLessThan({_SEMVER_KIND}): bool", lambda a, b: a.order < b.order)
add(
    f"{_SEMVER_KIND}.compareTo({_SEMVER_KIND}): int",
    lambda a, b: (a.order > b.order) - (a.order < b.order),
)
add(f"string({_SEMVER_KIND}): string", str)

# format


class Format:
    """A named form of text; `check` gives what is wrong with one."""

    __slots__ = ("check", "name")

    def __init__(self, name: str, check: Any) -> None:
        self.name, self.check = name, check


KINDS[Format] = "kubernetes.NamedFormat"


def _pattern(pattern: str, message: str) -> Any:
    compiled = re.compile(pattern)
    return lambda text: [] if compiled.fullmatch(text) else [message]


def _prefix(check: Any) -> Any:
    """Of a generated name: a dash at the end will be followed by something."""
    return lambda text: check(f"{text[:-1]}a" if text.endswith("-") else text)


def _uri(text: str) -> list[str]:
    return [] if _is_url(text) else [f'parse "{text}": invalid URI for request']


def _bytes(text: str) -> list[str]:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return ["invalid base64"]
    return []


def _date(text: str) -> list[str]:
    return _datetime(f"{text}T00:00:00Z", "invalid date") if len(text) == 10 else ["invalid date"]


def _datetime(text: str, message: str = "invalid datetime") -> list[str]:
    try:
        parse_timestamp(text)
    except (ValueError, CelError):
        return [message]
    return []


_UUID = r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"
FORMATS: dict[str, Format] = {
    name: Format(name, check)
    for name, check in {
        "dns1123Label": names.dns1123_label,
        "dns1123Subdomain": names.dns1123_subdomain,
        "dns1035Label": names.dns1035_label,
        "qualifiedName": names.qualified_name,
        "dns1123LabelPrefix": _prefix(names.dns1123_label),
        "dns1123SubdomainPrefix": _prefix(names.dns1123_subdomain),
        "dns1035LabelPrefix": _prefix(names.dns1035_label),
        "labelValue": names.label_value,
        "uri": _uri,
        "uuid": _pattern(_UUID, "does not match the UUID format"),
        "byte": _bytes,
        "date": _date,
        "datetime": _datetime,
    }.items()
}
for _name, _format in FORMATS.items():
    add(f"format.{_name}(): kubernetes.NamedFormat", lambda made=_format: made)


@define("format.named(string): optional<kubernetes.NamedFormat>")
def _named(name: str) -> Optional:
    return Optional(FORMATS[name]) if name in FORMATS else NONE


@define(
    "kubernetes.NamedFormat.validate(string): optional<list<string>>",
    cost=lambda *a: (size(a[1]) + 3) // 4 * 3 + 1,
)
def _validate(form: Format, text: str) -> Optional:
    problems = form.check(text)
    return Optional(problems) if problems else NONE
