"""What the end-to-end tests share: one cluster of real nodes, and the unmodified kubectl a person would type into.

Nothing here knows how sampan works inside, except `Traces`, which looks for what a cluster may leave on the machine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sampan.node.network import fabric

ROOT = Path(__file__).resolve().parents[2]
HOST = "localhost/host"
SLOW = float(os.environ.get("SAMPAN_SLOW", "1"))  # how much slower an emulated machine says it is
PATIENCE = (
    60  # seconds for whatever must come; a test that passes does not wait for it, and a busy machine needs it
)
FAST_FAILURE = (
    f"--node-monitor-grace-period={4 * SLOW:g}",
    f"--node-status-update-frequency={SLOW:g}",
    f"--pod-eviction-timeout={2 * SLOW:g}",
)
T = TypeVar("T")


def eventually(look: Callable[[], T], what: str = "", seconds: float = PATIENCE) -> T:
    """Call `look` until it returns something true, and return that. What fails, is not reachable or not there in it
    counts as not yet."""
    end, last = time.monotonic() + seconds * SLOW, ""
    while True:
        try:
            found = look()
        except (AssertionError, OSError, LookupError) as error:
            found, last = None, repr(error)
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}\nlast seen: {last or found!r}"
        time.sleep(0.1)


def within(netns: str) -> list[str]:
    """What comes before a command that is to run in another network namespace; "" is this one."""
    return ["nsenter", f"--net={netns}"] if netns else []


class Stream:
    """A kubectl that goes on (logs -f, get --watch, port-forward): its lines so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait for output that `pattern` is found in."""

        def look() -> re.Match[str]:
            found = re.search(pattern, self.text, re.M)
            assert found, f"{pattern!r} is not in {self.text!r}"
            return found

        return eventually(look, seconds=seconds)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code, once it ends by itself and all it said is read."""
        code = self.process.wait(seconds * SLOW)
        self._reader.join(seconds * SLOW)
        return code


class Kubectl:
    """kubectl with one kubeconfig and namespace: `kubectl("get pods -o wide")` is what a person types."""

    def __init__(self, kubeconfig: str | Path, namespace: str = "default", *, netns: str = "") -> None:
        self.namespace = namespace
        self.netns = netns
        self.environment = os.environ | {"KUBECONFIG": str(kubeconfig)}

    def run(
        self,
        command: str,
        *,
        input: str | None = None,
        timeout: float = 90,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """One command to its end, whatever that is."""
        return subprocess.run(
            self._arguments(command),
            env=self.environment | (env or {}),
            input="" if input is None else input,
            capture_output=True,
            text=True,
            timeout=timeout * SLOW,
        )

    def __call__(self, command: str, **options: Any) -> str:
        """Its output. AssertionError with kubectl's own words when it fails."""
        done = self.run(command, **options)
        assert done.returncode == 0, f"kubectl {command}: exit {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def refused(self, command: str, **options: Any) -> str:
        """What kubectl says of a command that must fail."""
        done = self.run(command, **options)
        assert done.returncode != 0, f"kubectl {command} should have failed: {done.stdout}"
        return done.stderr + done.stdout

    @contextmanager
    def stream(self, command: str) -> Iterator[Stream]:
        """A command that goes on until the block ends."""
        process = subprocess.Popen(
            self._arguments(command),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield Stream(process)
        finally:
            process.kill()
            process.wait()

    def leave(self, command: str) -> None:
        """Start a command whose end and outcome nobody waits for."""
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen(self._arguments(command), env=self.environment, **quiet)

    def _arguments(self, command: str) -> list[str]:
        return [*within(self.netns), "kubectl", f"--namespace={self.namespace}", *shlex.split(command)]

    # What most tests ask for

    def get(self, what: str) -> Any:
        """`kubectl get WHAT -o json`, decoded."""
        return json.loads(self(f"get {what} -o json"))

    def items(self, what: str) -> list[Any]:
        return self.get(what)["items"]

    def apply(self, *objects: dict[str, Any] | str, flags: str = "") -> str:
        """`kubectl apply -f -` of objects, or of YAML text."""
        text = [one if isinstance(one, str) else yaml.safe_dump(one) for one in objects]
        return self(f"apply -f - {flags}", input="\n---\n".join(text))

    def run_pod(self, name: str, spec: dict[str, Any] | str = "sleep infinity", **metadata: Any) -> None:
        """Create a pod (a spec, or one shell command) and wait until it is Ready."""
        self.apply(pod(name, spec, **metadata))
        self.wait(f"pod/{name}")

    def wait(self, what: str, condition: str = "condition=Ready", seconds: int = PATIENCE) -> str:
        return self(f"wait --for={condition} {what} --timeout={seconds * SLOW:g}s")

    def phase(self, name: str, phase: str, seconds: int = PATIENCE) -> Any:
        """Wait until a pod is in `phase`; the pod."""
        self.wait(f"pod/{name}", f"jsonpath={{.status.phase}}={phase}", seconds)
        return self.get(f"pod/{name}")

    def events_of(self, name: str) -> str:
        """Lines of TYPE REASON MESSAGE about one object."""
        columns = "custom-columns=T:.type,R:.reason,M:.message"
        return self(f"get events --field-selector involvedObject.name={name} -o {columns} --no-headers")


def pod(name: str, spec: dict[str, Any] | str = "sleep infinity", **metadata: Any) -> dict[str, Any]:
    """A manifest. `spec`: a pod's, or one shell command; containers get the host image and the name `main` by default."""
    if isinstance(spec, str):
        spec = {"containers": [shell(spec)]}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        container.setdefault("name", "main")
        container.setdefault("image", HOST)
    spec = {"terminationGracePeriodSeconds": 1} | spec
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def shell(command: str, **more: Any) -> dict[str, Any]:
    """A container that runs a shell command."""
    return {"command": ["sh", "-c", command], **more}


def server(port: int = 8080, answer: str = "$(hostname)", **more: Any) -> dict[str, Any]:
    """A container that answers every HTTP request with a line, its host's name by default, and stops when asked to."""
    code = f"""
import http.server, os, signal, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (os.environ["ANSWER"] + "\\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
server = Server(("", {port}), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("listening", flush=True)
server.serve_forever()
"""
    return {
        "name": "web",
        "image": HOST,
        "command": ["sh", "-c", f'ANSWER="{answer}" exec python3 -c "$0"', code],
        "ports": [{"containerPort": port}],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        **more,
    }


def deployment(
    name: str, container: dict[str, Any] | None = None, *, replicas: int = 2, **spec: Any
) -> dict[str, Any]:
    """A Deployment of `container` (default: `server()`), labelled app=NAME; `spec` adds to it (`pod` to the pods' spec)."""
    pod_spec = {"terminationGracePeriodSeconds": 5, "containers": [container or server()]} | spec.pop(
        "pod", {}
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec},
            **spec,
        },
    }


class Cluster:
    """A cluster of this test run, made and ended with the `sampan` command; `netns` may play its machine."""

    def __init__(
        self, name: str, directory: Path, environment: dict[str, str] | None = None, *, netns: str = ""
    ) -> None:
        self.name = name
        self.netns = netns
        self.data = directory / "data"
        self.kubeconfig = directory / "kubeconfig"
        self.environment = os.environ | (environment or {})

    def sampan(self, command: str, timeout: float = 120) -> str:
        """One `./sampan COMMAND` for this cluster; its output. AssertionError with its words when it fails."""
        done = self.run(command, timeout)
        assert done.returncode == 0, f"sampan {command}: {done.stderr}{done.stdout}"
        return done.stdout

    def run(self, command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        head, *tail = shlex.split(command)
        verb = [head, tail.pop(0)] if head in ("node", "image", "token") else [head]
        which = [f"--name={self.name}", f"--data-dir={self.data}", f"--kubeconfig={self.kubeconfig}"]
        return subprocess.run(
            [*within(self.netns), str(ROOT / "sampan"), *verb, *which, *tail],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout * SLOW,
        )

    def up(self, *flags: str) -> str:
        return self.sampan(f"up --timeout={60 * SLOW:g} {' '.join(flags)}")

    def kubectl(self, namespace: str = "default") -> Kubectl:
        return Kubectl(self.kubeconfig, namespace, netns=self.netns)

    def processes(self, of: str) -> list[int]:
        """Pids of this cluster's own processes whose command line has the word `of`, e.g. sampan.cluster.agent."""
        return [pid for pid, line in command_lines() if str(self.data) in line and of in line]

    def complaints(self) -> str:
        """Tracebacks in the logs of the cluster's processes."""
        found = []
        for path in sorted((self.data / "logs").glob("*.log")):
            text = path.read_text(errors="replace")
            for match in re.finditer(r"^.*Traceback[\s\S]{0,3000}", text, re.M):
                found.append(f"{path.name}: {match.group()}")
                break
        return "\n".join(found)


def command_lines() -> list[tuple[int, str]]:
    """(pid, command line) of every process of this machine that has one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended
        if line:
            found.append((int(path.parent.name), line))
    return found


class Traces:
    """What a cluster has on this machine outside its processes' memory. All empty before `up` and after `down`."""

    def __init__(self, cluster: Cluster, run: Path = Path("/run/sampan")) -> None:
        self.cluster, self.run = cluster, run / cluster.name

    def found(self) -> dict[str, list[str]]:
        cluster, data = self.cluster, str(self.cluster.data)
        link, table = fabric.host_link(cluster.name), fabric.host_table(cluster.name)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        routes = "".join(
            subprocess.run(
                ["ip", version, "route", "show", "table", "all"], capture_output=True, text=True
            ).stdout
            for version in ("-4", "-6")
        )
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
        groups = [
            str(p)
            for at in ("", "*/")  # version 2, version 1
            for p in Path("/sys/fs/cgroup").glob(f"{at}sampan/{cluster.name}")
        ]
        files = [p for p in (self.cluster.data, self.run, self.cluster.kubeconfig) if p.exists()]
        mine = (data, str(self.run))
        found = {
            "processes": [f"{pid} {line[:200]}" for pid, line in command_lines() if data in line],
            "mounts": [line for line in mounts if any(path in line for path in mine)],
            "interfaces": [name for name in os.listdir("/sys/class/net") if name == link],
            "routes": [line for line in routes.splitlines() if link in line],
            "nft tables": [line for line in tables.splitlines() if table in line],
            "cgroups": groups,
            "files": [str(path) for path in files],
        }
        return {kind: traces for kind, traces in found.items() if traces}
