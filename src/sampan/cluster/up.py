"""`sampan up`: from nothing, or from whatever a stop, a crash or a reboot left, to a cluster whose nodes are Ready."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import ipaddress
import itertools
import json
import os
import shutil
import ssl
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sampan.api.resources import BUILTIN
from sampan.base.clock import RealClock
from sampan.base.errors import SampanError
from sampan.client.client import Client
from sampan.client.https import HttpsTransport
from sampan.cluster import cluster_info, credentials, kubeconfig, places, ports, room, supervision, underlay
from sampan.cluster import config as configs
from sampan.cluster.config import ClusterConfig, NodeConfig, need_node_name
from sampan.cluster.down import sweep
from sampan.cluster.paths import Paths, is_root, make_private
from sampan.node.network import fabric, obstacles, rtnetlink

DEFAULT_PORT = 6443
OFF = "off"  # of --advertise
Progress = Callable[[str], None]


@dataclass(slots=True)
class Wishes:
    """What the command line asked for; None leaves a cluster as it is, or takes the default for a new one."""

    nodes: int | None = None
    port: int = 0
    token_auth_file: str | None = None
    audit_policy_file: str | None = None
    audit_log_path: str | None = None
    kubelet_config: str | None = None
    kubeconfig: str | None = None
    ip_family: str | None = None
    pod_network: str | None = None
    advertise: str | None = None
    node_monitor_grace_period: float | None = None
    node_status_update_frequency: float | None = None
    pod_eviction_timeout: float | None = None
    timeout: float = 60  # seconds that API and nodes may take, each


def bring_up(paths: Paths, wishes: Wishes, progress: Progress) -> ClusterConfig:
    """Returns the configuration of a cluster that is up. Repeating it is harmless. Raises SampanError."""
    supervision.running(paths)  # somebody else's cluster of the same name is told before anything is made
    new = not paths.data.exists()
    make_private(paths.data)
    with exclusive(paths):
        try:
            config = _prepare(paths, wishes)
        except SampanError:
            if new:
                shutil.rmtree(paths.data)
                shutil.rmtree(paths.run, ignore_errors=True)
            raise
        _start(paths, config, progress)
    supervision.ask(paths, "wait-ready", timeout=wishes.timeout)
    if not config.server:
        progress(f"the API answers at https://127.0.0.1:{config.port}")
        if config.machine:
            progress(_where_others_find_us(config, paths))
        kubeconfig.merge(kubeconfig.target(wishes.kubeconfig), admin_kubeconfig(config, paths))
    _warn_of_obstacles(config, progress)
    asyncio.run(_wait_until_usable(config, paths, wishes.timeout, progress))
    return config


def _where_others_find_us(config: ClusterConfig, paths: Paths) -> str:
    """A cluster whose machine has moved to another network is of use without the others."""
    if underlay.present(config.machine):
        return f"and for other machines at {cluster_info.url(config)}: {paths.command('token create')}"
    return (
        f"warning: this machine no longer has {config.machine}, where other machines reach the cluster; "
        f"{paths.command('stop')}, then {paths.command('up --advertise ADDRESS')}, and those that have joined join anew; or without them: --advertise {OFF}"
    )


def _prepare(paths: Paths, wishes: Wishes) -> ClusterConfig:
    """The configuration, keys and certificates, on disk."""
    config = decide(paths, wishes)
    if config.server:
        make_private(paths.run)
        configs.save(config, paths.reserved)
        return config
    if not supervision.running(paths):
        room.check(paths)
    target = str(kubeconfig.target(wishes.kubeconfig))
    kubeconfig.check(Path(target))
    if target not in config.kubeconfigs:
        config.kubeconfigs.append(target)
    credentials.ensure(config, paths.pki)
    for node in config.nodes:
        credentials.ensure_node(paths.pki, node.name, config.fabric_addresses(node.index))
    configs.save(config, paths.config)
    make_private(paths.run)
    configs.save(config, paths.reserved)  # a reboot takes it away
    return config


def _start(paths: Paths, config: ClusterConfig, progress: Progress) -> None:
    """Whatever does not run yet."""
    if supervision.running(paths):
        supervision.ask(paths, "reload")
        for node in config.nodes:
            if not node.stopped:
                supervision.ask(paths, "node-start", name=node.name)
        return
    parts = [] if config.server else ["the control plane"]
    parts += [f"{len(config.nodes)} node(s)"] if config.nodes else []
    progress(f"starting {' and '.join(parts)}")
    sweep(paths)
    supervision.start(paths)


def _warn_of_obstacles(config: ClusterConfig, progress: Progress) -> None:
    """A cluster is of use without the world outside, so this is no error."""
    if config.rootless:
        return
    found = obstacles.find(fabric.host_link(config.name), config.fabric_versions)
    if config.machine:
        found += obstacles.shut(
            [("udp", rtnetlink.VXLAN_PORT)] + ([] if config.server else [("tcp", config.port)])
        )
    for obstacle in found:
        progress(f"warning: {obstacle.what} drops {obstacle.lost}; let it through: {obstacle.remedy}")


def admin_kubeconfig(config: ClusterConfig, paths: Paths) -> dict[str, object]:
    """The administrator's kubeconfig, complete in itself."""
    files = [(paths.pki / name).read_bytes() for name in ("ca.crt", "admin.crt", "admin.key")]
    return kubeconfig.entries(config.context, f"https://127.0.0.1:{config.port}", *files)


def admin_client(config: ClusterConfig, paths: Paths) -> Client:
    """A client with all rights, for commands of the one who owns the cluster. Raises SampanError on another machine."""
    config.need_server()
    transport = HttpsTransport(
        f"https://127.0.0.1:{config.port}",
        ca=str(paths.pki / "ca.crt"),
        cert=str(paths.pki / "admin.crt"),
        key=str(paths.pki / "admin.key"),
        clock=RealClock(),
    )
    return Client(transport, BUILTIN, agent="sampan")


def node_client(config: ClusterConfig, paths: Paths) -> Client:
    """A client as the node of a machine that has joined."""
    transport = credentials.node_transport(config, paths.pki, config.nodes[0].name, RealClock())
    return Client(transport, BUILTIN, agent="sampan")


@contextmanager
def exclusive(paths: Paths) -> Iterator[None]:
    """Only one command changes a cluster at a time. Raises SampanError when another one does."""
    handle = os.open(paths.data / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SampanError(
                "another sampan command is changing this cluster", "Repeat when it is done."
            ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One chooses addresses at a time: the lock is on the directory itself, so that nothing needs to be removed."""
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def decide(paths: Paths, wishes: Wishes) -> ClusterConfig:
    """The stored configuration with the wishes applied, or a new one. Raises SampanError for wishes that it cannot keep."""
    if paths.config.exists():
        config = configs.load(paths.config)
        if config.rootless == is_root():
            who = "an ordinary user" if config.rootless else "root"
            raise SampanError(
                f"cluster {paths.name} was made by {who}", "Use the same user, or another --name."
            )
    else:
        rootless = not is_root()
        config = ClusterConfig(paths.name, run=str(paths.run), images=str(paths.images), rootless=rootless)
        config.pod_network = wishes.pod_network or "auto"
        with _alone(make_private(paths.run).parent):
            config.port = _port(wishes.port, {other.port for other in _neighbours(paths)})
            config.fabric = _fabric_network(paths)
            _choose_ranges(config, paths)
            _choose_ipv6(config, wishes.ip_family or "ipv4")
            configs.save(config, paths.reserved)
    if config.server:
        if wishes.nodes is not None:
            config.need_server()
        _check_joined(config, paths, wishes.advertise)
        return config
    anew = f"Remove the cluster first: {paths.command('down')}"
    for name in ("ip_family", "pod_network"):
        if getattr(wishes, name) not in (None, getattr(config, name)):
            flag = name.replace("_", "-")
            raise SampanError(
                f"this cluster was made with --{flag}={getattr(config, name)} and stays so",
                anew,
            )
    if wishes.port and wishes.port != config.port:
        raise SampanError(f"the API's port is {config.port} and stays so", anew)
    for name in ("node_monitor_grace_period", "node_status_update_frequency", "pod_eviction_timeout"):
        value = getattr(wishes, name)
        if value is not None:
            setattr(config, name, value)
    if wishes.advertise:
        _advertise(config, paths, wishes.advertise)
    _take_files(config, paths, wishes)
    count = wishes.nodes if wishes.nodes is not None else len(config.nodes) if paths.config.exists() else 1
    taken = {node.name for node in config.nodes}
    free = (name for number in itertools.count(1) if (name := f"node-{number}") not in taken)
    for _ in range(len(config.nodes), count):
        add_node(config, next(free))
    return config


def _check_joined(config: ClusterConfig, paths: Paths, wish: str | None) -> None:
    """A machine that has joined keeps its address: other machines and its own tunnel were told. Raises SampanError."""
    anew = f"Join anew: {paths.command('down')}, then what `sampan token create` prints on the first machine"
    if not underlay.present(config.machine):
        raise SampanError(
            f"this machine has joined with the address {config.machine}, which it no longer has",
            f"{anew}. Or give it that address again.",
        )
    if wish and (wish == OFF or underlay.own_address(wish) != config.machine):
        raise SampanError(
            f"this machine has joined with the address {config.machine} and keeps it",
            f"{anew}, with --advertise ADDRESS.",
        )


def _advertise(config: ClusterConfig, paths: Paths, wish: str) -> None:
    """Other machines may join: at an address of this machine, from the next start on; "off": no longer. Raises SampanError."""
    address = "" if wish == OFF else underlay.own_address(wish)
    if address == config.machine:
        return
    if config.rootless:
        raise SampanError(
            "an ordinary user's cluster stays on one machine: tunnels between machines need root",
            "Use the cluster as root, or leave --advertise out.",
        )
    if any(node.index >= places.FIRST for node in config.nodes):
        raise SampanError(f"at most {places.FIRST - 1} nodes may be on the first machine of several")
    if supervision.running(paths):
        raise SampanError(
            "the address for other machines can change only when a cluster starts",
            f"Stop it first, its data stay: {paths.command('stop')}",
        )
    config.machine = config.first_machine = address
    config.network_id, config.mtu = 0, fabric.MTU
    if address:
        config.network_id = zlib.crc32(f"{address}/{config.port}/{config.fabric}".encode()) & 0xFFFFFF
        config.mtu = underlay.fabric_mtu(address)


def _take_files(config: ClusterConfig, paths: Paths, wishes: Wishes) -> None:
    """Files of the control plane and of nodes: what is wrong with them is said now. Raises SampanError."""
    if not any(
        (wishes.token_auth_file, wishes.audit_policy_file, wishes.audit_log_path, wishes.kubelet_config)
    ):
        return
    import yaml

    from sampan.node import settings
    from sampan.server.auth.audit import Policy
    from sampan.server.auth.authenticate import read_token_file

    try:
        if wishes.token_auth_file:
            config.token_auth_file = str(Path(wishes.token_auth_file).absolute())
            read_token_file(Path(config.token_auth_file))
        if wishes.audit_policy_file:
            config.audit_policy_file = str(Path(wishes.audit_policy_file).absolute())
            Policy.load(Path(config.audit_policy_file))
        if wishes.kubelet_config:
            config.kubelet = yaml.safe_load(Path(wishes.kubelet_config).read_text())
            settings.read(config.kubelet)
    except FileNotFoundError as error:
        raise SampanError(f"there is no {error.filename}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise SampanError(str(error)) from None
    if wishes.audit_log_path:
        config.audit_log_path = str(Path(wishes.audit_log_path).absolute())
    if config.audit_log_path and not config.audit_policy_file:
        raise SampanError(
            "--audit-log-path needs an --audit-policy-file: without a policy nothing is recorded"
        )
    if config.audit_policy_file and not config.audit_log_path:
        config.audit_log_path = str(paths.log("audit"))


def add_node(config: ClusterConfig, name: str) -> NodeConfig:
    """Give a node the lowest free index. Raises SampanError for no name of a node, one that is taken, or a full fabric."""
    need_node_name(name, "For example: node-9")
    if any(node.name == name for node in config.nodes):
        raise SampanError(f"cluster {config.name} already has a node {name!r}")
    used = {node.index for node in config.nodes}
    config.need_server()
    limit = places.FIRST - 1 if config.machine else 252
    index = next((i for i in range(1, limit + 1) if i not in used), None)
    if index is None:
        raise SampanError(f"this cluster has at most {limit} nodes on one machine")
    node = NodeConfig(name, index)
    config.nodes.append(node)
    return node


def _port(wanted: int, others: Collection[int]) -> int:
    """The one asked for or none; without a wish the usual one if no other cluster has it, or any."""
    if wanted:
        if not ports.free(wanted):
            raise ports.taken(wanted)
        return wanted
    if DEFAULT_PORT not in others and ports.free(DEFAULT_PORT):
        return DEFAULT_PORT
    while (port := ports.free(0)) in others:  # it is free until that cluster listens
        pass
    return port


def _neighbours(paths: Paths) -> list[ClusterConfig]:
    """The other clusters in this place, and those that run or are about to, as far as their configuration can be read."""
    files = [*paths.data.parent.glob("*/cluster.json"), *paths.run.parent.glob("*/reserved.json")]
    found = []
    for file in files:
        if file not in (paths.config, paths.reserved):
            with suppress(SampanError):
                found.append(configs.load(file))
    return found


def _fabric_network(paths: Paths) -> str:
    """A /24 of 10.89.0.0/16 that no route of this machine and no other cluster uses, starting from the name's hash."""
    taken = {line.split()[1] for line in Path("/proc/net/route").read_text().splitlines()[1:]}
    for other in _neighbours(paths):
        if other.fabric:
            taken.add(_route_form(int(other.fabric.split(".")[2])))
    start = zlib.crc32(f"{os.getuid()}/{paths.name}".encode()) % 256
    for step in range(256):
        third = (start + step) % 256
        if not any(route.endswith(_route_form(third)) for route in taken):
            return f"10.89.{third}.0/24"
    raise SampanError("every network 10.89.0.0/16 could give is in use on this machine")


def _choose_ranges(config: ClusterConfig, paths: Paths) -> None:
    """Pods and Services of all clusters of this machine have ranges of their own: the host reaches every one of them."""
    others = _neighbours(paths)
    taken = {
        int(cidr.split(".")[1]) for c in others for cidr in (c.pod_cidr, c.service_cidr)
    } | _routed_tens()
    second = next((n for n in range(244, 199, -1) if n not in taken), None)
    base = next((n for n in range(96, 127, 2) if not {n, n + 1} & taken), None)
    if second is None or base is None:
        raise SampanError(
            "too many clusters on this machine: no address range is left",
            "Remove one that nobody needs: sampan down --name NAME",
        )
    config.pod_cidr, config.service_cidr = f"10.{second}.0.0/16", f"10.{base}.0.0/16"
    config.api_service_ip, config.dns_ip = f"10.{base}.0.1", f"10.{base}.0.10"
    config.load_balancer_cidr = f"10.{base + 1}.255.0/24"


def _choose_ipv6(config: ClusterConfig, family: str) -> None:
    """Unique local ranges (RFC 4193) made of the cluster's name: pods /56, Services /108, the fabric /64."""
    config.ip_family = family
    if family == "ipv4":
        return
    if not Path("/proc/sys/net/ipv6/conf").exists():
        raise SampanError("this machine's kernel has IPv6 switched off", "Use --ip-family=ipv4.")
    digest = hashlib.sha256(f"{os.getuid()}/{config.name}".encode()).digest()

    def of(subnet: int, prefix: int) -> str:
        packed = b"\xfd" + digest[:5] + subnet.to_bytes(2, "big") + bytes(8)
        return str(ipaddress.IPv6Network((packed, prefix)))

    config.pod_cidr6, config.service_cidr6 = of(0x100, 56), of(0x96, 108)
    config.load_balancer_cidr6, config.fabric6 = of(0x97, 120), of(0x89, 64)
    if family == "ipv6":
        first = ipaddress.IPv6Network(config.service_cidr6).network_address
        config.api_service_ip, config.dns_ip = str(first + 1), str(first + 10)


def _routed_tens() -> set[int]:
    """Second numbers of the networks in 10.0.0.0/8 this machine has routes to, also of clusters with data elsewhere."""
    destinations = [line.split()[1] for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    return {int(form[4:6], 16) for form in destinations if form.endswith("0A")}


def _route_form(third: int) -> str:
    """10.89.THIRD as the destination column of /proc/net/route ends: hexadecimal, little-endian."""
    return f"{third:02X}590A"


async def _wait_until_usable(config: ClusterConfig, paths: Paths, timeout: float, progress: Progress) -> None:
    """Until pods are taken, and every node that should run is Ready; each may take `timeout` seconds."""
    client = node_client(config, paths) if config.server else admin_client(config, paths)
    wanted = {node.name for node in config.nodes if not node.stopped}
    try:
        if not config.server:
            await _wait_for_account(client, timeout, paths.command("logs"))
        if wanted:
            await _wait_for_nodes(client, wanted, timeout, paths.command("logs"), progress)
    except (ConnectionError, ssl.SSLError, OSError) as error:
        raise SampanError(
            f"the API at {config.server_url} cannot be asked: {error}",
            "The nodes run, and come back to the cluster when it answers.",
        ) from None


async def _wait_for_account(client: Client, timeout: float, logs: str) -> None:
    """Pods are refused before a controller has made the account they run as: what is up takes pods at once."""
    try:
        async with RealClock().timeout(timeout):
            watch = client.watch("serviceaccounts", "default", fields="metadata.name=default", initial=True)
            async for line in watch:
                if json.loads(line)["type"] == "ADDED":
                    return
    except TimeoutError:
        why = f"the namespace default has no ServiceAccount after {timeout:.0f} s"
        raise SampanError(why, f"What the controllers say: {logs}") from None


async def _wait_for_nodes(
    client: Client, waiting: set[str], timeout: float, logs: str, progress: Progress
) -> None:
    try:
        async with RealClock().timeout(timeout):
            async for line in client.watch("nodes", initial=True):
                event = json.loads(line)
                node = event["object"]
                name = node["metadata"].get("name")
                conditions = node.get("status", {}).get("conditions", [])
                ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
                if event["type"] in ("ADDED", "MODIFIED") and ready and name in waiting:
                    waiting.discard(name)
                    progress(f"{name} is Ready")
                if not waiting:
                    return
    except TimeoutError:
        late = sorted(waiting)
        why = f"not Ready after {timeout:.0f} s: {', '.join(late)}"
        raise SampanError(why, f"Their logs: {logs} {late[0]}") from None
