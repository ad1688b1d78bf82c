"""`@kubernetes/client-node` from npm works unchanged: lists, an informer, patches, and streams over WebSocket."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import Cluster, Kubectl

HERE = Path(__file__).parent / "javascript"


@pytest.fixture(scope="module")
def node() -> str:
    """node, with the client beside the flows."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is not on the PATH (scripts/test installs it)")
    if not (HERE / "node_modules/@kubernetes/client-node").is_dir():
        install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        subprocess.run(install, cwd=HERE, check=True, timeout=300)
    return "node"


def test_what_people_do_with_it(node: str, cluster: Cluster, kubectl: Kubectl) -> None:
    done = subprocess.run(
        [node, "flows.mjs", kubectl.namespace],
        cwd=HERE,
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "versions": {"version": "37", "apps": True},
        "informer": {"first": "add", "updated": True, "date": True, "cached": "Running"},
        "watch": ["ADDED", "p"],
        "pages": ["a", "b"],
        "patches": {"data": {"json": "1", "strategic": "2", "applied": "3"}, "applier": "js"},
        "conflict": [409, ".data.applied"],
        "refusal": [422, "Invalid"],
        "any kind": [2, "DeploymentList", 1],
        "exec": ["hello\n", "Success", None],
        "exec that fails": ["", "Failure", "3"],
        "exec that reads": ["one\ntwo\n", "Success", None],
        "exec at a terminal": ["30 100\r\n/dev/pts/0\r\n", "Success", None],
        "attach": "anybody?\n",
        "logs": "hello",
        "port-forward": "HTTP/1.0 200 OK",
        "deletion": "delete",
    }
