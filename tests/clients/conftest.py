"""A cluster behind TLS in a thread of its own, with one simulated node: what other people's clients speak to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sampan.testing import Served


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    with Served(name="clients") as made:
        yield made


@pytest.fixture
def kubeconfig_file(served: Served, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KUBECONFIG", served.kubeconfig)
    return served.kubeconfig


def deployment(name: str, replicas: int = 2) -> dict:
    labels = {"app": name}
    container = {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
def make_deployment():
    return deployment
