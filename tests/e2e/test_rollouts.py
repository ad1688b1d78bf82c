"""Rolling updates: without a lost request, to be paused, undone, looked up; a broken one stalls harmlessly."""

from __future__ import annotations

import json
import threading
import time
import urllib.request

import pytest
from harness import Kubectl, deployment, eventually, server, shell


def sleeper(name: str = "web", **spec: object) -> dict:
    spec = {"pod": {"terminationGracePeriodSeconds": 1}} | spec
    return deployment(name, shell("exec sleep infinity", name="main", image="localhost/host:v1"), **spec)


def done(kubectl: Kubectl, name: str = "web") -> str:
    return kubectl(f"rollout status deployment/{name} --timeout=90s", timeout=120)


def images(kubectl: Kubectl) -> set[str]:
    pods = [p for p in kubectl.items("pods -l app=web") if "deletionTimestamp" not in p["metadata"]]
    return {p["spec"]["containers"][0]["image"] for p in pods}


class Load:
    """Requests from this machine to a Service's address, from several threads, as long as the block lasts."""

    def __init__(self, url: str) -> None:
        self.url, self.answers, self.failures, self._go = url, 0, [], True
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(3)]

    def _ask(self) -> None:
        while self._go:
            try:
                urllib.request.urlopen(self.url, timeout=5).read()
                self.answers += 1
            except Exception as error:
                self.failures.append(repr(error))
            time.sleep(0.01)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._go = False
        for thread in self._threads:
            thread.join()


def test_no_request_is_lost(kubectl: Kubectl) -> None:
    """Under load: update, scale up and down, restart. Every request is answered."""
    kubectl.apply(
        deployment(
            "web", server(image="localhost/host:v1"), replicas=3, pod={"terminationGracePeriodSeconds": 20}
        )
    )
    done(kubectl)
    kubectl("expose deployment web --port=80 --target-port=8080")
    address = kubectl("get service web -o jsonpath={.spec.clusterIP}")

    def answers() -> bool:
        try:
            return urllib.request.urlopen(f"http://{address}", timeout=2).status == 200
        except OSError:
            return False

    eventually(answers, "the Service")
    with Load(f"http://{address}") as load:
        kubectl("set image deployment/web web=localhost/host:v2")
        done(kubectl)
        kubectl("scale deployment/web --replicas=5")
        done(kubectl)
        kubectl("scale deployment/web --replicas=2")
        eventually(lambda: len(kubectl.items("pods -l app=web")) == 2)
        kubectl("rollout restart deployment/web")
        done(kubectl)
    assert images(kubectl) == {"localhost/host:v2"}
    assert load.failures == [] and load.answers > 50, (load.answers, load.failures[:5])


def test_surge_and_unavailable(kubectl: Kubectl) -> None:
    """Never more than replicas + maxSurge, never fewer ready than replicas - maxUnavailable."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    kubectl.apply(sleeper(replicas=3, strategy=strategy))
    done(kubectl)
    with kubectl.stream("get deployment web --watch -o json") as watch:
        watch.until('"observedGeneration"')
        kubectl("set image deployment/web main=localhost/host:v2")
        done(kubectl)
    decoder, text, states = json.JSONDecoder(), watch.text, []
    while text.strip():
        try:
            state, end = decoder.raw_decode(text.lstrip())
        except ValueError:
            break
        states.append(state["status"])
        text = text.lstrip()[end:]
    assert len(states) > 3
    assert max(state["replicas"] for state in states) == 4
    assert min(state["availableReplicas"] for state in states[1:]) == 3


def test_recreate_ends_all_old_pods_before_the_first_new_one(kubectl: Kubectl) -> None:
    """All old pods end before the first new one starts."""
    kubectl.apply(sleeper(strategy={"type": "Recreate"}))
    done(kubectl)
    kubectl("set image deployment/web main=localhost/host:v2")
    done(kubectl)
    assert images(kubectl) == {"localhost/host:v2"}
    kubectl.wait("deployment/web", "jsonpath={.status.replicas}=2")
    sets = kubectl.items("replicasets -l app=web")
    assert sorted(one["status"]["replicas"] for one in sets) == [0, 2]


def test_pause_and_resume(kubectl: Kubectl) -> None:
    """Several changes become one rollout."""
    kubectl.apply(sleeper())
    done(kubectl)
    kubectl("rollout pause deployment/web")
    kubectl("set image deployment/web main=localhost/host:v2")
    kubectl("set env deployment/web COLOUR=red")
    kubectl.wait("deployment/web", "condition=Progressing=Unknown")
    assert "DeploymentPaused" in kubectl("get deployment web -o yaml")
    assert images(kubectl) == {"localhost/host:v1"} and len(kubectl.items("replicasets")) == 1
    assert "can't restart paused deployment" in kubectl.refused("rollout restart deployment/web")
    kubectl("rollout resume deployment/web")
    done(kubectl)
    assert images(kubectl) == {"localhost/host:v2"} and len(kubectl.items("replicasets")) == 2


def test_history_and_undo(kubectl: Kubectl) -> None:
    kubectl.apply(sleeper(replicas=1))
    done(kubectl)
    kubectl("annotate deployment/web kubernetes.io/change-cause=first")
    kubectl("set image deployment/web main=localhost/host:v2")
    kubectl("annotate deployment/web kubernetes.io/change-cause=second --overwrite")
    done(kubectl)
    history = eventually(
        lambda: "second" in (told := kubectl("rollout history deployment/web")) and told, "the second's cause"
    )
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]
    assert "localhost/host:v1" in kubectl("rollout history deployment/web --revision=1")
    kubectl("rollout undo deployment/web")
    done(kubectl)
    assert images(kubectl) == {"localhost/host:v1"}
    numbers = [line.split()[0] for line in kubectl("rollout history deployment/web").splitlines()[2:] if line]
    assert numbers == ["2", "3"]
    kubectl("rollout undo deployment/web --to-revision=2")
    done(kubectl)
    assert images(kubectl) == {"localhost/host:v2"}
    assert "unable to find" in kubectl.refused("rollout undo deployment/web --to-revision=77")


def test_history_limit(kubectl: Kubectl) -> None:
    kubectl.apply(sleeper(replicas=1, revisionHistoryLimit=1))
    for version in ("v2", "v3", "v4"):
        kubectl(f"set image deployment/web main=localhost/host:{version}")
        done(kubectl)
    eventually(lambda: len(kubectl.items("replicasets -l app=web")) == 2, "one old ReplicaSet")


def test_restart_replaces_all_pods(kubectl: Kubectl) -> None:
    """New pods of the same version."""
    kubectl.apply(sleeper())
    done(kubectl)
    before = set(kubectl("get pods -l app=web -o name").split())
    kubectl("rollout restart deployment/web")
    done(kubectl)
    kubectl.wait(" ".join(sorted(before)), "delete")
    after = set(kubectl("get pods -l app=web -o name").split())
    assert len(after) == 2 and not before & after
    annotations = kubectl.get("deployment web")["spec"]["template"]["metadata"]["annotations"]
    assert "kubectl.kubernetes.io/restartedAt" in annotations


@pytest.mark.parametrize("image", ["localhost/missing:v3", "crash"])
def test_a_broken_update(kubectl: Kubectl, image: str) -> None:
    """It stalls, the old pods go on, the Deployment says why; undo mends it."""
    kubectl.apply(sleeper(replicas=4))
    done(kubectl)
    deadline = 'patch deployment web -p \'{"spec":{"progressDeadlineSeconds":%d}}\''
    kubectl(deadline % 3)
    if image == "crash":
        never = {"exec": {"command": ["false"]}}  # else it is ready for the moment it lives
        command = {"name": "main", "command": ["false"], "readinessProbe": never}
        kubectl(
            f"patch deployment web -p '{json.dumps({'spec': {'template': {'spec': {'containers': [command]}}}})}'"
        )
    else:
        kubectl(f"set image deployment/web main={image}")
    assert "exceeded its progress deadline" in kubectl.refused("rollout status deployment/web --timeout=60s")
    web = kubectl.get("deployment web")
    assert web["status"]["availableReplicas"] >= 3
    progressing = next(c for c in web["status"]["conditions"] if c["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    kubectl(deadline % 600)
    kubectl("rollout undo deployment/web")
    done(kubectl)
    assert images(kubectl) == {"localhost/host:v1"}


def test_min_ready_seconds(kubectl: Kubectl) -> None:
    """Ready is not yet available."""
    kubectl.apply(sleeper(replicas=0, minReadySeconds=1))
    columns = "custom-columns=READY:.status.readyReplicas,AVAILABLE:.status.availableReplicas"
    with kubectl.stream(f"get deployment web --watch -o {columns}") as watch:
        watch.until(r"^<none> +<none>$")  # from here on it sees everything
        kubectl("scale deployment/web --replicas=1")
        watch.until(r"^1 +<none>$")
        watch.until(r"^1 +1$")


def test_rollout_status_of_others(kubectl: Kubectl) -> None:
    """StatefulSets and DaemonSets have rollouts too."""
    base = sleeper()["spec"]
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "replicas": 2,
            "serviceName": "db",
            "selector": base["selector"],
            "template": base["template"],
        },
    }
    labels = {"app": "agent"}
    daemon = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": base["template"]["spec"]},
        },
    }
    kubectl.apply(stateful, daemon)
    kubectl("rollout status statefulset/db --timeout=60s")
    kubectl("rollout status daemonset/agent --timeout=60s")
    assert kubectl("get pods -l app=web -o name").split() == ["pod/db-0", "pod/db-1"]
    nodes = kubectl("get pods -l app=agent -o jsonpath={.items[*].spec.nodeName}").split()
    assert sorted(nodes) == ["node-1", "node-2"]
    kubectl("set image daemonset/agent main=localhost/host:v2")
    kubectl("rollout status daemonset/agent --timeout=60s")
    kubectl("rollout restart statefulset/db")
    kubectl("rollout status statefulset/db --timeout=60s")
