"""`sampan join`: this machine becomes a node of a cluster whose control plane is on another one.

As kubeadm does it: what the first machine says of itself is believed when the token has signed it and its authority has the
hash that was given; then the token asks for a certificate, and from there on the machine is its node. Source:
"kubeadm join", "Authenticating with Bootstrap Tokens", "TLS bootstrapping". The other side is `cluster_info`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import yaml

from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base import jws, pki
from sampan.base.clock import Clock, RealClock, rfc3339
from sampan.base.errors import SampanError
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.https import HttpsTransport
from sampan.cluster import cluster_info, credentials, supervision, underlay
from sampan.cluster import config as configs
from sampan.cluster.config import ClusterConfig, NodeConfig, need_node_name
from sampan.cluster.paths import Paths, is_root, make_private
from sampan.cluster.up import Wishes, bring_up, exclusive
from sampan.controllers.bootstrap_signer import SIGNATURE
from sampan.node import certificates
from sampan.node.network.tunnel_table import ADDRESS

_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_AGAIN = "Get a whole command on the first machine: sampan token create"
_TOO_EARLY, _TOO_LATE = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_PATIENCE = 15.0  # seconds for each answer of the first machine
_PROBE = 5.0  # seconds for a way through the tunnel

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Invitation:
    """What `sampan token create` printed: where, and how to know each other."""

    server: str
    token_id: str
    token_secret: str
    ca_hash: str

    @classmethod
    def read(cls, server: str, token: str, ca_hash: str) -> Invitation:
        """Raises SampanError for what cannot be one. `server` may lack https:// and the port, as with kubeadm."""
        url = urlsplit(server if "//" in server else f"https://{server}")
        try:
            host, port = url.hostname or "", url.port or 6443
        except ValueError:
            host, port = "", 0
        if url.scheme != "https" or not host or url.path not in ("", "/"):
            raise SampanError(f"{server!r} is not the address of a cluster: https://HOST:PORT", _AGAIN)
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise SampanError("a token is 6 letters or digits, a dot, and 16 more", _AGAIN)
        if _HASH.fullmatch(ca_hash) is None:
            raise SampanError("--ca-hash is sha256: and 64 hexadecimal digits", _AGAIN)
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", match[1], match[2], ca_hash)


def join(
    paths: Paths, invitation: Invitation, node: str, advertise: str, progress: Progress
) -> ClusterConfig:
    """Returns the configuration of a machine whose node is Ready. Raises SampanError: of a machine that the cluster did
    not take nothing is left, one whose node does not become Ready has joined all the same (`sampan up`, `down`)."""
    _check_machine(paths, node)
    supervision.running(paths)
    new = not paths.data.exists()
    make_private(paths.data)
    try:
        with exclusive(paths):
            config = asyncio.run(_introduce(paths, invitation, node, advertise, progress))
            configs.save(config, paths.config)
    except BaseException:
        if new:
            shutil.rmtree(paths.data)
        raise
    bring_up(paths, Wishes(), progress)
    _probe(config, progress)
    return config


def _check_machine(paths: Paths, node: str) -> None:
    if not is_root():
        raise SampanError(
            "only root can join a cluster: tunnels between machines are in the machine's own network",
            "Repeat with sudo. An ordinary user's cluster stays on one machine: sampan up",
        )
    need_node_name(node, "Choose one: --node-name")
    if paths.config.exists():
        config = configs.load(paths.config)
        what = f"has joined {config.server}" if config.server else "has a cluster of its own"
        up, down = paths.command("up"), paths.command("down")
        if config.server and not underlay.present(config.machine):
            raise SampanError(
                f"this machine {what} with the address {config.machine}, which it no longer has",
                f"Leave first: {down}. Then join again.",
            )
        raise SampanError(
            f"this machine {what} under the name {paths.name}",
            f"Bring it back: {up}. Remove it: {down}. Keep it: join with another --name.",
        )


async def _introduce(
    paths: Paths, invitation: Invitation, node: str, advertise: str, progress: Progress
) -> ClusterConfig:
    """Everything up to the node's certificates and place, on disk except for the configuration."""
    clock = RealClock()
    host = urlsplit(invitation.server).hostname or ""
    try:
        async with clock.timeout(4 * _PATIENCE):
            ca = await discover(invitation, clock)
            progress(f"{invitation.server} is the cluster that was meant")
            config = await _enter(paths, invitation, ca, node, clock)
            config.machine = underlay.own_address(advertise) if advertise else underlay.source_towards(host)
            _check_network(config)
            await _take_place(paths, config, node, clock)
    except ssl.SSLCertVerificationError as error:
        raise _untrusted(error, invitation.server, clock.now()) from None
    except (OSError, EOFError, TimeoutError) as error:
        raise _unreachable(invitation.server, error) from None
    except ApiError as error:
        raise SampanError(f"{invitation.server} refused: {error.message}", _AGAIN) from None
    progress(
        f"node {node} has a certificate and the pods' addresses {', '.join(config.pod_ranges(config.nodes[0].index))}"
    )
    return config


# Whom do we speak to


async def discover(invitation: Invitation, clock: Clock) -> str:
    """The authority (PEM) of the cluster that is meant. Raises SampanError, OSError."""
    info = await _cluster_info(
        HttpsTransport(invitation.server, clock=clock, verify=False, connect=_PATIENCE, answer=_PATIENCE)
    )
    ca = believe(info.get("data") or {}, invitation)
    verified = HttpsTransport(invitation.server, clock=clock, ca=ca, connect=_PATIENCE, answer=_PATIENCE)
    again = await _cluster_info(verified)
    if believe(again.get("data") or {}, invitation) != ca:
        raise SampanError("the cluster changed its authority just now", "Repeat.")
    return ca


async def _cluster_info(transport: HttpsTransport) -> Object:
    try:
        return await Client(transport, BUILTIN, agent="sampan").get(
            "configmaps", cluster_info.INFO, cluster_info.PUBLIC
        )
    except ApiError as error:
        raise SampanError(
            f"the server is no cluster that can be joined: {error.message}",
            "On the first machine: sampan up --advertise ADDRESS",
        ) from None
    finally:
        await transport.close()


def believe(info: Mapping[str, str], invitation: Invitation) -> str:
    """The authority (PEM) that cluster-info tells, if token and hash vouch for it. Raises SampanError."""
    text, signature = info.get("kubeconfig", ""), info.get(SIGNATURE + invitation.token_id)
    try:
        cluster = yaml.safe_load(text)["clusters"][0]["cluster"]
        ca = base64.b64decode(cluster["certificate-authority-data"])
        found = pki.public_key_hash(ca)
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError):
        raise SampanError("what the server says of itself cannot be read", "Is it a Kubernetes?") from None
    if found != invitation.ca_hash:
        raise SampanError(
            f"the server is not the one that was meant: its authority has the hash {found}",
            f"{_AGAIN}. If it prints this hash again, somebody is between the machines.",
        )
    if signature is None:
        raise SampanError(
            f"the cluster does not know token {invitation.token_id}: it has expired, or was deleted", _AGAIN
        )
    if not jws.valid(signature, text, invitation.token_id, invitation.token_secret):
        raise SampanError(f"token {invitation.token_id} has another secret", _AGAIN)
    return ca.decode()


def _untrusted(error: ssl.SSLCertVerificationError, server: str, now: float) -> SampanError:
    if error.verify_code in (_TOO_EARLY, _TOO_LATE):
        when = "not valid yet" if error.verify_code == _TOO_EARLY else "no longer valid"
        return SampanError(
            f"the certificate of {server} is {when}: here it is {rfc3339(now)}",
            "Set the clocks of both machines right: timedatectl",
        )
    return SampanError(
        f"the certificate of {server} is not good for it: {error.verify_message}",
        "Use the address that `sampan token create` prints.",
    )


def _unreachable(server: str, error: BaseException) -> SampanError:
    port = urlsplit(server).port
    return SampanError(
        f"{server} does not answer: {error or type(error).__name__}",
        f"Is the cluster up, with --advertise? Does a firewall on the way let TCP port {port} through?",
    )


# Becoming a node


async def _enter(paths: Paths, invitation: Invitation, ca: str, node: str, clock: Clock) -> ClusterConfig:
    """With the token: what the cluster is like, and the certificate of its new node."""
    token = f"{invitation.token_id}.{invitation.token_secret}"
    transport = HttpsTransport(
        invitation.server, clock=clock, ca=ca, token=token, connect=_PATIENCE, answer=_PATIENCE
    )
    try:
        client = Client(transport, BUILTIN, agent="sampan")
        told = await client.get("configmaps", cluster_info.SETTINGS, "kube-system")
        config = _config(paths, json.loads(told["data"]["cluster"]), invitation.server, node)
        await _check_name(client, node)
        pki.write_file(paths.pki / "ca.crt", ca.encode(), 0o644)
        pair = await certificates.request(client, clock, node, certificates.CLIENT)
        pair.save(paths.pki / "nodes" / f"{node}.crt", paths.pki / "nodes" / f"{node}.key")
    except certificates.Refused as error:
        raise SampanError(f"the cluster gives no certificate: {error}", _AGAIN) from None
    finally:
        await transport.close()
    return config


def _config(paths: Paths, told: Mapping[str, Any], server: str, node: str) -> ClusterConfig:
    """Raises SampanError for what another version of sampan may say."""
    try:
        config = ClusterConfig(paths.name, run=str(paths.run), images=str(paths.images), **told)
    except TypeError as error:
        raise SampanError(
            f"the cluster has settings unknown here: {error}", "Use the same version."
        ) from None
    config.server = server
    config.nodes.append(NodeConfig(node, 0))
    return config


async def _check_name(client: Client, name: str) -> None:
    """A node that lives, or is another machine's, is not replaced. Raises SampanError."""
    try:
        node = await client.get("nodes", name)
    except ApiError as error:
        if error.code == 404:
            return
        raise
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    if ready or ADDRESS not in (node["metadata"].get("annotations") or {}):
        raise SampanError(
            f"the cluster has a node {name} already" + (", and it is Ready" if ready else ""),
            f"Choose another: --node-name. Is it this machine's from before? Then on the first: sampan node delete {name}",
        )


def _check_network(config: ClusterConfig) -> None:
    networks = [*config.fabrics, *config.pod_cidrs, *config.service_cidrs, *config.load_balancer_cidrs]
    found = list(underlay.overlapping(networks))
    if found:
        raise SampanError(
            f"this machine has routes where the cluster has addresses: {', '.join(found)}",
            "Remove what they lead to (another cluster: sampan down), or join from another machine.",
        )
    if underlay.fabric_mtu(config.machine) < config.mtu:
        raise SampanError(
            f"the link with {config.machine} is too narrow: packets of {config.mtu} bytes do not fit into its tunnel",
            "Raise the link's MTU.",
        )


async def _take_place(paths: Paths, config: ClusterConfig, name: str, clock: Clock) -> None:
    """As the node: register, and learn which place the cluster gives to it."""
    transport = credentials.node_transport(config, paths.pki, name, clock)
    try:
        client = Client(transport, BUILTIN, agent="sampan")
        try:
            await client.create("nodes", _node(name, config.machine))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        async with clock.timeout(_PATIENCE):
            ranges = await _ranges(client, name)
    except TimeoutError:
        raise SampanError(
            f"the cluster gives node {name} no pod addresses: all places for machines may be taken",
            "See who has them: kubectl get configmap sampan-places -n kube-system -o yaml. "
            "Take out the addresses of machines that are gone for good.",
        ) from None
    finally:
        await transport.close()
    index = next((i for i in range(1, 253) if config.pod_ranges(i) == ranges), 0)
    if not index:
        raise SampanError(f"node {name} got pod addresses that are none of this cluster's: {ranges}")
    config.nodes[0].index, config.leaf = index, index + 1


def _node(name: str, machine: str) -> Object:
    metadata = {"name": name, "annotations": {ADDRESS: machine}, "labels": {"kubernetes.io/hostname": name}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


async def _ranges(client: Client, name: str) -> list[str]:
    async for line in client.watch("nodes", initial=True, fields=f"metadata.name={name}"):
        spec = orjson.loads(line)["object"].get("spec") or {}
        if spec.get("podCIDRs"):
            return list(spec["podCIDRs"])
    raise OSError("the server ended the watch")


def _probe(config: ClusterConfig, progress: Progress) -> None:
    """Whether packets get through the tunnel, which nothing so far has needed."""
    try:
        with socket.create_connection(
            (config.fabric_address(0), urlsplit(config.server).port or 443), _PROBE
        ):
            progress("packets between the machines get through")
    except OSError:
        progress(
            f"warning: pods here do not reach those of {config.first_machine}: no packets get through the tunnel; "
            "let UDP port 4789 through the firewalls of both machines"
        )


def default_node_name() -> str:
    return socket.gethostname().partition(".")[0].lower()
