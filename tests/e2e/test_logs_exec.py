"""Looking into a pod: logs, exec, attach, cp, port-forward; streams, exit codes and terminals as a person meets them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness import PATIENCE, Kubectl, deployment, eventually, pod, server, shell

FORWARDING = r"Forwarding from 127.0.0.1:(\d+) ->"
COUNT = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"


# Logs


def test_logs_have_both_streams_also_after_the_end(kubectl: Kubectl) -> None:
    """Both streams, also of a container that ended."""
    kubectl.apply(
        pod(
            "talk",
            {
                "restartPolicy": "Never",
                "containers": [
                    shell("echo err >&2; until [ -e /go ]; do sleep 0.05; done; echo out; echo end")
                ],
            },
        )
    )
    eventually(lambda: kubectl("logs talk") == "err\n")
    kubectl.run("exec talk -- touch /go")  # the end of the container may come before that of touch
    kubectl.phase("talk", "Succeeded")
    assert kubectl("logs talk").split() == ["err", "out", "end"]
    assert kubectl("logs talk --tail=1") == "end\n"
    assert kubectl("logs pod/talk --limit-bytes=3") == "err"
    assert "not found" in kubectl.refused("logs nobody")


def test_logs_follow(kubectl: Kubectl) -> None:
    """-f shows lines as they come, and ends with the container."""
    kubectl.apply(
        pod(
            "story",
            {
                "restartPolicy": "Never",
                "containers": [shell("echo one; until [ -e /go ]; do sleep 0.05; done; echo two")],
            },
        )
    )
    kubectl.wait("pod/story")
    with kubectl.stream("logs -f story") as log:
        log.until("^one$")
        kubectl.run("exec story -- touch /go")  # the container's end may take touch along
        log.until("^two$")
        assert log.wait() == 0
    assert log.lines == ["one", "two"]


def test_logs_tail_since_timestamps(kubectl: Kubectl) -> None:
    kubectl.run_pod("twenty", "for i in $(seq 20); do echo line $i; sleep 0.1; done; sleep infinity")
    eventually(lambda: "line 20\n" in kubectl("logs twenty"))
    lines = [f"line {number}" for number in range(1, 21)]
    assert kubectl("logs twenty --tail=5").splitlines() == lines[-5:]
    assert kubectl("logs twenty --since=1h").splitlines() == lines
    stamped = kubectl("logs twenty --timestamps").splitlines()
    for line in stamped:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z line \d+", line)
    last = stamped[-1][: len("2026-01-01T00:00:00")]  # of less than a second nobody can ask
    late = [line.partition(" ")[2] for line in stamped if line >= last]
    assert kubectl(f"logs twenty --since-time={last}Z").splitlines() == late
    hence = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert kubectl(f"logs twenty --since-time={hence}") == ""


def test_logs_previous(kubectl: Kubectl) -> None:
    """What the container wrote before it was started anew."""
    once = "if [ -e /v/again ]; then echo second; exec sleep infinity; fi; touch /v/again; echo first; exit 1"
    kubectl.apply(
        pod(
            "reborn",
            {
                "containers": [shell(once, volumeMounts=[{"name": "v", "mountPath": "/v"}])],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        )
    )
    eventually(lambda: kubectl.run("logs reborn").stdout == "second\n", "the second life")
    assert kubectl("logs reborn --previous") == "first\n"
    kubectl.run_pod("fresh")
    assert 'previous terminated container "main" in pod "fresh" not found' in kubectl.refused("logs fresh -p")


def test_logs_of_several_containers(kubectl: Kubectl) -> None:
    kubectl.run_pod(
        "pair",
        {
            "containers": [
                shell("echo from a; exec sleep infinity", name="a"),
                shell("echo from b; exec sleep infinity", name="b"),
            ]
        },
        labels={"app": "pair"},
    )
    for name in ("a", "b"):
        eventually(lambda name=name: kubectl(f"logs pair -c {name}") == f"from {name}\n", name)
    assert 'Defaulted container "a" out of: a, b' in kubectl.run("logs pair").stderr
    assert sorted(kubectl("logs pair --all-containers").splitlines()) == ["from a", "from b"]
    prefixed = kubectl("logs -l app=pair --all-containers --prefix").splitlines()
    assert sorted(prefixed) == ["[pod/pair/a] from a", "[pod/pair/b] from b"]
    assert "container x is not valid for pod pair" in kubectl.refused("logs pair -c x")


def test_logs_of_a_deployment(kubectl: Kubectl) -> None:
    kubectl.apply(deployment("web", replicas=2))
    kubectl("rollout status deployment/web --timeout=60s")
    eventually(lambda: kubectl("logs -l app=web --prefix").count("listening") == 2)
    assert kubectl("logs deployment/web").endswith("listening\n")


def test_logs_before_the_start(kubectl: Kubectl) -> None:
    kubectl("run lost --image=localhost/nobody/made-this:v1")
    said = eventually(
        lambda: (r := kubectl.run("logs lost")).returncode and "waiting to start" in r.stderr and r.stderr
    )
    assert 'container "lost" in pod "lost" is waiting to start' in said


# Exec


def test_exec_keeps_streams_apart_and_hands_the_exit_code_on(kubectl: Kubectl) -> None:
    """Both streams apart, the exit code handed on."""
    kubectl.run_pod("shell")
    done = kubectl.run("exec shell -- sh -c 'echo out; echo err >&2; exit 7'")
    assert (done.stdout, done.returncode) == ("out\n", 7)
    assert done.stderr.startswith("err\n") and "exit code 7" in done.stderr
    assert kubectl("exec shell -- hostname") == "shell\n"
    missing = kubectl.run("exec shell -- no-such-program")
    assert missing.returncode != 0 and "no-such-program" in missing.stderr
    assert "not found" in kubectl.refused("exec nobody -- true")


def test_exec_where_nothing_runs(kubectl: Kubectl) -> None:
    kubectl("run waits --image=localhost/nobody/made-this:v1")
    eventually(lambda: "ErrImageNeverPull" in (w := kubectl("get pod waits")) or "ImagePull" in w, "no image")
    said = kubectl.refused("exec waits -- true")
    assert 'unable to upgrade connection: container not found ("waits")' in said


def test_exec_stdin(kubectl: Kubectl) -> None:
    """-i hands input on, its end too."""
    kubectl.run_pod("shell")
    assert kubectl("exec -i shell -- cat", input="a\nb\n") == "a\nb\n"
    assert kubectl("exec -i shell -- wc -c", input="x" * 300_000).strip() == "300000"
    assert kubectl("exec shell -- seq 200000").splitlines() == [str(n) for n in range(1, 200_001)]


def test_exec_terminal(kubectl: Kubectl) -> None:
    """-it gives a real terminal of this window's size, which follows it; ^C reaches the program, exit the exit code."""
    kubectl.run_pod("shell")
    master, slave = pty.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "111"], stdin=slave, check=True)
    process = subprocess.Popen(
        ["kubectl", "-n", kubectl.namespace, "exec", "-it", "shell", "--", "sh"],
        env=kubectl.environment | {"TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + PATIENCE
        while text not in seen:
            ready, _, _ = select.select([master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} in {seen!r}"
            seen += os.read(master, 4096).decode()

    def type_(line: str) -> None:
        nonlocal seen
        seen = ""
        os.write(master, line.encode())

    until("#")
    eventually(
        lambda: (type_("stty size\n"), until("\r\n"), until("#"), "33 111" in seen)[-1], "the window's size"
    )
    type_("tty && echo yes$((1+1))\n")
    until("yes2")
    subprocess.run(["stty", "rows", "44", "cols", "99"], stdin=master, check=True)
    eventually(lambda: (type_("stty size\n"), until("\r\n"), until("#"), "44 99" in seen)[-1], "the new size")
    type_("sh -c 'echo in$((1+1)); exec sleep 1000'\n")
    until("in2")  # ^C reaches the shell as long as its child has not taken the terminal
    type_("\x03")
    until("#")
    type_("exit 5\n")
    assert process.wait(PATIENCE) == 5
    os.close(master)


# Attach


def test_attach_shows_what_is_written_from_now_on(kubectl: Kubectl) -> None:
    """What a running container writes from now on; with -i also what it reads."""
    kubectl.run_pod("counter", COUNT)
    with kubectl.stream("attach counter") as stream:
        stream.until(r"^line \d+$")
    kubectl.run_pod("echo", {"containers": [shell("while read word; do echo got $word; done", stdin=True)]})
    process = subprocess.Popen(
        ["kubectl", "-n", kubectl.namespace, "attach", "-i", "echo"],
        env=kubectl.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == "got hello\n"
    process.kill()
    process.wait()


def test_run_interactively(kubectl: Kubectl) -> None:
    """kubectl run -i --rm: a pod for one command."""
    out = kubectl(
        "run once --image=localhost/host -i --rm --restart=Never --quiet -- cat", input="hi there\n"
    )
    assert "hi there\n" in out
    kubectl.wait("pod/once", "delete")


def test_what_it_says_at_once_is_seen(kubectl: Kubectl) -> None:
    """The container is faster than kubectl: it speaks, or even ends, before anybody is attached."""
    for number in range(5):
        name = f"quick-{number}"
        out = kubectl(f"run {name} --image=localhost/host -i --rm --restart=Never --quiet -- echo here")
        assert "here\n" in out
    slow = "sh -c 'echo prompt; read answer; echo \"got $answer\"'"
    out = kubectl(f"run slow --image=localhost/host -i --rm --restart=Never --quiet -- {slow}", input="it\n")
    assert "prompt\n" in out and "got it\n" in out


# Port-forward, cp, debug


@pytest.mark.parametrize("target", ["pod/web", "deployment/web", "service/web"])
def test_port_forward(kubectl: Kubectl, target: str) -> None:
    if target == "pod/web":
        kubectl.run_pod("web", {"containers": [server()]})
    else:
        kubectl.apply(deployment("web", replicas=1))
        kubectl("rollout status deployment/web --timeout=60s")
        kubectl("expose deployment web --port=80 --target-port=8080")
    remote = 80 if target == "service/web" else 8080
    with kubectl.stream(f"port-forward {target} :{remote}") as forward:
        port = forward.until(FORWARDING)[1]
        for _ in range(5):
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10).read().decode()
            assert answer.startswith("web")


def test_port_forward_to_a_closed_port(kubectl: Kubectl) -> None:
    kubectl.run_pod("quiet")
    with kubectl.stream("port-forward pod/quiet :9") as forward:
        port = forward.until(FORWARDING)[1]
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10)
        forward.until("(?i)refused|error")


def test_cp_copies_both_ways_byte_for_byte(kubectl: Kubectl, tmp_path: Path) -> None:
    """Files and directories, both ways, byte for byte."""
    kubectl.run_pod("box")
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "note").write_text("hello")
    (tmp_path / "tree" / "blob").write_bytes(os.urandom(500_000))
    kubectl(f"cp {tmp_path}/tree box:/tmp/tree")
    assert kubectl("exec box -- cat /tmp/tree/below/note") == "hello"
    kubectl(f"cp box:/tmp/tree {tmp_path}/back")
    assert (tmp_path / "back" / "blob").read_bytes() == (tmp_path / "tree" / "blob").read_bytes()
    assert (tmp_path / "back" / "below" / "note").read_text() == "hello"


def test_debug_puts_a_container_beside_the_others(kubectl: Kubectl) -> None:
    """An ephemeral container beside the others, in their network."""
    kubectl.run_pod("web", {"containers": [server()]})
    kubectl("debug web --image=localhost/host --container=helper -- curl -s --retry 3 localhost:8080")
    eventually(lambda: kubectl.run("logs web -c helper").stdout == "web\n", "the helper's output")


def test_proxies_reach_pods_and_services(kubectl: Kubectl) -> None:
    """kubectl proxy, and the API server's own proxy into a pod and a Service."""
    kubectl.run_pod("web", {"containers": [server()]}, labels={"app": "web"})
    kubectl("expose pod web --port=80 --target-port=8080")
    inside = f"/api/v1/namespaces/{kubectl.namespace}"
    assert kubectl(f"get --raw {inside}/pods/web:8080/proxy/") == "web\n"
    eventually(
        lambda: kubectl.run(f"get --raw {inside}/services/web:80/proxy/").stdout == "web\n",
        "through the Service",
    )
    with kubectl.stream("proxy --port=0") as proxy:
        port = proxy.until(r"127.0.0.1:(\d+)").group(1)
        assert b'"gitVersion"' in urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=5).read()


def test_debug_sees_the_processes_of_its_target(kubectl: Kubectl) -> None:
    sleeps = [shell("exec sleep 23456", name="app"), shell("exec sleep 34567", name="other")]
    kubectl.run_pod("two", {"containers": sleeps})
    kubectl(
        "debug two --image=localhost/host --target=app --container=helper -- sh -c 'ps ax; exec sleep 1000'"
    )
    said = eventually(lambda: kubectl.run("logs two -c helper").stdout)
    assert "sleep 23456" in said and "sleep 34567" not in said
    eventually(lambda: "sleep 23456" in kubectl("exec two -c helper -- ps ax"))
    refused = kubectl.run("debug two --image=localhost/host --target=gone --container=late -- true")
    assert "targetContainerName" in refused.stderr
