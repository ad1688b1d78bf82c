"""WATCH: what a watcher is sent, and when it ends."""

from __future__ import annotations

import asyncio
import gc
import weakref

import orjson
import pytest

CMS = "/api/v1/namespaces/d/configmaps"


class Watcher:
    """Collects events in the background."""

    def __init__(self, body):
        self.events = []
        self.ended = False
        self.task = asyncio.create_task(self._run(body))

    async def _run(self, body):
        async for chunk in body:
            self.events += [orjson.loads(line) for line in chunk.splitlines()]
        self.ended = True

    def seen(self):
        return [(e["type"], e["object"]["metadata"].get("name", "")) for e in self.events]


async def _watch(api, query="", **more) -> Watcher:
    response = await api.response("GET", f"{CMS}?watch=1&{query}", **more)
    assert response.status == 200
    watcher = Watcher(response.body)
    await api.clock.settle()
    return watcher


async def test_a_life(ready):
    watcher = await _watch(ready)
    await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    await ready.merge(f"{CMS}/a", {"data": {"k": "v"}})
    await ready.merge(f"{CMS}/a", {"data": {"k": "v"}})  # changes nothing: silent
    await ready.ok("DELETE", f"{CMS}/a")
    await ready.clock.settle()
    assert watcher.seen() == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    revisions = [int(e["object"]["metadata"]["resourceVersion"]) for e in watcher.events]
    assert revisions == sorted(set(revisions))
    assert watcher.events[2]["object"]["data"] == {"k": "v"}
    watcher.task.cancel()


async def test_entering_and_leaving_a_selection(ready):
    watcher = await _watch(ready, "labelSelector=app%3Dx")
    await ready.ok("POST", CMS, {"metadata": {"name": "a", "labels": {"app": "x"}}})
    await ready.merge(f"{CMS}/a", {"metadata": {"labels": {"app": "y"}}})
    await ready.merge(f"{CMS}/a", {"data": {"outside": "unseen"}})
    last = await ready.ok("GET", f"{CMS}/a")
    await ready.merge(f"{CMS}/a", {"metadata": {"labels": {"app": "x"}}})
    await ready.clock.settle()
    assert [e["type"] for e in watcher.events] == ["ADDED", "DELETED", "ADDED"]
    left = watcher.events[1]["object"]["metadata"]
    assert left["labels"] == {"app": "x"}  # as it was last in the selection, at the revision it left
    assert int(left["resourceVersion"]) == int(last["metadata"]["resourceVersion"]) - 1
    watcher.task.cancel()


async def test_initial_events_end_with_a_bookmark(ready):
    await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    watcher = await _watch(ready, query)
    assert [e["type"] for e in watcher.events] == ["ADDED", "BOOKMARK"]
    assert watcher.events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    watcher.task.cancel()


@pytest.mark.parametrize(
    ("kind", "first"),
    [("PartialObjectMetadata", None), ("Table", [["a", 1, "0s"]])],
)
async def test_other_forms_of_a_watch(ready, kind, first):
    await ready.ok("POST", CMS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    accept = f"application/json;as={kind};v=v1;g=meta.k8s.io"
    watcher = await _watch(ready, query, headers={"accept": accept})
    await ready.ok("DELETE", f"{CMS}/a")
    await ready.clock.settle()
    assert [e["type"] for e in watcher.events] == ["ADDED", "BOOKMARK", "DELETED"]
    for event in watcher.events:
        assert (event["object"]["kind"], event["object"]["apiVersion"]) == (kind, "meta.k8s.io/v1")
        assert "data" not in event["object"]
    if first:
        tables = [e["object"] for e in watcher.events]
        assert [r["cells"] for r in tables[0]["rows"]] == first
        assert [bool(t["columnDefinitions"]) for t in tables] == [True, False, False]  # told once
    watcher.task.cancel()


async def test_bookmarks_and_the_timeout_come_by_the_clock(ready):
    watcher = await _watch(ready, "allowWatchBookmarks=true&timeoutSeconds=100")
    await ready.clock.advance(80)
    assert [e["type"] for e in watcher.events] == ["BOOKMARK"]
    assert not watcher.ended
    await ready.clock.advance(21)
    assert watcher.ended


async def test_a_forgotten_revision_is_an_error_event(make_api):
    api = make_api(history=4)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
    for number in range(12):
        await api.ok("POST", CMS, {"metadata": {"name": f"a{number}"}})
    watcher = await _watch(api, "resourceVersion=2")
    assert watcher.ended
    assert [(e["type"], e["object"]["code"], e["object"]["reason"]) for e in watcher.events] == [
        ("ERROR", 410, "Expired")
    ]


async def test_watchers_are_sent_the_same_bytes(ready):
    bodies = [(await ready.response("GET", f"{CMS}?watch=1")).body for _ in range(2)]
    waiting = [asyncio.ensure_future(anext(body)) for body in bodies]
    await ready.clock.settle()
    await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    first, second = await asyncio.gather(*waiting)
    assert first is second
    for body in bodies:
        await body.aclose()


async def test_closing_the_server_ends_watches(ready):
    watcher = await _watch(ready)
    await ready.server.close()
    await ready.clock.settle()
    assert watcher.ended


async def test_a_watch_on_one_object_is_a_read(ready):
    await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    assert (await ready.ok("GET", f"{CMS}/a?watch=true"))["kind"] == "ConfigMap"


async def test_who_follows_in_the_same_process_is_given_what_was_written(ready):
    response = await ready.response("GET", f"{CMS}?watch=1")
    events = []

    async def follow():
        async for batch in response.events():
            events.extend(batch)

    task = asyncio.create_task(follow())
    await ready.clock.settle()
    await ready.ok("POST", CMS, {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}})
    await ready.merge(f"{CMS}/a", {"data": {"k": "w"}})
    await ready.ok("DELETE", f"{CMS}/a")
    await ready.clock.settle()
    task.cancel()
    assert [event.kind for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event.obj for event in events] == [*(orjson.loads(e.value) for e in events[:2]), None]


async def test_what_is_pushed_and_what_is_read_are_together_every_event_once_in_order(ready):
    """A connection takes chunks while it can, and lets the reader have what comes when it cannot."""
    response = await ready.response("GET", f"{CMS}?watch=1&labelSelector=app%3Dx")
    got: list[bytes] = []
    room = True

    def write(chunk: bytes) -> bool:
        if room:
            got.append(chunk)
        return room

    async def read() -> None:
        async for chunk in response.body:
            got.append(chunk)

    response.body.push_to(write)
    reader = asyncio.create_task(read())
    await ready.clock.settle()
    for number in range(6):
        room = number % 3 != 1
        labels = {"app": "x" if number != 2 else "y"}
        await ready.ok("POST", CMS, {"metadata": {"name": f"n{number}", "labels": labels}})
        await ready.clock.settle()
    room = True
    large = {"data": {"k": "v" * 100_000}}
    await asyncio.gather(*(ready.merge(f"{CMS}/n{n}", large) for n in (0, 1)))
    await ready.clock.settle()
    events = [orjson.loads(line) for chunk in got for line in chunk.splitlines()]
    seen = [(e["type"], e["object"]["metadata"]["name"]) for e in events]
    assert seen[:5] == [("ADDED", f"n{number}") for number in (0, 1, 3, 4, 5)]
    assert sorted(seen[5:]) == [("MODIFIED", "n0"), ("MODIFIED", "n1")]
    revisions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert revisions == sorted(set(revisions))
    reader.cancel()


async def test_a_watch_that_ended_is_forgotten_without_the_collector_of_cycles(ready):
    """A thousand watchers that leave would otherwise keep their connections' memory for hours."""
    gc.collect()
    gc.disable()
    try:
        for begun in (True, False):
            body = (await ready.response("GET", f"{CMS}?watch=1")).body
            body.push_to(lambda chunk, kept=body: True)
            reader = asyncio.create_task(anext(body)) if begun else None
            await ready.clock.settle()
            if reader is not None:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
            await body.aclose()
            known = weakref.ref(body)
            del body, reader
            await ready.clock.advance(3600)  # a virtual clock remembers a cancelled timer until its time
            assert known() is None
    finally:
        gc.enable()
