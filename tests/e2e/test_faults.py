"""kill -9 at any moment: what was acknowledged is there, what runs goes on, and is taken over again."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from harness import FAST_FAILURE, Cluster, Kubectl, Traces, command_lines, deployment, eventually, server


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def pid_of_node(cluster: Cluster, node: str, part: str) -> int:
    """The pid of a node's agent, or of its zygote (the process containers are forked from)."""
    lines = command_lines()
    agents = [
        pid for pid, line in lines if line.strip().endswith(f"sampan.cluster.agent {cluster.data} {node}")
    ]
    assert len(agents) == 1, f"agents of {node}: {agents}"
    if part == "agent":
        return agents[0]
    init = _parent(agents[0])
    zygotes = [pid for pid, _ in lines if _parent(pid) == init and _status(pid)["Name"] == "sampan-zygote"]
    assert len(zygotes) == 1, f"zygotes of {node}: {zygotes}"
    return zygotes[0]


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def _parent(pid: int) -> int:
    try:
        return int(_status(pid)["PPid"])
    except (OSError, KeyError):
        return 0


def marked(mark: str) -> int:
    """The pid, seen from this machine, of the one process with `mark` on its command line, which a shell may start late."""

    def look() -> int:
        found = [pid for pid, line in command_lines() if line.startswith(f"sleep {mark}")]
        assert len(found) == 1, found
        return found[0]

    return eventually(look, mark)


def sleeping(name: str, mark: str, node: str = "node-1") -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "localhost/host", "command": ["sleep", mark]}],
        },
    }


def test_control_plane_killed(kubectl: Kubectl, cluster: Cluster) -> None:
    """While objects are made one after the other: every one that was acknowledged is there afterwards."""
    acknowledged: list[str] = []
    go = threading.Event()

    def write() -> None:
        for number in range(60):
            if kubectl.run(f"create configmap note-{number}").returncode == 0:
                acknowledged.append(f"note-{number}")
            if number == 8:
                go.set()

    writer = threading.Thread(target=write)
    writer.start()
    go.wait(60)
    (before,) = cluster.processes("sampan.cluster.control_plane")
    kill(before)
    writer.join()
    eventually(lambda: kubectl.run("get --raw /readyz").stdout == "ok")
    (after,) = cluster.processes("sampan.cluster.control_plane")
    assert after != before
    there = set(kubectl("get configmaps -o name").replace("configmap/", "").split())
    assert len(acknowledged) > 20 and set(acknowledged) <= there


def test_controllers_go_on_after_a_kill(kubectl: Kubectl, cluster: Cluster) -> None:
    """What was begun before is finished after; Services answer all the time."""
    kubectl.apply(deployment("web", replicas=2))
    kubectl("rollout status deployment/web --timeout=60s")
    kubectl("expose deployment web --port=80 --target-port=8080")
    address = kubectl("get service web -o jsonpath={.spec.clusterIP}")
    ask = lambda: urllib.request.urlopen(f"http://{address}", timeout=5).status == 200  # noqa: E731
    eventually(ask)
    pids = {
        p["metadata"]["uid"]: p["status"]["containerStatuses"][0]["containerID"]
        for p in kubectl.items("pods -l app=web")
    }
    kubectl("scale deployment web --replicas=4")
    kill(cluster.processes("sampan.cluster.control_plane")[0])
    for _ in range(20):
        assert ask()
    kubectl("rollout status deployment/web --timeout=60s")
    now = {
        p["metadata"]["uid"]: p["status"]["containerStatuses"][0]["containerID"]
        for p in kubectl.items("pods -l app=web")
    }
    assert len(now) == 4 and pids.items() <= now.items()


@pytest.mark.parametrize("part", ["agent", "zygote"])
def test_part_of_a_node_killed(kubectl: Kubectl, cluster: Cluster, part: str) -> None:
    """Containers keep their pids; logs, exec, probes and deletion work again, and new pods start."""
    mark = f"31{os.getpid()}.{len(part)}"
    kubectl.apply(sleeping("steady", mark))
    kubectl.wait("pod/steady")
    pid = marked(mark)
    victim = pid_of_node(cluster, "node-1", part)
    kill(victim)
    eventually(lambda: pid_of_node(cluster, "node-1", part) != victim, f"another {part}")
    eventually(lambda: kubectl.run("exec steady -- hostname").stdout == "steady\n", "exec")
    assert marked(mark) == pid
    assert kubectl.get("pod steady")["status"]["containerStatuses"][0]["restartCount"] == 0
    kubectl.run_pod("after", {"nodeName": "node-1", "containers": [server()]})
    eventually(lambda: "listening" in kubectl("logs after"))
    kubectl("delete pod steady")
    eventually(
        lambda: not [line for _, line in command_lines() if line.startswith(f"sleep {mark}")], "its end"
    )


def test_an_end_nobody_saw(kubectl: Kubectl, cluster: Cluster) -> None:
    """A container that ends while its agent is away has its exit code in its status afterwards."""
    mark = f"32{os.getpid()}"
    spec = sleeping("brief", mark)
    spec["spec"]["restartPolicy"] = "Never"
    spec["spec"]["containers"][0]["command"] = ["sh", "-c", f"sleep {mark}; exit 42"]
    kubectl.apply(spec)
    kubectl.wait("pod/brief")
    process = marked(mark)
    kill(pid_of_node(cluster, "node-1", "agent"))
    kill(process)
    ended = kubectl.phase("brief", "Failed")
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 42


def test_a_container_killed(kubectl: Kubectl) -> None:
    mark = f"33{os.getpid()}"
    kubectl.apply(sleeping("victim", mark))
    kubectl.wait("pod/victim")
    kill(marked(mark))
    eventually(lambda: kubectl.get("pod victim")["status"]["containerStatuses"][0]["restartCount"] == 1)
    last = kubectl.get("pod victim")["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "Error")


# The whole cluster at once: another one, so that the other tests keep theirs


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(f"e2e-{os.getpid()}-b", tmp_path_factory.mktemp("other"))
    traces = Traces(cluster)
    try:
        cluster.up("--nodes=1", *FAST_FAILURE)
        yield cluster
    finally:
        cluster.sampan("down")
    assert traces.found() == {}, "left behind by `sampan down`"


@pytest.fixture(scope="module")
def shop(other: Cluster) -> Kubectl:
    kubectl = other.kubectl()
    kubectl.apply(deployment("web", replicas=2))
    kubectl("create configmap note --from-literal=a=1")
    kubectl("rollout status deployment/web --timeout=60s")
    return kubectl


def test_repeated_up_is_harmless(other: Cluster, shop: Kubectl) -> None:
    before = sorted(pid for pid, line in command_lines() if str(other.data) in line)
    pods = shop("get pods -o jsonpath={.items[*].metadata.uid}")
    said = other.up()
    assert "is up" in said
    assert sorted(pid for pid, line in command_lines() if str(other.data) in line) == before
    assert shop("get pods -o jsonpath={.items[*].metadata.uid}") == pods


def test_up_adds_nodes(other: Cluster, shop: Kubectl) -> None:
    other.up("--nodes=2")
    assert shop("get nodes -o name").split() == ["node/node-1", "node/node-2"]


def test_stop_and_up(other: Cluster, shop: Kubectl) -> None:
    """The same objects and the same pods, whose containers are started anew."""
    uids = sorted(shop("get pods -o jsonpath={.items[*].metadata.uid}").split())
    server_url = shop("config view --minify -o jsonpath={.clusters[0].cluster.server}")
    other.sampan("stop")
    assert not [line for _, line in command_lines() if str(other.data) in line]
    assert "stopped" in other.run("status").stdout
    assert "refused" in shop.refused("get pods")
    other.up()
    assert shop("config view --minify -o jsonpath={.clusters[0].cluster.server}") == server_url
    assert shop("get configmap note -o jsonpath={.data.a}") == "1"
    eventually(lambda: shop.get("deployment web")["status"].get("readyReplicas") == 2)
    shop("wait --for=condition=Ready pods --all --timeout=60s")
    assert sorted(shop("get pods -o jsonpath={.items[*].metadata.uid}").split()) == uids
    eventually(lambda: "listening" in shop("logs deployment/web"))


def test_supervisor_killed(other: Cluster, shop: Kubectl) -> None:
    """With it everything ends, as if the machine had lost its power; the next up brings all back."""
    uids = sorted(shop("get pods -o jsonpath={.items[*].metadata.uid}").split())
    (supervisor,) = [pid for pid in other.processes("supervisor.main()") if _parent(pid) == 1]
    kill(supervisor)
    eventually(lambda: not [line for _, line in command_lines() if str(other.data) in line], "the end of all")
    other.up()
    eventually(lambda: shop.get("deployment web")["status"].get("readyReplicas") == 2)
    shop("wait --for=condition=Ready pods --all --timeout=60s")
    assert sorted(shop("get pods -o jsonpath={.items[*].metadata.uid}").split()) == uids


def test_down_after_a_crash(other: Cluster, shop: Kubectl) -> None:
    """Also what a crash left behind is taken away (the fixture looks); `up` then makes a new cluster."""
    (supervisor,) = [pid for pid in other.processes("supervisor.main()") if _parent(pid) == 1]
    kill(supervisor)
    other.sampan("down")
    assert "there is no cluster" in other.sampan("down")
    other.up("--nodes=1")
    assert "not found" in shop.refused("get deployment web")
