"""A server over the memory store, called in process as an administrator."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from sampan.api.resources import BUILTIN
from sampan.base.clock import VirtualClock
from sampan.base.ids import Ids
from sampan.client.client import read_body
from sampan.client.messages import Request, Response, User
from sampan.server.app import Server
from sampan.store.memory import MemoryStore
from sampan.store.protocol import Store

ADMIN = User("admin", ("system:masters", "system:authenticated"))


class Api:
    """`call` answers (status, decoded body); `response` the raw answer."""

    def __init__(self, server: Server, clock: VirtualClock) -> None:
        self.server = server
        self.clock = clock
        self.headers: dict[str, str] = {}

    async def response(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        user: User | None = ADMIN,
    ) -> Response:
        path, _, query = path.partition("?")
        given = {"accept": "application/json", "user-agent": "test/1"} | (headers or {})
        data = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else b""
        return await self.server.handle(Request(method, path, query, given, data, user=user))

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        response = await self.response(method, path, body, **more)
        data = await read_body(response)
        try:
            return response.status, orjson.loads(data) if data else None
        except orjson.JSONDecodeError:
            return response.status, data.decode()

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, answer = await self.call(method, path, body, **more)
        assert status < 300, orjson.dumps(answer).decode()
        return answer

    async def merge(self, path: str, patch: Any) -> tuple[int, Any]:
        return await self.call("PATCH", path, patch, headers={"content-type": "application/merge-patch+json"})


@pytest.fixture
async def make_api() -> Callable[..., Api]:
    """A server over a memory store made with the given settings, or over a `store`."""

    def make(store: Store | None = None, **settings: Any) -> Api:
        clock = VirtualClock()
        store = store or MemoryStore(clock, **settings)
        return Api(Server(store, BUILTIN.copy(), clock=clock, ids=Ids(seed=1)), clock)

    return make


@pytest.fixture
async def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture
async def ready(api: Api) -> Api:
    """With a namespace `d`."""
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
    return api


@pytest.fixture
async def full() -> Any:
    """A whole control plane (admission, controllers, bootstrap objects) without nodes, with a namespace `d`."""
    from sampan.testing.cluster import Cluster

    async with Cluster(nodes=0) as cluster:
        api = Api(cluster.plane.server, cluster.clock)
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
        await cluster.settle()
        yield api


# pytest's importlib mode adds no test directory to the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def facts() -> Any:
    """A store with facts in it, for tests of what decides by looking at the cluster."""
    from cluster_facts import Facts

    return Facts()
