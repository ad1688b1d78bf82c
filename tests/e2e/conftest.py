"""One cluster of two real nodes for the whole session, a namespace of its own for every test, nothing left at the end."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import FAST_FAILURE, Cluster, Kubectl, Traces


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="real nodes of root"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows what its namespace looked like."""
    outcome = yield
    report = outcome.get_result()
    kubectl = getattr(item, "funcargs", {}).get("kubectl")
    if report.when == "call" and report.failed and kubectl is not None:
        for question in ("get pods,deployments,services -o wide", "get events --sort-by=.lastTimestamp"):
            report.sections.append((f"kubectl {question}", kubectl.run(question).stdout))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes that count as lost after 4 s, whose pods are moved 2 s later."""
    if shutil.which("kubectl") is None:
        pytest.fail("the end-to-end tests drive kubectl, which is not on the PATH")
    cluster = Cluster(f"e2e-{os.getpid()}", tmp_path_factory.mktemp("cluster"))
    traces = Traces(cluster)
    assert traces.found() == {}
    try:
        cluster.up("--nodes=2", *FAST_FAILURE)
        yield cluster
        complaints = cluster.complaints()
    finally:
        cluster.sampan("down")
    assert traces.found() == {}, "left behind by `sampan down`"
    assert complaints == "", "the cluster's processes met something they did not expect"


@pytest.fixture
def kubectl(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own, which goes away behind the back of the next test."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    kubectl = cluster.kubectl(words.strip("-")[:50].strip("-"))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kubectl.namespace}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    kubectl.apply(
        namespace, account, flags="--server-side"
    )  # the cluster would make the account too, a moment later
    yield kubectl
    kubectl.leave(f"delete namespace {kubectl.namespace} --wait=false")


@pytest.fixture(scope="session")
def busybox(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of Debian's static busybox, made with `sampan image import`; its name."""
    root = tmp_path_factory.mktemp("busybox")
    program = shutil.which("busybox")
    if program is None:
        pytest.fail("busybox-static is not installed (scripts/test does it)")
    for directory in ("bin", "tmp", "etc", "root"):
        (root / directory).mkdir()
    shutil.copy(program, root / "bin" / "busybox")
    for (
        applet
    ) in "sh cat echo sleep ls wget nslookup nc id hostname true false grep env touch tar date kill".split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nguest:x:1000:\n")
    name = f"localhost/busybox-{os.getpid()}:1"
    cluster.sampan(f"image import {root} {name}")
    yield name
    cluster.run(f"image rm {name}")
