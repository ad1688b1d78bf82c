"""The fixtures that come with an installed sampan, as a project that knows nothing of us uses them."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

TESTS = """
import os
import sys
import pytest
from kubernetes import client, config


def test_what_nobody_asks_for_is_not_loaded():
    assert "sampan.testing.plugin" in sys.modules and "sampan.testing.cluster" not in sys.modules


@pytest.mark.sampan(2)
async def test_in_memory(sampan_cluster):
    assert len(await sampan_cluster.list("nodes")) == 2


@pytest.mark.parametrize("again", [1, 2])
def test_over_https(sampan_kubeconfig, again):
    assert os.environ["KUBECONFIG"] == sampan_kubeconfig
    config.load_kube_config()
    _, current = config.list_kube_config_contexts()
    namespace = current["context"]["namespace"]
    api = client.CoreV1Api()
    api.create_namespaced_config_map(namespace, {"metadata": {"name": "mine"}})
    assert "mine" in [c.metadata.name for c in api.list_namespaced_config_map(namespace).items]


def test_the_server_is_shared(sampan_server):
    assert len(sampan_server.ask(lambda c: c.list("nodes"))["items"]) == 3
"""


def test_the_fixtures_of_another_project(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    points = importlib.metadata.entry_points(group="pytest11", name="sampan")
    plugin = [] if points else ["-p", "sampan.testing.plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "--sampan-nodes=3", *plugin]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert "5 passed" in run.stdout, run.stdout + run.stderr
