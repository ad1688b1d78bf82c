"""Machines that have nothing but IPv6, for a cluster that has nothing but IPv6; and two of them join at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Cluster, Traces
from lan import lan
from traffic import Net, client_pod, server_pod

NAMES = ("first", "second", "third")
ADDRESSES = {name: f"2001:db8:{number}::1" for number, name in enumerate(NAMES, 1)}


@pytest.fixture
def namespaces(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of the machines and the router between them."""
    with lan(tmp_path, {name: (at, f"{at[:-1]}fe") for name, at in ADDRESSES.items()}, 64) as paths:
        yield paths


def test_three_machines(namespaces: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    clusters = {
        name: Cluster(f"six-{name}-{os.getpid()}", tmp_path_factory.mktemp(name), netns=namespaces[name])
        for name in NAMES
    }
    first = clusters["first"]
    try:
        first.up(f"--advertise={ADDRESSES['first']}", "--ip-family=ipv6")
        command = first.sampan("token create").strip().removeprefix("sampan ")
        with ThreadPoolExecutor() as pool:
            told = list(
                pool.map(lambda name: clusters[name].sampan(f"{command} --node-name={name}"), NAMES[1:])
            )
        assert all("packets between the machines get through" in text for text in told), told
        net = Net(first.kubectl())
        for name, node in (("one", "node-1"), ("two", "second"), ("three", "third")):
            net.kubectl.apply(server_pod(f"web-{name}", node), client_pod(f"client-{name}", node))
        net.kubectl.wait("pods --all")
        net.learn()
        for here, there in (("one", "two"), ("two", "three"), ("three", "one")):
            assert ":" in net.ip(f"web-{there}")
            net.prober(f"client-{here}").settles(net.ip(f"web-{there}"), 8080, f"web-{there}")
        net.close()
        assert [cluster.complaints() for cluster in clusters.values()] == [""] * 3
    finally:
        for name in reversed(NAMES):
            clusters[name].run("down")
    assert [Traces(cluster).found() for cluster in clusters.values()] == [{}] * 3
