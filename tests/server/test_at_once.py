"""The short way of a GET gives the answers of the long one, or none."""

import asyncio
import socket

import pytest

from sampan.base import pki
from sampan.base.clock import RealClock, VirtualClock
from sampan.base.ids import Ids
from sampan.client.messages import Request, User
from sampan.cluster.planks import ControlPlane, Options
from sampan.server import http
from sampan.store.memory import MemoryStore

ADMIN, NOBODY = User("admin", ("system:masters",)), User("nobody")
TOKENS = {"good": ADMIN, "poor": NOBODY}
MAP = "/api/v1/namespaces/default/configmaps/m"


@pytest.fixture
async def plane():
    clock = VirtualClock()
    options = Options(pki.new_key(), static_tokens=TOKENS, controllers=False, scheduler=False)
    plane = ControlPlane(MemoryStore(clock), clock, Ids(seed=1), options)
    await plane.start()
    await plane.client().create("configmaps", {"metadata": {"name": "m"}, "data": {"k": "v"}}, "default")
    yield plane
    await plane.stop()


def asked(path, token="good", method="GET", query="", **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, query, {"authorization": f"Bearer {token}", **given})


SHORT = (
    asked(MAP),
    asked(MAP, accept="application/json", user_agent="kubectl/v1"),
    asked(MAP, accept="*/*"),
    asked("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin"),
    asked("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin", accept="application/json;q=1"),
)
LONG = (
    asked(MAP, "wrong"),
    asked(MAP, "poor"),
    asked(MAP, method="HEAD"),
    asked(MAP, query="pretty=true"),
    asked(MAP, query="resourceVersion=999999"),
    asked(MAP, user_agent="curl/8"),
    asked(MAP, accept="application/yaml"),
    asked(MAP, accept="text/plain"),
    asked(MAP, accept="application/json;as=Table;v=v1;g=meta.k8s.io"),
    asked(MAP, impersonate_user="nobody"),
    asked(MAP + "/"),
    asked(MAP + "/status"),
    asked("/api/v1/namespaces/default"),
    asked("/api/v1/namespaces/default/configmaps/missing"),
    asked("/api/v1/namespaces/default/configmaps"),
    asked("/api/v1/watch/namespaces/default/configmaps/m"),
    asked("/api/v1/configmaps/m"),
    asked("/api/v1/namespaces/default/nodes/n"),
    asked("/api/v1/namespaces/default/nothing/n"),
    asked("/api/v1/componentstatuses/etcd-0"),
    asked("/apis/metrics.k8s.io/v1beta1/nodes/n"),
    asked("/version"),
    asked("/readyz"),
)


@pytest.mark.parametrize("request_", SHORT)
async def test_answers_as_the_long_way_does(plane, request_):
    long = await plane.server.handle(request_)
    for _ in range(2):  # the second one is answered by what was learned of the first
        short = plane.server.at_once(request_)
        assert short is not None and short.status == 200
        assert (short.status, dict(short.headers), short.body) == (long.status, dict(long.headers), long.body)


@pytest.mark.parametrize("request_", LONG)
async def test_leaves_the_rest_to_the_long_way(plane, request_):
    assert plane.server.at_once(asked(MAP)) is not None
    assert plane.server.at_once(request_) is None


async def test_is_counted(plane):
    def count():
        text = plane.server.metrics.render({}, 0, 0)
        lines = (line for line in text.splitlines() if 'resource="configmaps"' in line and "GET" in line)
        return [line.rpartition(" ")[2] for line in lines if line.startswith("apiserver_request_total")]

    plane.server.at_once(asked(MAP))
    assert count() == ["1"]
    await plane.server.handle(asked(MAP))
    assert count() == ["2"]


async def test_a_full_level_takes_the_long_way(plane):
    request = asked(MAP, "poor")
    role = {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}]}
    await plane.client().create("clusterroles.rbac.authorization.k8s.io", role)
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}
    binding = {"metadata": {"name": "b"}, "roleRef": ref, "subjects": [subject]}
    await plane.client().create("clusterrolebindings.rbac.authorization.k8s.io", binding)
    assert plane.server.at_once(request) is not None
    for level in plane.server.fairness.levels.values():
        level.taken = level.seats
    assert plane.server.at_once(request) is None


async def test_pipelined_requests_of_both_ways_are_answered_in_their_order(plane):
    sock = socket.create_server(("127.0.0.1", 0))
    listener = await http.serve(plane.server.handle, [sock], None, RealClock(), plane.server.at_once)
    reader, writer = await asyncio.open_connection(*listener.addresses[0][:2])
    paths = (MAP, "/version", MAP, MAP, "/api/v1/namespaces/default/configmaps/missing", MAP)
    for path in paths:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n\r\n".encode())
    found = []
    for _ in paths:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        found.append((head.split()[1], b'"k":"v"' in body, b"gitVersion" in body))
    assert found == [
        ("200", path == MAP, path == "/version") if "missing" not in path else ("404", False, False)
        for path in paths
    ]
    writer.close()
    await listener.close(0.1)
