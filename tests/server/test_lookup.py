"""What admission sees is decoded once a revision, and what is gone is not kept."""

import orjson

from sampan.base.clock import VirtualClock
from sampan.server.lookup import Lookup
from sampan.store.memory import MemoryStore
from sampan.store.protocol import Draft


def _draft(name: str) -> Draft:
    value = orjson.dumps({"metadata": {"name": name, "resourceVersion": ""}})
    return Draft(value, value.index(b'""') + 1, {}, {})


async def test_an_object_is_decoded_once_a_revision():
    store = MemoryStore(VirtualClock())
    lookup = Lookup(store)
    await store.put("services", "d/a", _draft("a"), 0)
    first = lookup.get("services", "d/a")
    assert lookup.get("services", "d/a") is first
    await store.put("services", "d/a", _draft("a"), None)
    again = lookup.get("services", "d/a")
    assert again is not first
    assert again["metadata"]["resourceVersion"] == str(store.revision)


async def test_objects_that_come_and_go_are_not_kept():
    store = MemoryStore(VirtualClock())
    lookup = Lookup(store)
    await store.put("services", "d/stays", _draft("stays"), 0)
    stays = lookup.get("services", "d/stays")
    for number in range(5000):
        key = f"d/{number}"
        await store.put("services", key, _draft(key), 0)
        assert lookup.get("services", key) is not None
        await store.delete("services", key, None)
        assert lookup.get("services", key) is None
    assert lookup.get("services", "d/stays") is stays
    assert len(lookup._objects) < 2000
