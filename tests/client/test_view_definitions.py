"""A view of everything, in the process of a server whose store has a disk below it."""

import pytest

from sampan.api.resources import BUILTIN
from sampan.base.clock import VirtualClock
from sampan.base.ids import Ids
from sampan.client.client import Client
from sampan.client.messages import User
from sampan.client.view import CachedView
from sampan.server.app import Server
from sampan.store.durable import DurableStore

FOOS = {
    "metadata": {"name": "foos.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Cluster",
        "names": {"plural": "foos", "kind": "Foo"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


async def test_objects_of_a_kind_that_was_just_defined_are_seen(tmp_path):
    clock = VirtualClock()
    store = DurableStore(tmp_path, clock, on_fatal=pytest.fail)
    server = Server(store, BUILTIN.copy(), clock=clock, ids=Ids(1))
    masters = User("admin", ("system:masters", "system:authenticated"))
    client = Client(server.handle, server.registry, user=masters, agent="test")
    view = CachedView(client, ["*"], clock=clock, ids=Ids(2))
    await view.start()
    await client.create("customresourcedefinitions.apiextensions.k8s.io", FOOS)
    await clock.settle()
    foo = {"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}}
    await client.create("foos.example.com", foo)
    await clock.settle()
    assert [o["metadata"]["name"] for o in view.list("foos.example.com")] == ["a"]
    await view.stop()
    await server.close()
    await store.close()
