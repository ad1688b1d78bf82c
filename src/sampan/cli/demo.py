"""`sampan demo`: a first Kubernetes course in one go, with the real kubectl on real pods, under steady load.

Each step says what it does, does it with kubectl, and checks that it happened. A client in the cluster asks the Service
all the time; the table at the end shows how many requests each step took and how many failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.base.errors import SampanError
from sampan.cli.show import Progress, table
from sampan.cluster import supervision
from sampan.cluster.down import remove
from sampan.cluster.paths import Paths
from sampan.cluster.up import Wishes, bring_up

MANIFEST = Path(__file__).with_name("web.yaml")  # of the package, so that an installed one has it, too
_CLIENT = """
import http.client, json, threading, time
done, failed, last, lock = 0, 0, "", threading.Lock()
def ask():
    global done, failed, last
    while True:
        try:
            connection = http.client.HTTPConnection("web", 80, timeout=5)
            connection.request("GET", "/")
            ok, why = connection.getresponse().status == 200, "status"
            connection.close()
        except Exception as error:
            ok, why = False, repr(error)
        with lock:
            done += 1
            if not ok:
                failed += 1
                last = why
        time.sleep(0.02)
for _ in range(4):
    threading.Thread(target=ask, daemon=True).start()
while True:
    time.sleep(0.2)
    with lock:
        print(json.dumps([done, failed, last]), flush=True)
"""


class Unmet(Exception):
    """A step did not do what it says."""


@dataclass(slots=True)
class Row:
    """A line of the final table."""

    step: str
    seconds: float
    requests: int
    failed: int
    verdict: str


class Course:
    """The steps, and the kubectl they are done with."""

    def __init__(self, paths: Paths, kubeconfig: str) -> None:
        self.paths = paths
        self.environment = os.environ | {"KUBECONFIG": kubeconfig}
        self.rows: list[Row] = []
        self.loaded = False

    def kubectl(
        self, *arguments: str, input: str | None = None, show: bool = True, check: bool = True
    ) -> str:
        """Run kubectl as a person would; its output. Raises Unmet when it fails and `check` is set."""
        if show:
            print("   $ kubectl", *(f"'{a}'" if " " in a else a for a in arguments), flush=True)
        done = subprocess.run(
            ["kubectl", *arguments], env=self.environment, input=input, capture_output=True, text=True
        )
        if show:
            for line in (done.stdout + done.stderr).splitlines()[:12]:
                print("    ", line)
        if check and done.returncode:
            raise Unmet(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json", show=False))

    def counts(self) -> tuple[int, int]:
        """(requests, failed) of the client so far."""
        if not self.loaded:
            return 0, 0
        lines = self.kubectl("logs", "client", "--tail=1", show=False).splitlines()
        done, failed, _ = json.loads(lines[-1]) if lines else (0, 0, "")
        return done, failed

    def step(self, title: str, action: Callable[[], None], *, may_fail: bool = False) -> None:
        """Do one step and note its row; a failed request counts against it unless `may_fail`."""
        print(f"\n{title}", flush=True)
        before, started = self.counts(), time.monotonic()
        verdict = "ok"
        try:
            action()
        except Unmet as error:
            verdict = f"FAILED: {error}"
            print(f"   {verdict}")
        after = self.counts()
        requests, failed = after[0] - before[0], after[1] - before[1]
        if failed and not may_fail:
            verdict = "FAILED: requests were lost"
        self.rows.append(Row(title, time.monotonic() - started, requests, failed, verdict))

    # The course

    def create(self) -> None:
        self.kubectl("apply", "-f", str(MANIFEST))
        self.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        self.expect_pods(3)

    def look(self) -> None:
        self.kubectl("get", "deployment,replicaset,pods", "-o", "wide")
        described = self.kubectl("describe", "deployment", "web", show=False)
        if "Replicas:" not in described or "ScalingReplicaSet" not in described:
            raise Unmet("describe does not show replicas and events")

    def logs(self) -> None:
        if "listening" not in self.kubectl("logs", "deployment/web"):
            raise Unmet("the application's first line is not in its log")

    def exec(self) -> None:
        if "web-" not in self.kubectl("exec", "deployment/web", "--", "hostname"):
            raise Unmet("exec did not run in the pod")

    def expose(self) -> None:
        self.kubectl("expose", "deployment/web", "--port=80", "--target-port=8080")
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client"},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": "node-1"},
                "containers": [
                    {"name": "client", "image": "localhost/host", "command": ["python3", "-c", _CLIENT]}
                ],
            },
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(pod), show=False)
        self.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=30s")
        self.loaded = True
        self.until(lambda: self.counts()[0] > 20, "the client's requests are answered")

    def scale(self) -> None:
        self.kubectl("scale", "deployment/web", "--replicas=5")
        self.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        self.expect_pods(5)

    def label(self) -> None:
        self.kubectl("label", "pods", "-l", "app=web", "tier=front")
        if len(self.get("pods", "-l", "tier in (front),app")["items"]) != 5:
            raise Unmet("the new label does not select the five pods")
        self.kubectl("get", "pods", "-l", "tier=front", "-L", "tier")

    def update(self) -> None:
        self.kubectl("set", "image", "deployment/web", "web=localhost/host:v2")
        self.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
        self.expect_image("localhost/host:v2")

    def break_(self) -> None:
        self.kubectl("set", "image", "deployment/web", "web=localhost/missing:v3")
        self.kubectl("rollout", "status", "deployment/web", "--timeout=4s", check=False)
        self.kubectl("get", "pods")
        if self.get("deployment", "web")["status"].get("availableReplicas", 0) < 4:
            raise Unmet("the broken update took more pods away than it may")

    def undo(self) -> None:
        self.kubectl("rollout", "history", "deployment/web")
        self.kubectl("rollout", "undo", "deployment/web")
        self.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        self.expect_image("localhost/host:v2")

    def lose_node(self) -> None:
        print("   $ sampan node stop node-2", flush=True)
        supervision.ask(self.paths, "node-stop", name="node-2")
        self.kubectl("wait", "--for=condition=Ready=Unknown", "node/node-2", "--timeout=30s")
        self.kubectl("get", "nodes")
        self.until(lambda: self.ready_on("node-1") == 5, "all five pods are ready on the other node")
        self.kubectl("get", "pods", "-o", "wide")

    def steady(self) -> None:
        before = self.counts()[0]
        self.until(lambda: self.counts()[0] > before + 100, "a hundred requests more")

    # What is checked

    def web_pods(self) -> list[Any]:
        pods = self.get("pods", "-l", "app=web")["items"]
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def ready_on(self, node: str) -> int:
        return sum(
            pod["spec"].get("nodeName") == node
            and any(
                c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])
            )
            for pod in self.web_pods()
        )

    def expect_pods(self, count: int) -> None:
        ready = self.get("deployment", "web")["status"].get("readyReplicas", 0)
        if ready != count:
            raise Unmet(f"{ready} of {count} pods are ready")

    def expect_image(self, image: str) -> None:
        images = {pod["spec"]["containers"][0]["image"] for pod in self.web_pods()}
        if images != {image}:
            raise Unmet(f"pods run {', '.join(sorted(images))}, not {image}")

    def until(self, holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """A person looks again and again; so does this."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise Unmet(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.2)

    def run(self) -> None:
        """All steps in order; each is written down in `rows`, whether it failed or not."""
        self.step("Create a Deployment of three", self.create)
        if self.rows[-1].verdict != "ok":
            return  # everything else builds on it
        self.step("Look at it", self.look)
        self.step("Read a log", self.logs)
        self.step("Run a command in a pod", self.exec)
        self.step("Expose it as a Service, and let a client ask it from now on", self.expose)
        self.step("Scale to five", self.scale)
        self.step("Label the pods", self.label)
        self.step("Rolling update to v2", self.update)
        self.step("A broken update stalls harmlessly", self.break_)
        self.step("Roll back", self.undo)
        self.step("Stop a node; its pods come back on another", self.lose_node, may_fail=True)
        self.step("After that, all is as before", self.steady)


def demo(arguments: argparse.Namespace) -> int:
    """The whole course on a cluster of its own, which goes at the end unless `--keep` is given. Returns 1 when a step failed.

    Raises SampanError when there is no kubectl, or the cluster does not come up.
    """
    if shutil.which("kubectl") is None:
        raise SampanError(
            "the demo speaks through kubectl, which is not on the PATH", "See kubernetes.io/docs/tasks/tools"
        )
    name = "demo" if arguments.name == "default" else arguments.name
    paths = Paths.of(name, arguments.data_dir)
    remove(paths, None)
    kubeconfig = str(paths.data / "kubeconfig")
    started, progress = time.monotonic(), Progress()
    wishes = Wishes(
        nodes=2,
        kubeconfig=kubeconfig,
        node_monitor_grace_period=4,
        node_status_update_frequency=1,
        pod_eviction_timeout=2,
    )
    try:
        bring_up(paths, wishes, progress)
        print(f"\nA cluster of two nodes, {time.monotonic() - started:.1f} s after the start.")
        course = Course(paths, kubeconfig)
        course.run()
    finally:
        if not arguments.keep:
            remove(paths, kubeconfig)
    print()
    rows = [
        [row.step, f"{row.seconds:.1f}", str(row.requests), str(row.failed), row.verdict]
        for row in course.rows
    ]
    table(["step", "seconds", "requests", "failed", "verdict"], rows)
    bad = [row for row in course.rows if row.verdict != "ok"]
    total = sum(row.requests for row in course.rows)
    print(f"\n{len(course.rows)} steps, {total} requests, {time.monotonic() - started:.0f} s", end="")
    print(f", {len(bad)} step(s) failed" if bad else ", all as it should be")
    if arguments.keep:
        print(
            f"The cluster stays: KUBECONFIG={kubeconfig}; end it with: {paths.command('down')}",
            file=sys.stderr,
        )
    return 1 if bad else 0
