"""Three real nodes for the tests of the network, with pods on each that answer and ask."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Cluster, Kubectl, Traces, eventually
from traffic import Net, Outside


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """SAMPAN_E2E_NET in the environment: a cluster that stands already, DIRECTORY of its data and kubeconfig."""
    standing = os.environ.get("SAMPAN_E2E_NET")
    if standing:
        cluster = Cluster(os.environ.get("SAMPAN_E2E_NAME", "net6"), Path(standing))
        yield cluster
        return
    cluster = Cluster(f"net-{os.getpid()}", tmp_path_factory.mktemp("cluster"))
    traces = Traces(cluster)
    assert traces.found() == {}
    try:
        cluster.up("--nodes=3")
        yield cluster
        complaints = cluster.complaints()
    finally:
        cluster.sampan("down")
    assert traces.found() == {}, "left behind by `sampan down`"
    assert complaints == "", "the cluster's processes met something they did not expect"


@pytest.fixture(scope="session")
def inhabitants(cluster: Cluster) -> Iterator[Net]:
    net = Net(cluster.kubectl("net"))
    net.kubectl.run("delete namespace net --ignore-not-found")
    net.build()
    yield net
    net.close()


@pytest.fixture
def net(inhabitants: Net) -> Iterator[Net]:
    """The inhabitants; what a test adds to their namespace goes with it."""
    kinds = "services,pods,deployments,statefulsets,networkpolicies"
    before = set(inhabitants.kubectl(f"get {kinds} -o name").split())
    yield inhabitants
    added = set(inhabitants.kubectl(f"get {kinds} -o name").split()) - before
    if added:  # kubectl itself waits five times a second at most
        inhabitants.kubectl(f"delete --now --wait=false --ignore-not-found {' '.join(sorted(added))}")
        eventually(lambda: set(inhabitants.kubectl(f"get {kinds} -o name").split()) <= before, "all is gone")


@pytest.fixture
def kubectl(net: Net) -> Kubectl:
    """In the inhabitants' namespace."""
    return net.kubectl


@pytest.fixture
def service(net: Net, request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """`service(ports, **spec)`: a Service of the test's own."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:50].strip("-")
    return lambda *ports, **spec: net.service(
        name, ports or [{"name": "http", "port": 80, "targetPort": "http"}], **spec
    )


@pytest.fixture
def outside(cluster: Cluster) -> Iterator[Outside]:
    made = Outside(balancers="10.96.0.0/11")
    yield made
    made.close()
