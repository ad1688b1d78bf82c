"""What the operator of this machine says about registries: one file of ours, and Docker's directories of certificates.

    # registries.yaml in /etc/sampan (or ~/.config/sampan; SAMPAN_REGISTRIES names another file)
    mirrors:      {docker.io: ["https://mirror.example"]}
    insecure:     ["registry.lan:5000"]           # plain HTTP, or a certificate nobody checks
    authorities:  {"registry.lan": /etc/ssl/lan.pem}
    credentials:  {"registry.lan": {username: me, password: secret}}

It is read at each pull, so that a change holds at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sampan.node.images.registry import Settings

_CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d")


def path() -> str:
    """The file that is read; it need not exist."""
    chosen = os.environ.get("SAMPAN_REGISTRIES")
    if chosen:
        return chosen
    system = "/etc/sampan/registries.yaml"
    if os.geteuid() == 0 and os.path.exists(system):
        return system
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = f"{base}/sampan/registries.yaml"
    return own if os.path.exists(own) else system


def read(host: str) -> Settings:
    """The settings for a pull from `host`. Raises ValueError naming what is wrong with the file."""
    data = _file(path())
    authorities = dict(_part(data, "authorities", dict))
    for directory in _CERTIFICATES:
        certificate = f"{directory}/{host}/ca.crt"
        if host not in authorities and os.path.exists(certificate):
            authorities[host] = certificate
    return Settings(
        mirrors=_part(data, "mirrors", dict),
        insecure=tuple(_part(data, "insecure", list)),
        authorities=authorities,
        credentials=_part(data, "credentials", dict),
    )


def _file(name: str) -> Mapping[str, Any]:
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    import yaml

    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{name} must be a map with mirrors, insecure, authorities, credentials")
    return data


def _part(data: Mapping[str, Any], name: str, kind: type) -> Any:
    value = data.get(name) or kind()
    if not isinstance(value, kind):
        raise ValueError(f"{name} in {path()} must be a {'map' if kind is dict else 'list'}")
    return value
