"""An ordinary user has a cluster too: with a range of subordinate ids, and with none but his own id."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import ROOT, SLOW, Cluster, Kubectl, command_lines, deployment, eventually, pod, server, shell

USER = f"sampan-e2e-{os.getpid()}"  # his own in each run: two of them do not disturb each other


@dataclass
class Person:
    """An ordinary user with a checkout of sampan that was installed for him."""

    uid: int
    gid: int
    home: Path

    @property
    def checkout(self) -> Path:
        return self.home / "sampan"


class OwnCluster(Cluster):
    """A cluster of a person who is not root."""

    def __init__(self, person: Person, name: str, path: str, group: Path | None = None) -> None:
        """`group`: a control group that his session is in."""
        super().__init__(name, person.home / name)
        self.person = person
        join = f"echo $$ > {group}/sampan-session/cgroup.procs || echo $$ > {group}/cgroup.procs"
        self.inside = ["sh", "-c", f'{{ {join}; }} 2>/dev/null; exec "$@"', "sh"] if group else []
        self.environment = {"HOME": str(person.home), "PATH": path, "LANG": "C.UTF-8"}
        (person.home / name).mkdir()
        os.chown(person.home / name, person.uid, person.gid)

    def run(self, command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        verb, *flags = command.split()
        which = [f"--name={self.name}", f"--data-dir={self.data}", f"--kubeconfig={self.kubeconfig}"]
        who = [f"--reuid={self.person.uid}", f"--regid={self.person.gid}", "--clear-groups"]
        sampan = [str(self.person.checkout / "sampan"), verb, *which, *flags]
        return subprocess.run(
            [*self.inside, "setpriv", *who, *sampan],
            env=self.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout * SLOW,
        )


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """A user of his own for these tests, with a subordinate range, who is gone afterwards."""
    _forget_the_dead()
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", USER], check=True)
    entry = pwd.getpwnam(USER)
    home = Path(tempfile.mkdtemp(prefix="sampan-e2e-"))
    person = Person(entry.pw_uid, entry.pw_gid, home)
    try:
        if (
            USER not in Path("/etc/subuid").read_text()
        ):  # useradd gives no range to ids it counts as the system's
            first = 100_000 + 65_536 * (2_000 + entry.pw_uid % 10_000)
            span = f"{first}-{first + 65_535}"
            subprocess.run(["usermod", "--add-subuids", span, "--add-subgids", span, USER], check=True)
        _install(person)
        yield person
    finally:
        shutil.rmtree(home)
        subprocess.run(["userdel", USER], check=True, capture_output=True)


def _forget_the_dead() -> None:
    """Users of runs that were killed."""
    for entry in pwd.getpwall():
        run = re.fullmatch(r"sampan-e2e-(\d+)", entry.pw_name)
        if run and not os.path.exists(f"/proc/{run[1]}"):
            subprocess.run(["userdel", entry.pw_name], capture_output=True)


def _install(person: Person) -> None:
    """A copy of the checkout; its .venv borrows the packages of the one these tests run in."""
    checkout = person.checkout
    checkout.mkdir()
    for name in ("sampan", "pyproject.toml"):
        shutil.copy2(ROOT / name, checkout / name)
    for name in ("src", "examples", "scripts"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([_python(person), "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    (site,) = (checkout / ".venv").glob("lib/python3*/site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join([str(checkout / "src"), *packages]) + "\n")
    (checkout / ".venv" / ".sampan").touch()
    os.chmod(person.home, 0o755)
    for path in (person.home, *person.home.rglob("*")):
        os.chown(path, person.uid, person.gid, follow_symlinks=False)


def _python(person: Person) -> str:
    """A Python of this version that the person may run (root's own may lie in /root)."""
    names = (sys._base_executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}")  # type: ignore[attr-defined]
    for name in names:
        try:
            subprocess.run([name, "-c", ""], user=person.uid, group=person.gid, extra_groups=[], check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return name
    pytest.fail("no Python of this version that an ordinary user may run")


def _path_without(person: Person, *missing: str) -> str:
    """A PATH with every program of this machine except some."""
    directory = person.home / "bin"
    directory.mkdir()
    for place in reversed(os.environ["PATH"].split(":")):
        for program in Path(place).glob("*") if os.access(place, os.R_OK) else ():
            link = directory / program.name
            if program.name not in missing and not place.startswith("/root"):
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return str(directory)


@pytest.fixture(scope="module", params=["range", "single"])
def own(request: pytest.FixtureRequest, person: Person) -> Iterator[OwnCluster]:
    """With newuidmap and a range of ids; and without newuidmap, where the user's own id must do."""
    path = os.environ["PATH"]
    if request.param == "single":
        path = _path_without(person, "newuidmap", "newgidmap")
    elif shutil.which("newuidmap") is None:
        pytest.fail("newuidmap is not installed (package uidmap; scripts/test does it)")
    cluster = OwnCluster(person, request.param, path)
    try:
        cluster.up("--nodes=2")
        yield cluster
        complaints = cluster.complaints()
    finally:
        cluster.sampan("down")
    assert not cluster.data.exists() and not cluster.kubeconfig.exists()
    assert [line for pid, line in command_lines() if _owner(pid) == person.uid] == []
    assert not Path(f"/tmp/sampan-{person.uid}").exists()
    assert complaints == ""


def _owner(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


@pytest.fixture(scope="module")
def kubectl(own: OwnCluster) -> Kubectl:
    return own.kubectl()


def test_nodes_are_ready_and_nothing_runs_as_root(kubectl: Kubectl, own: OwnCluster) -> None:
    rows = kubectl("get nodes --no-headers").splitlines()
    assert [row.split()[:2] for row in rows] == [["node-1", "Ready"], ["node-2", "Ready"]]
    owners = {_owner(pid) for pid, line in command_lines() if str(own.data) in line}
    assert 0 not in owners, "nothing of it runs as root"


def test_doctor_says_what_an_ordinary_user_lacks(own: OwnCluster) -> None:
    """It says what the user lacks, and what that costs."""
    said = own.sampan("doctor")
    assert "an ordinary user" in said
    assert ("containers have the single user 0" in said) == (own.name == "single")


def test_a_node_says_what_it_lacks(kubectl: Kubectl, own: OwnCluster) -> None:
    """In the words of `doctor`."""
    said = own.sampan("doctor")
    lacks = {
        c["type"]: c for c in kubectl.get("node/node-1")["status"]["conditions"] if c["status"] == "True"
    }
    assert lacks.pop("Ready")
    assert lacks.pop("NetworkForwarded")["message"] in said
    assert lacks.pop("ContainersUnlimited")["reason"] == "NoControlGroups"
    if own.name == "single":
        assert lacks.pop("ContainersSingleUser")["message"] in said
    assert lacks == {}


def test_a_pod(kubectl: Kubectl) -> None:
    kubectl.run_pod("talk", "echo hello; exec sleep infinity")
    assert eventually(lambda: kubectl("logs talk")) == "hello\n"
    assert kubectl("exec talk -- sh -c 'id -u; hostname'") == "0\ntalk\n"
    assert kubectl.run("exec talk -- sh -c 'exit 3'").returncode == 3


def test_volumes_and_environment(kubectl: Kubectl) -> None:
    kubectl("create configmap settings --from-literal=colour=red")
    kubectl.apply(
        pod(
            "reader",
            {
                "restartPolicy": "Never",
                "containers": [
                    shell(
                        "cat /s/colour; echo; echo $COLOUR; echo kept >/e/file && cat /e/file",
                        env=[
                            {
                                "name": "COLOUR",
                                "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}},
                            }
                        ],
                        volumeMounts=[{"name": "s", "mountPath": "/s"}, {"name": "e", "mountPath": "/e"}],
                    )
                ],
                "volumes": [{"name": "s", "configMap": {"name": "settings"}}, {"name": "e", "emptyDir": {}}],
            },
        )
    )
    kubectl.phase("reader", "Succeeded")
    assert kubectl("logs reader").split() == ["red", "red", "kept"]


def test_a_service(kubectl: Kubectl, own: OwnCluster) -> None:
    """From pods by name; from this machine through its node port on 127.0.0.1."""
    kubectl.apply(deployment("web", replicas=2))
    kubectl("rollout status deployment/web --timeout=60s")
    kubectl("expose deployment web --port=80 --target-port=8080 --type=NodePort")
    kubectl.run_pod("client")
    eventually(lambda: kubectl("exec client -- curl -sS --max-time 5 http://web").startswith("web-"))
    port = kubectl("get service web -o jsonpath={.spec.ports[0].nodePort}")

    def fetch() -> str:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).read().decode()
        except OSError as error:
            raise AssertionError(str(error)) from None

    assert eventually(fetch).startswith("web-")
    assert len({eventually(fetch) for _ in range(30)}) == 2
    assert own.sampan(f"service web -n {kubectl.namespace} --url") == f"http://127.0.0.1:{port}\n"


def test_port_forward(kubectl: Kubectl) -> None:
    with kubectl.stream("port-forward deployment/web :8080") as forward:
        port = forward.until(r"127.0.0.1:(\d+) ->").group(1)
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).status == 200


def test_another_user(kubectl: Kubectl, own: OwnCluster) -> None:
    """The range of ids lets a container be another user; a single id says that it cannot."""
    kubectl.apply(
        pod(
            "other",
            {"restartPolicy": "Never", "containers": [shell("id -u", securityContext={"runAsUser": 1234})]},
        )
    )
    if own.name == "range":
        kubectl.phase("other", "Succeeded")
        assert kubectl("logs other") == "1234\n"
    else:
        eventually(
            lambda: "user 1234:0 does not exist here" in kubectl.events_of("other"), "an event that says why"
        )


def test_stop_and_up(kubectl: Kubectl, own: OwnCluster) -> None:
    uid = kubectl("get pod talk -o jsonpath={.metadata.uid}")
    own.sampan("stop")
    own.up()
    kubectl.wait("pod/talk")
    assert kubectl("get pod talk -o jsonpath={.metadata.uid}") == uid


def test_two_ip_versions_through_a_tunnel(person: Person) -> None:
    cluster = OwnCluster(person, "dual", os.environ["PATH"])
    try:
        cluster.up("--nodes=2 --ip-family=dual --pod-network=vxlan")
        kubectl = cluster.kubectl()
        serve = "mkdir /w && cd /w && echo web > index.html && exec python3 -m http.server 8080 --bind ::"
        spec = {"nodeName": "node-1", "containers": [shell(serve)]}
        kubectl.apply(pod("web", spec, labels={"app": "web"}))
        kubectl("create service nodeport web --tcp=80:8080")
        kubectl("""patch service web -p '{"spec":{"ipFamilyPolicy":"RequireDualStack"}}'""")
        kubectl.run_pod("client", {"nodeName": "node-2", "containers": [shell("sleep infinity")]})
        kubectl.wait("pod/web")
        web = kubectl.get("pod/web")["status"]["podIPs"]
        for address, port in [
            *((entry["ip"], 8080) for entry in web),
            *((ip, 80) for ip in kubectl.get("service/web")["spec"]["clusterIPs"]),
        ]:
            url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
            ask = f"exec client -- curl -sS --max-time 5 -g {url}"
            assert eventually(lambda ask=ask: kubectl(ask)).startswith("web"), url
        url = cluster.sampan("service web --url").strip()
        assert eventually(lambda: urllib.request.urlopen(url, timeout=5).read().decode()).startswith("web")
    finally:
        cluster.run("down")


@pytest.fixture
def session() -> Iterator[Path]:
    """A control group like those systemd delegates to a user's session."""
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").exists():
        pytest.skip("version 1 of control groups is never delegated")
    (root / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    group = root / f"{USER}-session"
    group.mkdir()
    entry = pwd.getpwnam(USER)
    for path in (group, *(group / f"cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    yield group
    for path in (*sorted(group.rglob("*"), reverse=True), group):
        if path.is_dir():
            path.rmdir()


def test_limits_hold_where_control_groups_are_delegated(person: Person, session: Path) -> None:
    cluster = OwnCluster(person, "delegated", os.environ["PATH"], session)
    try:
        cluster.up("--nodes=1")
        kubectl = cluster.kubectl()
        assert "v2 with cpu, memory and pids" in cluster.sampan("doctor")
        kinds = [c["type"] for c in kubectl.get("node/node-1")["status"]["conditions"]]
        assert "ContainersUnlimited" not in kinds and "Ready" in kinds
        eater = shell("exec python3 -c 'b = bytearray(200_000_000); print(len(b))'")
        eater["resources"] = {"limits": {"memory": "64Mi", "cpu": "500m"}}
        kubectl.apply(pod("eater", {"restartPolicy": "Never", "containers": [eater]}))
        state = kubectl.phase("eater", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)
        bounded = shell("sleep infinity", resources={"limits": {"memory": "64Mi", "cpu": "500m"}})
        kubectl.run_pod("bounded", {"containers": [bounded]})
        uid = kubectl.get("pod/bounded")["metadata"]["uid"]
        (group,) = session.glob(f"sampan/delegated/node-1/pod{uid}")
        assert (group / "memory.max").read_text() == f"{64 << 20}\n"
        assert (group / "cpu.max").read_text() == "50000 100000\n"
    finally:
        cluster.run("down")
    assert not (session / "sampan").exists(), "no group is left"


def test_ipv6_alone(person: Person) -> None:
    """Pods, names, Services and this machine's way to them, in a cluster that has no IPv4 inside."""
    cluster = OwnCluster(person, "six", os.environ["PATH"])
    try:
        cluster.up("--nodes=2", "--ip-family=ipv6")
        kubectl = cluster.kubectl()
        spread = {"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
        spread["labelSelector"] = {"matchLabels": {"app": "web"}}
        listening = server()
        listening["command"][-1] = listening["command"][-1].replace(
            "server = Server", "Server.address_family = 10\nserver = Server"
        )
        kubectl.apply(deployment("web", listening, replicas=2, pod={"topologySpreadConstraints": [spread]}))
        kubectl("rollout status deployment/web --timeout=60s")
        kubectl("expose deployment web --port=80 --target-port=8080 --type=NodePort")
        kubectl.run_pod("client")
        for address in kubectl("get pods -l app=web -o jsonpath={.items[*].status.podIP}").split():
            assert ":" in address
            assert kubectl(f"exec client -- curl -gsS --max-time 5 http://[{address}]:8080").startswith(
                "web-"
            )
        ask = "exec client -- curl -sS --max-time 5 http://web"
        eventually(lambda: kubectl(ask).startswith("web-"), "the Service by its name")
        port = kubectl("get service web -o jsonpath={.spec.ports[0].nodePort}")
        visit = f"http://127.0.0.1:{port}"
        eventually(lambda: urllib.request.urlopen(visit, timeout=5).read().startswith(b"web-"), "node port")
    finally:
        complaints = cluster.complaints()
        cluster.sampan("down")
    assert complaints == "" and not cluster.data.exists()
