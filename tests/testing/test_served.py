"""A cluster behind HTTPS in a thread: any client may speak to it, and nothing of it is left."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from sampan.api.status import ApiError
from sampan.testing import Served


@pytest.fixture(scope="module")
def served():
    with Served(nodes=2) as cluster:
        yield cluster


def test_a_client_library_finds_nodes(served):
    api = client.CoreV1Api(config.new_client_from_config(served.kubeconfig))
    assert [node.metadata.name for node in api.list_node().items] == ["node-1", "node-2"]


def test_questions_are_asked_in_the_server(served):
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}
    served.ask(lambda c: c.create("configmaps", made, "default"))
    assert served.ask(lambda c: c.get("configmaps", "c", "default"))["data"] == {"a": "b"}
    with pytest.raises(ApiError, match="not found"):
        served.ask(lambda c: c.get("configmaps", "none", "default"))


def test_a_context_may_be_in_a_namespace(served):
    assert served.context("kube-system")["contexts"][0]["context"]["namespace"] == "kube-system"


def test_a_server_that_is_not_up_says_how_to_use_it():
    cluster = Served(nodes=0)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="use it inside `with Served"):
            cluster.ask(lambda c: c.list("pods"))
        if not cluster.address:
            with cluster:
                pass
    with pytest.raises(RuntimeError, match="has been up already"):
        cluster.__enter__()


def test_nothing_is_left():
    with Served(nodes=0) as cluster:
        path, address = Path(cluster.kubeconfig), cluster.address
        assert yaml.safe_load(path.read_text())["clusters"][0]["cluster"]["server"] == address
        unverified = ssl._create_unverified_context()
        with urllib.request.urlopen(f"{address}/readyz", context=unverified) as answer:
            assert answer.read() == b"ok"
    assert not path.exists()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{address}/readyz", context=unverified)
