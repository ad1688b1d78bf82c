"""View and runner against the real server in this process: what they assume of it holds."""

from __future__ import annotations

import pytest

from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base.clock import VirtualClock
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.client.messages import User
from sampan.client.plan import Create, Key, Plan
from sampan.client.runner import Runner
from sampan.client.view import CachedView
from sampan.server.app import Server
from sampan.server.config import Config
from sampan.store.open import open_store

ADMIN = User("admin", ("system:masters",))


def world(seed=1, path=None):
    clock, ids = VirtualClock(), Ids(seed)
    registry = BUILTIN.copy()
    store = open_store(path, clock=clock)
    server = Server(store, registry, clock=clock, ids=ids, config=Config(authorize=False))
    return clock, ids, store, Client(server.handle, registry, user=ADMIN)


def config_map(name, **meta):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", **meta},
    }


async def prepared(client):
    await client.create(
        "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    )


class Twin:
    """Every ConfigMap without an owner gets a Secret of its name."""

    name = "twin"
    resource = "configmaps"

    def __init__(self):
        self.watches = {"secrets": lambda obj, view: [Key("default", obj["metadata"]["name"])]}

    def reconcile(self, obj, view, now):
        meta = obj["metadata"]
        if view.get("secrets", meta["name"], meta["namespace"]):
            return Plan()
        ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"]}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": meta["name"], "ownerReferences": [ref]},
        }
        return Plan().then(Create("secrets", secret, meta["namespace"]))

    def removed(self, key, view, now):
        return Plan()


async def history(seed):
    clock, ids, store, client = world(seed)
    await prepared(client)
    runner = Runner(client, [Twin()], clock=clock, ids=ids)
    await runner.start()
    for name in "abcd":
        await client.create("configmaps", config_map(name))
    await client.delete("secrets", "a", "default") if store.get("secrets", "default/a") else None
    await clock.advance(5)
    await client.delete("secrets", "b", "default")
    await clock.advance(5)
    await runner.stop()
    return [(bucket, item.key, item.value) for bucket in store.buckets() for item in store.list(bucket).items]


async def test_a_seed_gives_the_same_bytes_twice():
    first, second = await history(4), await history(4)
    assert first == second
    assert [key for bucket, key, _ in first if bucket == "secrets"] == [f"default/{n}" for n in "abcd"]


async def test_a_view_of_everything_knows_dependents_and_contents():
    clock, ids, _, client = world()
    await prepared(client)
    owner = await client.create("configmaps", config_map("owner"))
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    view = CachedView(client, ["*", "configmaps"], clock=clock, ids=ids)
    await view.start()
    await client.create("configmaps", config_map("child", ownerReferences=[ref]) | {"data": {"a": "b"}})
    await clock.settle()
    assert [(r, o["metadata"]["name"]) for r, o in view.dependents(owner["metadata"]["uid"])] == [
        ("configmaps", "child")
    ]
    assert {o["metadata"]["name"] for _, o in view.contents("default")} >= {"owner", "child"}
    assert view.get("configmaps", "child", "default")["data"] == {"a": "b"}
    assert set(view.get("namespaces", "default")) == {"apiVersion", "kind", "metadata"}
    await view.stop()


async def test_a_view_survives_the_loss_of_its_watches():
    clock, ids, store, client = world()
    await prepared(client)
    view = CachedView(client, ["configmaps"], clock=clock, ids=ids)
    await view.start()
    await client.create("configmaps", config_map("a"))
    await clock.settle()
    view._streams["configmaps"].since = "1"  # as after a long sleep
    for watch in list(client._transport.__self__.watchers):
        watch.close()
    await client.delete("configmaps", "a", "default")
    await client.create("configmaps", config_map("b"))
    await clock.advance(10)
    assert [o["metadata"]["name"] for o in view.list("configmaps")] == ["b"]
    await view.stop()


@pytest.mark.parametrize("durable", [False, True])
async def test_a_runner_works_over_every_store(durable, tmp_path):
    clock, ids, store, client = world(path=tmp_path / "store" if durable else None)
    await prepared(client)
    runner = Runner(client, [Twin()], clock=clock, ids=ids)
    await runner.start()
    for n in range(20):
        await client.create("configmaps", config_map(f"c{n:02}"))
    await client.create("configmaps", config_map("last"))
    watch = store.watch("secrets", since=1)
    seen = 0
    async for batch in watch:
        seen += len(batch)
        if seen >= 21:
            break
    assert store.count("secrets") == 21
    await runner.stop()
    await store.close()


@pytest.mark.parametrize(
    "name, hint",
    [
        ("deployments", "; 'deployments.apps' is meant?"),
        ("deploy", "; 'deployments.apps' is meant?"),
        ("events.events", ""),
        ("nets", ""),
    ],
)
async def test_a_resource_that_is_not_known_by_that_name_is_told_with_the_one_it_has(name, hint):
    _, _, store, client = world()
    with pytest.raises(ApiError) as refused:
        await client.list(name)
    assert refused.value.code == 404
    assert refused.value.message == f'the server doesn\'t have a resource type "{name}"{hint}'
    await store.close()
