"""`kubectl patch --subresource resize`: a running container gets other limits, or the pod says why not."""

from __future__ import annotations

import json
from typing import Any

from harness import Kubectl, eventually, shell


def asked(**resources: dict[str, str]) -> str:
    change = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    return f"patch pod flexible --subresource resize -p '{json.dumps(change)}'"


def resized(kubectl: Kubectl, **resources: dict[str, str]) -> None:
    kubectl(asked(**resources))


def container(kubectl: Kubectl) -> Any:
    return kubectl.get("pod/flexible")["status"]["containerStatuses"][0]


def condition(kubectl: Kubectl) -> Any:
    conditions = kubectl.get("pod/flexible")["status"]["conditions"]
    return next((c for c in conditions if c["type"] == "PodResizePending"), None)


def limit(kubectl: Kubectl) -> int:
    """The memory limit as the container sees it, whatever the version of control groups."""
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    return int(kubectl.run(f"exec flexible -- cat {files}").stdout)


def test_limits_change_under_a_running_container(kubectl: Kubectl) -> None:
    small = {"cpu": "100m", "memory": "64Mi"}
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    main = shell(
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
        resources={"requests": small, "limits": small},
        resizePolicy=policy,
    )
    kubectl.run_pod("flexible", {"containers": [main]})
    more = {"cpu": "100m", "memory": "128Mi"}
    resized(kubectl, requests=more, limits=more)
    eventually(lambda: container(kubectl)["resources"]["limits"] == more)
    eventually(lambda: limit(kubectl) == 128 << 20)
    assert container(kubectl)["restartCount"] == 0

    huge = {"cpu": "1000", "memory": "128Mi"}
    refusal = kubectl.refused(asked(requests=huge, limits=huge))
    assert "node didn't have enough allocatable resources: cpu, requested: 1000000, allocatable: " in refusal
    assert container(kubectl)["resources"]["limits"] == more, "it keeps what it has"

    other = {"cpu": "200m", "memory": "128Mi"}
    resized(kubectl, requests=other, limits=other)
    eventually(lambda: condition(kubectl) is None)
    eventually(lambda: container(kubectl)["restartCount"] == 1, "its policy for cpu")
    eventually(lambda: container(kubectl).get("resources", {}).get("limits") == other)
    reasons = [e["reason"] for e in kubectl.get("events")["items"] if e["reason"].startswith("Resize")]
    assert {"ResizeStarted", "ResizeCompleted"} <= set(reasons)
