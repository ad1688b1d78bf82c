"""What the user wants of DNS: ConfigMap kube-system/kube-dns, in the form kube-dns made known.

`stubDomains` is a JSON object, domain -> list of resolvers; `upstreamNameservers` a JSON list of resolvers that are asked
instead of the machine's own. A resolver is an address, with a port where that is not 53. Source: Kubernetes
documentation, "Customizing DNS Service".
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sampan.api import names
from sampan.base.objects import ReadOnlyObject
from sampan.client.view import CachedView
from sampan.node.dns.upstream import Address

NAMESPACE, NAME = "kube-system", "kube-dns"
CONFIGMAPS = "configmaps"
_MOST = 3  # upstream resolvers, as kube-dns has it


@dataclass(frozen=True, slots=True)
class Settings:
    """`upstream` empty: the machine's own resolvers."""

    stubs: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    upstream: tuple[Address, ...] = ()


def read(configmap: ReadOnlyObject | None) -> Settings:
    """Raises ValueError with what is wrong in it."""
    data = (configmap or {}).get("data") or {}
    stubs = _json(data, "stubDomains", dict)
    for domain in stubs:
        if problems := names.dns1123_subdomain(domain.lower().rstrip(".")):
            raise ValueError(f"stubDomains: {domain!r} is not a domain: {problems[0]}")
    upstream = _addresses("upstreamNameservers", _json(data, "upstreamNameservers", list))
    if len(upstream) > _MOST:
        raise ValueError(f"upstreamNameservers: at most {_MOST}, not {len(upstream)}")
    return Settings({d: _addresses(f"stubDomains[{d}]", listed) for d, listed in stubs.items()}, upstream)


def _json(data: Mapping[str, str], key: str, kind: type) -> Any:
    text = data.get(key)
    if not text:
        return kind()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{key} is not JSON: {error}") from None
    if not isinstance(value, kind):
        raise ValueError(f"{key} must be a JSON {'object' if kind is dict else 'list'}")
    return value


def _addresses(where: str, listed: Any) -> tuple[Address, ...]:
    if not isinstance(listed, list):
        raise ValueError(f"{where} must be a list of addresses")
    return tuple(_address(where, text) for text in listed)


def _address(where: str, text: Any) -> Address:
    """ "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353"."""
    host, port = str(text), "53"
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        port = port.removeprefix(":") or "53"
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        ipaddress.ip_address(host)
        if not 0 < int(port) < 65536:
            raise ValueError
    except ValueError:
        raise ValueError(f"{where}: {text!r} is not the address of a resolver") from None
    return host, int(port)


class FollowedSettings:
    """Tells `apply` the settings now and whenever they change; wrong ones are told to `problem(configmap, text)` and the
    last good ones stay. `view` follows the ConfigMap."""

    def __init__(
        self,
        view: CachedView,
        apply: Callable[[Settings], None],
        problem: Callable[[ReadOnlyObject, str], None],
    ) -> None:
        self._view, self._apply, self._problem = view, apply, problem

    def start(self) -> None:
        self._view.subscribe(self._notice)
        self._take(self._view.get(CONFIGMAPS, NAME, NAMESPACE))

    def stop(self) -> None:
        self._view.unsubscribe(self._notice)

    def _notice(self, resource: str, old: ReadOnlyObject | None, new: ReadOnlyObject | None) -> None:
        meta = (new or old or {}).get("metadata") or {}
        if resource == CONFIGMAPS and (meta.get("namespace"), meta.get("name")) == (NAMESPACE, NAME):
            self._take(new)

    def _take(self, configmap: ReadOnlyObject | None) -> None:
        try:
            self._apply(read(configmap))
        except ValueError as error:
            self._problem(configmap or {}, str(error))
