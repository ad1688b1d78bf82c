"""What `up` decided about a cluster, on disk, so that every later command and every restart finds the same one.

The API port and the address ranges are chosen once and kept: kubeconfigs and certificates refer to them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sampan.base.errors import SampanError
from sampan.cluster.paths import Paths

FORMAT = 1
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NODE_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_EXAMPLES: dict[str, Any] = {"name": "", "kubeconfigs": [], "kubelet": {}}  # of fields that have no default


@dataclass(slots=True)
class NodeConfig:
    """One node of this machine. `index` gives it its fabric address and its interface names."""

    name: str
    index: int
    stopped: bool = False


@dataclass(slots=True)
class ClusterConfig:
    """All that the processes of a cluster are told. Times in seconds."""

    name: str
    port: int = 0
    run: str = ""  # directory of sockets
    images: str = ""  # directory of the image store
    rootless: bool = False
    pod_cidr: str = "10.244.0.0/16"
    service_cidr: str = "10.96.0.0/16"
    dns_ip: str = "10.96.0.10"
    api_service_ip: str = "10.96.0.1"
    load_balancer_cidr: str = "10.97.255.0/24"
    fabric: str = ""  # network of the nodes and the host's leaf, e.g. 10.89.7.0/24
    # Which IP versions pods and Services have: ipv4, ipv6 or dual. Nodes have IPv4 in any case. Ranges below: "" without.
    ip_family: str = "ipv4"
    pod_cidr6: str = ""
    service_cidr6: str = ""
    load_balancer_cidr6: str = ""
    fabric6: str = ""
    pod_network: str = "auto"  # how packets reach pods of other nodes: see `node.network.routes`
    # A cluster over several machines (see docs/decisions/0013): all but `mtu` is empty on one that keeps to itself.
    machine: str = ""  # this machine's address for the others
    server: str = ""  # https://HOST:PORT of the first machine, on those that joined it
    first_machine: str = ""  # its address
    network_id: int = 0  # of the tunnel between the machines
    leaf: int = 0  # place of this machine's host on the fabric
    mtu: int = 1500  # of the fabric
    token_auth_file: str = ""
    audit_policy_file: str = ""
    audit_log_path: str = ""
    kubelet: dict[str, Any] = field(default_factory=dict)  # the fields of a KubeletConfiguration
    node_monitor_grace_period: float = 50.0
    node_status_update_frequency: float = 10.0
    node_lease_duration: float = 40.0
    pod_eviction_timeout: float = 300.0
    kubeconfigs: list[str] = field(default_factory=list)  # files that `up` has written a context into
    nodes: list[NodeConfig] = field(default_factory=list)
    format: int = FORMAT

    def node(self, name: str) -> NodeConfig:
        """Raises SampanError with the names there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(n.name for n in self.nodes) or "none"
        raise SampanError(f"cluster {self.name} has no node {name!r}", f"Its nodes: {known}.")

    def fabric_address(self, index: int) -> str:
        """The host's leaf is index 0; nodes count from 1."""
        return self.fabric.split("/")[0].rsplit(".", 1)[0] + f".{index + 1}"

    def node_addresses(self, index: int) -> list[str]:
        """A node's InternalIPs, those of the cluster's IP versions, the preferred one first. Index 0 is the host."""
        return self._of_families(self.fabric_address(index), _nth(self.fabric6, index + 1))

    def fabric_addresses(self, index: int) -> list[str]:
        """All that its interface has: IPv4 in any case, since the way to the internet may need it."""
        return [self.fabric_address(index), *([_nth(self.fabric6, index + 1)] if self.fabric6 else [])]

    def pod_ranges(self, index: int) -> list[str]:
        """A node's part of the pod ranges: a /24, a /64 or both, the preferred IP version first."""
        first, second, *_ = self.pod_cidr.split(".")
        six = f"{_nth(self.pod_cidr6, index << 64)}/64" if self.pod_cidr6 else ""
        return self._of_families(f"{first}.{second}.{index}.0/24", six)

    @property
    def dns_ips(self) -> list[str]:
        """Of the Service kube-dns, in each of the cluster's IP versions."""
        return self._of_families(self.dns_ip, _nth(self.service_cidr6, 10))

    @property
    def pod_cidrs(self) -> list[str]:
        return self._of_families(self.pod_cidr, self.pod_cidr6)

    @property
    def service_cidrs(self) -> list[str]:
        return self._of_families(self.service_cidr, self.service_cidr6)

    @property
    def load_balancer_cidrs(self) -> list[str]:
        return self._of_families(self.load_balancer_cidr, self.load_balancer_cidr6)

    @property
    def fabrics(self) -> list[str]:
        return [network for network in (self.fabric, self.fabric6) if network]

    @property
    def fabric_versions(self) -> tuple[int, ...]:
        """IP versions in which nodes send packets through the host."""
        return (4, 6) if self.fabric6 else (4,)

    def _of_families(self, four: str, six: str) -> list[str]:
        return {"ipv4": [four], "ipv6": [six], "dual": [four, six]}[self.ip_family]

    def paths(self, data: Path) -> Paths:
        """The files of this cluster, whoever asks."""
        return Paths(self.name, data, Path(self.run), Path(self.images))

    @property
    def advertised(self) -> str:
        """What stands behind the Service `kubernetes`: of the IP version that Service has."""
        return self.node_addresses(0)[0] if self.fabric else "127.0.0.1"

    @property
    def server_address(self) -> str:
        return self.fabric_address(0) if self.fabric else "127.0.0.1"

    @property
    def server_url(self) -> str:
        """Where this machine's nodes find the API."""
        return self.server or f"https://{self.server_address}:{self.port}"

    def need_server(self) -> None:
        """For what only the first machine of a cluster can do. Raises SampanError on one that has joined."""
        if self.server:
            raise SampanError(
                f"this machine has joined the cluster at {self.server}", "Do that on the first machine."
            )

    @property
    def context(self) -> str:
        """Name of the kubeconfig context."""
        return "sampan" if self.name == "default" else f"sampan-{self.name}"


def need_node_name(name: str, hint: str) -> None:
    """Raises SampanError for what cannot name a node: a DNS subdomain short enough for the label kubernetes.io/hostname,
    and not what a cluster's own processes are called."""
    if name in ("control-plane", "supervisor"):
        raise SampanError(f"{name!r} cannot be the name of a node: a process of every cluster has it", hint)
    if len(name) > 63 or _NODE_NAME.fullmatch(name) is None:
        raise SampanError(f"{name!r} cannot be the name of a node: a-z, 0-9, - and . are allowed", hint)


def _nth(network: str, number: int) -> str:
    """The address so many after the network's own; "" of none."""
    return str(ipaddress.ip_network(network).network_address + number) if network else ""


def load(path: Path) -> ClusterConfig:
    """Raises SampanError when there is no such cluster or a newer sampan wrote it."""
    try:
        raw = json.loads(path.read_text())
        if not isinstance(raw, dict):
            raise TypeError("it holds no object")
        if raw.get("format", 0) > FORMAT:
            hint = "Use that version, or remove the cluster with it."
            raise SampanError(f"{path} was written by a newer sampan (format {raw['format']})", hint)
        return _read(raw)
    except FileNotFoundError:
        raise SampanError(f"there is no cluster in {path.parent}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise SampanError(
            f"{path} is damaged: {error}", "Bring the file back, or remove the cluster."
        ) from None


def _read(raw: dict[str, Any]) -> ClusterConfig:
    """Raises TypeError or KeyError for what is no configuration. Unknown fields are passed over."""
    nodes = [NodeConfig(str(n["name"]), int(n["index"]), bool(n["stopped"])) for n in raw["nodes"]]
    known: dict[str, Any] = {}
    for one in fields(ClusterConfig):
        if one.name == "nodes" or one.name not in raw:
            continue
        value, default = raw[one.name], _EXAMPLES.get(one.name, one.default)
        if not isinstance(value, int | float if isinstance(default, float) else type(default)):
            raise TypeError(f"{one.name} is {value!r}")
        known[one.name] = value
    return ClusterConfig(**known, nodes=nodes)


def save(config: ClusterConfig, path: Path) -> None:
    write_atomic(path, json.dumps(asdict(config), indent=2) + "\n")


def write_atomic(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step, so that a reader or a crash sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
