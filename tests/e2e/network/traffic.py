"""Traffic of the network tests: pods that answer, probers that ask, and Services made for one test."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import itertools
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype
import yaml
from harness import HOST, PATIENCE, Cluster, Kubectl, eventually, within

INSIDE = (Path(__file__).parent / "inside.py").read_text()
NODES = ("node-1", "node-2", "node-3")
TCP, ADMIN, UDP = 8080, 8081, 5353
REFUSED, SILENT = "ConnectionRefusedError", "TimeoutError"


class Silent(Exception):
    """A prober does not answer: what was to be tested is not known."""


class Prober:
    """Asks from one place: a pod, a node (a pod in its network), or the machine itself (`kubectl` None).

    `netns`: from inside that network namespace, without a stream through a node's agent.
    """

    def __init__(self, kubectl: Kubectl | None, pod: str = "", netns: str = "") -> None:
        self.name = pod or netns or "host"
        command = [sys.executable, "-u", "-c", INSIDE, "probe"]
        if netns:
            command = ["nsenter", f"--net={netns}", *command]
        elif kubectl is not None:
            inside = ["kubectl", f"-n={kubectl.namespace}", "exec", "-i", pod, "--", "python3", *command[1:]]
            command = [*within(kubectl.netns), *inside]
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=kubectl.environment if kubectl else None,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        self._ended = False
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._news:
                self._answers[answer["id"]] = answer
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def order(self, op: str, patience: float = PATIENCE, **order: Any) -> Any:
        """One order and its result."""
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            number = next(self._ids)
            self._process.stdin.write(json.dumps({"id": number, "op": op, **order}) + "\n")
            self._process.stdin.flush()
        with self._news:
            self._news.wait_for(lambda: number in self._answers or self._ended, patience)
            if number not in self._answers:
                raise Silent(f"{self.name} did not answer {op} {order}{self._end()}")
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{self.name}: {op} {order}: {answer['error']}"
        return answer["result"]

    def _end(self) -> str:
        """How the process ended, if it has."""
        if not self._ended:
            return ""
        self._complaints.seek(0)
        return f": its process ended with {self._process.wait()}: {self._complaints.read()[-2000:]}"

    @property
    def ended(self) -> bool:
        return self._ended

    def ask(self, address: str, port: int, protocol: str = "TCP", **more: Any) -> str:
        """ "NAME PEER" of whoever answered, or the error's name."""
        return self.order("ask", address=address, port=port, protocol=protocol, **more)[0]

    def asks(
        self, address: str, port: int, protocol: str = "TCP", times: int = 30, **more: Any
    ) -> Counter[str]:
        """Who answered how often."""
        found = self.order("ask", address=address, port=port, protocol=protocol, times=times, **more)
        return Counter(answer.split()[0] for answer in found)

    def settles(self, address: str, port: int, answer: str, protocol: str = "TCP", **more: Any) -> None:
        """Waits until the first word of what is answered is `answer`."""

        def look() -> bool:
            found = self.ask(address, port, protocol, **more)
            assert found.split()[0] == answer, f"{self.name} -> {address}:{port}: {found}"
            return True

        eventually(look, f"{self.name} -> {address}:{port} answers {answer}")

    def reaches(
        self, address: str, port: int, names: Sequence[str], protocol: str = "TCP", **more: Any
    ) -> None:
        """All of `names` answer, and nobody else; waits until that is so."""

        def look() -> bool:
            found = set(self.asks(address, port, protocol, **more))
            assert found == set(names), f"{self.name} -> {address}:{port} {protocol}: {found}"
            return True

        eventually(look, f"{self.name} -> {address}:{port} reaches {names}")

    def dns(
        self, server: str, name: str, kind: str = "A", *, tcp: bool = False, edns: int = 0
    ) -> dns.message.Message:
        """What a DNS server says."""
        question = dns.message.make_query(name, kind, use_edns=0 if edns else None, payload=edns or None)
        answer = self.order("dns", address=server, query=question.to_wire().hex(), tcp=tcp)
        assert not answer[0].isupper(), f"{name} {kind}: {answer}"
        return dns.message.from_wire(bytes.fromhex(answer))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def server_pod(
    name: str, node: str = "", labels: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """A pod that answers on TCP 8080 (http) and 8081 (admin) and UDP 5353 (dns), and is ready when it does."""
    container = {
        "name": "server",
        "image": HOST,
        "command": ["python3", "-u", "-c", INSIDE, "serve", name, f"{TCP},{ADMIN}", str(UDP)],
        "ports": [
            {"name": "http", "containerPort": TCP},
            {"name": "admin", "containerPort": ADMIN},
            {"name": "dns", "containerPort": UDP, "protocol": "UDP"},
        ],
        "readinessProbe": {"tcpSocket": {"port": TCP}, "periodSeconds": 1},
    } | spec.pop("container", {})
    where = {"nodeName": node} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [container], **where, **spec},
    }


def client_pod(
    name: str, node: str = "", labels: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    container = {"name": "client", "image": HOST, "command": ["sleep", "infinity"]}
    where = {"nodeName": node} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **where, **spec},
    }


HTTP = {"name": "http", "port": 80, "targetPort": "http"}


def service_object(name: str, ports: Sequence[dict[str, Any]] = (HTTP,), **spec: Any) -> dict[str, Any]:
    selector = spec.pop("selector", {"app": "web"})
    body = {"ports": list(ports), "selector": selector, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


class Net:
    """The cluster's standing inhabitants: in namespace `net` web-1..3 (app=web), client-1..3, one of each on every node;
    host-1..3 in the nodes' own networks; and `host`, the machine."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl
        self.ips: dict[str, list[str]] = {}
        self._probers: dict[str, Prober] = {}

    def build(self) -> None:
        self.kubectl("create namespace net")
        self.kubectl.wait("serviceaccount/default", "create")
        pods = []
        for number, node in enumerate(NODES, 1):
            pods.append(server_pod(f"web-{number}", node, {"app": "web", "number": str(number)}))
            pods.append(client_pod(f"client-{number}", node, {"app": "client"}))
            pods.append(client_pod(f"host-{number}", node, {"app": "host"}, hostNetwork=True))
        self.kubectl.apply(*pods)
        self.kubectl.wait("pods --all", seconds=90)
        self.learn()

    def learn(self) -> None:
        """The addresses of all pods."""
        for pod in self.kubectl.items("pods"):
            self.ips[pod["metadata"]["name"]] = [entry["ip"] for entry in pod["status"].get("podIPs") or ()]

    def ip(self, pod: str) -> str:
        return self.ips[pod][0]

    def prober(self, name: str) -> Prober:
        """In pod `name`, or on the machine for "host". One whose node's agent was killed has ended, and is begun anew."""
        if name not in self._probers or self._probers[name].ended:
            self.forget(name)
            self._probers[name] = Prober(None if name == "host" else self.kubectl, name)
        return self._probers[name]

    @property
    def everywhere(self) -> list[Prober]:
        """A pod, another node's pod, a node, the machine."""
        return [self.prober(name) for name in ("client-1", "client-2", "host-3", "host")]

    def forget(self, name: str) -> None:
        """The pod is gone or starts anew."""
        prober = self._probers.pop(name, None)
        if prober:
            prober.close()

    def service(self, name: str, ports: Sequence[dict[str, Any]] = (HTTP,), **spec: Any) -> dict[str, Any]:
        """Creates or changes a Service; as it then is (a load balancer: once it has its address)."""
        self.kubectl.apply(service_object(name, ports, **spec))
        if spec.get("type") == "LoadBalancer":
            self.kubectl.wait(f"service/{name}", "jsonpath={.status.loadBalancer.ingress[0].ip}")
        return self.kubectl.get(f"service/{name}")

    def close(self) -> None:
        for prober in self._probers.values():
            prober.close()


class Outside:
    """A network namespace that stands for the world outside, with a server and a prober. It knows no way to pods, but sends
    `balancers` to the machine, as a router of that network would."""

    ip, machine = "198.51.100.2", "198.51.100.1"
    ip6, machine6 = "2001:db8:77::2", "2001:db8:77::1"
    _NAME, _LINK = "sampan-test-net", "sampantest0"

    def __init__(self, balancers: str) -> None:
        self._turn = open("/run/sampan-test-net.lock", "w")  # noqa: SIM115
        fcntl.flock(
            self._turn, fcntl.LOCK_EX
        )  # one at a time on a machine: the addresses are always the same
        subprocess.run(["ip", "netns", "del", self._NAME], capture_output=True)
        self._ip(f"netns add {self._NAME}")
        self._ip(f"link add {self._LINK} type veth peer name eth0 netns {self._NAME}")
        self._ip(f"link set {self._LINK} up")
        for command in ("link set eth0 up", "link set lo up"):
            self._ip(f"-n {self._NAME} {command}")
        for ours, theirs in (
            (f"{self.machine}/24", f"{self.ip}/24"),
            (f"{self.machine6}/64", f"{self.ip6}/64"),
        ):
            nodad = ["nodad"] if ":" in ours else []
            self._ip(" ".join(["addr add", ours, "dev", self._LINK, *nodad]))
            self._ip(" ".join([f"-n {self._NAME} addr add", theirs, "dev eth0", *nodad]))
        self._ip(f"-n {self._NAME} route add {balancers} via {self.machine}")
        inside = ["ip", "netns", "exec", self._NAME, sys.executable, "-u", "-c", INSIDE]
        self._server = subprocess.Popen([*inside, "serve", "world", "8080", "8053"], stdout=subprocess.PIPE)
        self.prober = Prober(None, netns=f"/run/netns/{self._NAME}")
        eventually(lambda: self.prober.ask(self.ip, 8080).startswith("world"), "the world's server")

    def _ip(self, command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)

    def close(self) -> None:
        self.prober.close()
        self._server.kill()
        self._server.wait()
        self._ip(f"netns del {self._NAME}")
        self._turn.close()


class Api:
    """Requests to the API server by several threads, each over a connection of its own, with a kubeconfig's certificate."""

    def __init__(self, kubeconfig: str) -> None:
        config = yaml.safe_load(Path(kubeconfig).read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._address = urllib.parse.urlsplit(cluster["server"])
        self._context = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        with tempfile.NamedTemporaryFile() as file:
            for part in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[part]))
            file.flush()
            self._context.load_cert_chain(file.name)
        self._own = threading.local()

    def __call__(self, method: str, path: str, body: str = "") -> dict[str, Any]:
        """The answer, decoded. AssertionError with the server's words when it refuses."""
        if not hasattr(self._own, "connection"):
            host, port = self._address.hostname, self._address.port
            self._own.connection = http.client.HTTPSConnection(host, port, context=self._context)
        connection = self._own.connection
        connection.request(method, path, body or None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, f"{method} {path}: {text.decode()}"
        return json.loads(text)

    def all(self, method: str, requests: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
        """(path, body or None) of each: four at once; the answers."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda r: self(method, r[0], json.dumps(r[1]) if r[1] else ""), requests))


def agent_of(cluster: Cluster, node: str) -> int:
    """The pid of a node's agent, which is in the node's network."""
    for pid in cluster.processes("sampan.cluster.agent"):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(b"\0" + node.encode()):
                return pid
    raise AssertionError(f"{node} has no agent")


def in_node(cluster: Cluster, node: str, command: str) -> str:
    """A command of the administrator's in a node's network."""
    pid = eventually(lambda: agent_of(cluster, node), "its agent")
    arguments = ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", command]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def balancer(service: dict[str, Any]) -> str:
    return service["status"]["loadBalancer"]["ingress"][0]["ip"]


def balancers(service: dict[str, Any]) -> list[str]:
    return [entry["ip"] for entry in service["status"]["loadBalancer"]["ingress"]]


def node_ip(node: dict[str, Any]) -> str:
    return node_ips(node)[0]


def node_ips(node: dict[str, Any]) -> list[str]:
    return [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]


def node_port(service: dict[str, Any]) -> int:
    return service["spec"]["ports"][0]["nodePort"]
