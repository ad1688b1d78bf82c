"""Fixtures for pytest, there as soon as sampan is installed (entry point `pytest11`).

- `sampan_cluster`: a `Cluster` in memory, with virtual time, for async tests (of pytest-asyncio or anyio);
- `sampan_server`: one `Served` for the whole session: a real API behind HTTPS;
- `sampan_kubeconfig`: the path of a kubeconfig for that server, in a namespace of the test's own, also in $KUBECONFIG.

`@pytest.mark.sampan(nodes=3, seed=7)` says what `sampan_cluster` is made with; `--sampan-nodes` how many nodes the
server has. Every project with sampan installed loads this file with each run: it imports nothing until it is asked.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

async_fixture: Callable[..., Any] = pytest.fixture
with contextlib.suppress(ImportError):  # only `sampan_cluster` needs it, or anyio, which takes it as it is
    from pytest_asyncio import fixture as async_fixture

if TYPE_CHECKING:
    from pathlib import Path

    from sampan.testing import Cluster, Served

# They look at $KUBECONFIG when they are imported: without help a test would write into the developer's own cluster.
_READ_AT_IMPORT = {"kubernetes.config.kube_config", "kubernetes_asyncio.config.kube_config"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sampan", "Kubernetes in tests")
    group.addoption("--sampan-nodes", type=int, default=1, help="simulated nodes of sampan_server (1)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "sampan(nodes=1, seed=1, ...): what sampan_cluster is made with (sampan.testing.Cluster)"
    )


@async_fixture
async def sampan_cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A cluster in memory, of the test's own."""
    from sampan.testing import Cluster

    mark = request.node.get_closest_marker("sampan")
    async with Cluster(*(mark.args if mark else ()), **(mark.kwargs if mark else {})) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sampan_server(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A cluster behind HTTPS that the tests of a session share."""
    from sampan.testing import Served

    with Served(nodes=request.config.getoption("--sampan-nodes")) as served:
        yield served


@pytest.fixture
def sampan_kubeconfig(
    sampan_server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A kubeconfig whose namespace is made for the test and removed after it."""
    import yaml

    made = sampan_server.ask(
        lambda client: client.create("namespaces", {"metadata": {"generateName": "test-"}})
    )
    namespace = made["metadata"]["name"]
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(sampan_server.context(namespace)))
    monkeypatch.setenv("KUBECONFIG", str(path))
    for client in _READ_AT_IMPORT & sys.modules.keys():
        monkeypatch.setattr(sys.modules[client], "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    yield str(path)
    sampan_server.ask(lambda client: client.delete("namespaces", namespace))
