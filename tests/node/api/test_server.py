"""What a node answers over TLS, and that it does so for the control plane."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from sampan.base import pki
from sampan.client.messages import Request
from sampan.node.api import nodelogs
from sampan.node.api.query import Query


@pytest.fixture
async def served(world, tmp_path):
    ca = pki.CA.create("test")
    (tmp_path / "ca.crt").write_bytes(ca.pair.cert)
    ca.issue("node", ips=["127.0.0.1"], server=True).save(tmp_path / "s.crt", tmp_path / "s.key")
    api = world.node.api
    port = await api.serve(
        "127.0.0.1", 0, cert=tmp_path / "s.crt", key=tmp_path / "s.key", client_ca=tmp_path / "ca.crt"
    )
    yield ca, port, tmp_path
    await api.close()


async def get(served, path, name="", groups=()):
    ca, port, directory = served
    context = ssl.create_default_context(cadata=ca.pair.cert.decode())
    if name:
        ca.issue(name, groups).save(directory / "c.crt", directory / "c.key")
        context.load_cert_chain(directory / "c.crt", directory / "c.key")
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    return answer


@pytest.mark.parametrize(
    "name, groups, line",
    [
        ("kube-apiserver-kubelet-client", (), b"HTTP/1.1 200 OK"),
        ("admin", ("system:masters",), b"HTTP/1.1 200 OK"),
        ("", (), b"HTTP/1.1 401 Unauthorized"),
    ],
)
async def test_certificates_of_the_control_plane_are_let_in(served, name, groups, line):
    assert (await get(served, "/pods", name, groups)).startswith(line)


async def test_there_is_no_log_of_what_waits_for_its_image(world, served):
    world.pod(containers=[{"name": "c", "image": "missing:1"}])
    await world.clock.advance(1)
    answer = await get(served, "/containerLogs/default/p/c", "admin", ("system:masters",))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"is waiting to start: trying and failing to pull image" in answer


async def test_what_a_node_tells_of_itself(world, served):
    world.pod()
    await world.clock.advance(0)
    admin = ("admin", ("system:masters",))
    assert b'"kind":"PodList"' in await get(served, "/pods", *admin)
    assert b'"podRef"' in await get(served, "/stats/summary", *admin)
    assert b"kubelet_active_pods 1\n" in await get(served, "/metrics", *admin)
    assert b'container_memory_working_set_bytes{container="c",namespace="default",pod="p"}' in await get(
        served, "/metrics/resource", *admin
    )


async def test_counters_of_containers_as_dashboards_ask_for_them(world, served):
    world.pod(annotations={"sampan.dev/simulate": "cpu=500m memory=8Mi"})
    await world.clock.advance(10)
    text = await get(served, "/metrics/cadvisor", "admin", ("system:masters",))
    assert b"# TYPE container_cpu_usage_seconds_total counter" in text
    line = next(x for x in text.split(b"\n") if x.startswith(b"container_memory_rss{"))
    assert line.endswith(b" 8388608") and b'container="c"' in line and b'pod="p"' in line


async def test_results_of_probes_as_monitoring_asks_for_them(world, served):
    probe = {"tcpSocket": {"port": 80}}
    pod = world.pod(containers=[{"name": "c", "image": "nginx:1", "readinessProbe": probe}])
    await world.clock.advance(0)
    text = await get(served, "/metrics/probes", "admin", ("system:masters",))
    of = f'namespace="default",pod="p",pod_uid="{pod["metadata"]["uid"]}"'
    labels = f'container="c",{of},probe_type="Readiness",result="successful"'
    assert f"prober_probe_total{{{labels}}} 1\n".encode() in text
    took = 'container="c",namespace="default",pod="p",probe_type="Readiness"'
    assert f'prober_probe_duration_seconds_bucket{{{took},le="+Inf"}} 1\n'.encode() in text
    assert f"prober_probe_duration_seconds_count{{{took}}} 1\n".encode() in text


async def test_a_command_is_run_and_its_output_returned(world):
    world.pod()
    await world.clock.advance(0)
    ran = await world.node.api.handle(Request("POST", "/run/default/p/c", "cmd=echo%20hello"))
    assert (ran.status, ran.body) == (200, b"hello\n")
    failed = await world.node.api.handle(Request("POST", "/run/default/p/c", "cmd=false"))
    assert failed.status == 500
    assert (await world.node.api.handle(Request("GET", "/run/default/p/c", "cmd=true"))).status == 405


def test_logs_of_the_node_are_listed_and_served_and_nothing_else(tmp_path):
    (tmp_path / "pods/a").mkdir(parents=True)
    (tmp_path / "pods/a/0.log").write_text("of a pod\n")
    log = tmp_path / "n1.log"
    log.write_text(
        "2026-01-01T00:00:00Z one\n2026-01-01T00:01:00Z two\n  of two\n2026-01-01T00:02:00Z three\n"
    )
    (tmp_path / "secret").write_text("x")
    (tmp_path / "pods/link").symlink_to(tmp_path / "secret")
    files = {"n1.log": str(log), "pods": str(tmp_path / "pods")}

    def ask(path, query=""):
        response = nodelogs.serve(path, Query(Request("GET", path, query)), files)
        return response.status, response.body.decode()

    assert ask("/") == (200, '<pre>\n<a href="n1.log">n1.log</a>\n<a href="pods/">pods/</a>\n</pre>\n')
    assert ask("/pods/a/0.log") == (200, "of a pod\n")
    assert ask("/n1.log")[1].startswith("2026")
    for path in ("/none", "/pods/../secret", "/pods/link", "/pods/a/none"):
        assert ask(path)[0] == 404
    assert ask("/", "query=kubelet&tailLines=1") == (200, "2026-01-01T00:02:00Z three\n")
    assert (
        ask("/", "query=kubelet&sinceTime=2026-01-01T00:00:30Z&pattern=t.o")[1]
        == "2026-01-01T00:01:00Z two\n  of two\n"
    )
    assert ask("/", "query=sshd")[0] == 404
