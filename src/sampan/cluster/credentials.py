"""The first identity: `up` makes the cluster's CA and signs what its own processes need.

Machines that join use bootstrap tokens and signing requests (`join`); local agents need no such detour. Every key is
0600.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from sampan.base import pki
from sampan.base.clock import Clock, RealClock
from sampan.client.https import HttpsTransport
from sampan.cluster.config import ClusterConfig

ADMIN = ("kubernetes-admin", ("system:masters",))
FRONT_PROXY = "front-proxy-client"
KUBELET_CLIENT = ("kube-apiserver-kubelet-client", ("system:masters",))
_SPARE = 30 * 86_400.0  # seconds a certificate must have left at `up`, else another is made


def ensure(config: ClusterConfig, directory: Path) -> pki.CA:
    """Make what is missing of: CA, server, admin, kubelet-client pairs and the token key. Returns the CA.

    The front proxy has an authority of its own: who holds a certificate of it may say who a caller is.
    """
    ca = pki.CA.load_or_create(directory / "ca.crt", directory / "ca.key", "sampan-ca")
    _pair(ca, directory, "apiserver", "kube-apiserver", (), *_server_names(config))
    _pair(ca, directory, "admin", *ADMIN, for_all=True)  # kubeconfigs carry it, to clients of all kinds
    _pair(ca, directory, "apiserver-kubelet-client", *KUBELET_CLIENT)
    front = pki.CA.load_or_create(
        directory / "front-proxy-ca.crt", directory / "front-proxy-ca.key", "front-proxy-ca"
    )
    _pair(front, directory, FRONT_PROXY, FRONT_PROXY, ())
    pki.load_or_create_signing_key(directory / "sa.key")
    return ca


def ensure_node(directory: Path, name: str, addresses: Sequence[str]) -> None:
    """A node's client pair (system:node:NAME) and its serving pair, in `directory`."""
    ca = pki.CA.load_or_create(directory / "ca.crt", directory / "ca.key", "sampan-ca")
    _pair(ca, directory / "nodes", name, f"system:node:{name}", ("system:nodes",))
    ips = list(addresses)
    _pair(ca, directory / "nodes", f"{name}-serving", f"system:node:{name}", ("system:nodes",), [name], ips)


def node_transport(config: ClusterConfig, directory: Path, name: str, clock: Clock) -> HttpsTransport:
    """A node's way to the API, as system:node:NAME."""
    return HttpsTransport(
        config.server_url,
        ca=str(directory / "ca.crt"),
        cert=str(directory / "nodes" / f"{name}.crt"),
        key=str(directory / "nodes" / f"{name}.key"),
        clock=clock,
    )


def _pair(
    ca: pki.CA,
    directory: Path,
    stem: str,
    common_name: str,
    organizations: tuple[str, ...],
    dns: list[str] | None = None,
    ips: list[str] | None = None,
    for_all: bool = False,
) -> None:
    certificate, key = directory / f"{stem}.crt", directory / f"{stem}.key"
    if certificate.exists() and key.exists():
        pem = certificate.read_bytes()
        fresh = pki.expires(pem) > RealClock().now() + _SPARE
        if fresh and {*(dns or ()), *(ips or ())} <= set().union(*pki.certificate_names(pem)):
            return
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = bool(dns or ips)
    pair = ca.issue(common_name, organizations, dns=dns or [], ips=ips or [], server=server, for_all=for_all)
    pki.write_private(key, pair.key)
    pki.write_private(certificate, pair.cert)


def _server_names(config: ClusterConfig) -> tuple[list[str], list[str]]:
    service = "kubernetes.default.svc"
    dns = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        service,
        f"{service}.cluster.local",
        socket.gethostname(),
    ]
    ips = {"127.0.0.1", "::1", config.api_service_ip, config.server_address, *config.fabric_addresses(0)}
    if config.machine:
        ips.add(config.machine)
    return dns, sorted(ips, key=lambda ip: (ipaddress.ip_address(ip).version, ip))
