"""What every store owes its server: conditional writes, consistent lists, complete watches."""

from __future__ import annotations

import asyncio

import pytest

from sampan.store.memory import MemoryStore
from sampan.store.protocol import KEY, Compacted, Conflict, Draft


def draft(text: str = "x", **labels: str) -> Draft:
    head = b'{"metadata":{"resourceVersion":"'
    return Draft(head + b'"},"x":"' + text.encode() + b'"}', len(head), labels, {})


def bytes_of(revision: int, text: str = "x") -> bytes:
    return b'{"metadata":{"resourceVersion":"%d"},"x":"%b"}' % (revision, text.encode())


async def test_the_revision_is_spliced_into_the_bytes(store):
    item = await store.put("pods", "a/x", draft("one", app="web"), 0)
    assert item.value == bytes_of(item.revision, "one")
    assert store.get("pods", "a/x") is item
    assert store.revision == item.revision == item.created
    assert item.labels == {"app": "web"}


async def test_a_deletion_carries_the_last_state_with_its_own_revision(store):
    item = await store.put("pods", "a/x", draft("one"), 0)
    change = await store.delete("pods", "a/x", item.revision)
    assert change.revision == item.revision + 1
    assert change.final == bytes_of(change.revision, "one")
    assert change.item is None and change.previous is item
    assert store.get("pods", "a/x") is None and store.count("pods") == 0


async def test_created_survives_updates_and_not_deletion(store):
    first = await store.put("pods", "a/x", draft(), 0)
    assert (await store.put("pods", "a/x", draft(), None)).created == first.revision
    await store.delete("pods", "a/x", None)
    assert (await store.put("pods", "a/x", draft(), 0)).created > first.revision


async def test_expected_revisions(store):
    with pytest.raises(Conflict) as error:
        await store.put("pods", "a/x", draft(), 5)
    assert error.value.latest is None
    item = await store.put("pods", "a/x", draft(), 0)
    with pytest.raises(Conflict) as error:
        await store.put("pods", "a/x", draft(), 0)
    assert error.value.latest is item
    with pytest.raises(Conflict):
        await store.delete("pods", "a/x", item.revision - 1)
    with pytest.raises(KeyError):
        await store.delete("pods", "a/y", None)
    newer = await store.put("pods", "a/x", draft("two"), item.revision)
    assert newer.revision > item.revision


async def test_of_many_writers_with_one_expectation_one_wins(store):
    item = await store.put("pods", "a/x", draft(), 0)
    results = await asyncio.gather(
        *[store.put("pods", "a/x", draft(str(n)), item.revision) for n in range(10)], return_exceptions=True
    )
    assert [isinstance(r, Conflict) for r in results] == [False] + [True] * 9
    assert store.get("pods", "a/x").value == bytes_of(item.revision + 1, "0")


async def test_lists_are_sorted_and_stay_within_their_prefix(store):
    for key in ("b/1", "a/2", "a/1", "aa/1", "a-b/1"):
        await store.put("pods", key, draft(), 0)
    assert [i.key for i in store.list("pods").items] == ["a-b/1", "a/1", "a/2", "aa/1", "b/1"]
    page = store.list("pods", "a/")
    assert [i.key for i in page.items] == ["a/1", "a/2"]
    assert (page.revision, page.remaining) == (store.revision, 0)
    assert store.list("nothing").items == []
    assert store.buckets() == ["pods"]


@pytest.mark.parametrize(
    ("prefix", "limit", "items"), [("", 0, 40), ("a/", 0, 30), ("a/", 10, 10), ("c/", 0, 0)]
)
async def test_the_size_of_a_list_is_estimated(store, prefix, limit, items):
    for n in range(40):
        await store.put("pods", f"{'a' if n < 30 else 'b'}/{n}", draft("x" * 1000), 0)
    assert items * 1000 <= store.estimate("pods", prefix, limit) <= items * 1100
    assert store.estimate("nothing", prefix, limit) == 0


async def test_pages_show_one_moment(store):
    for n in range(10):
        await store.put("pods", f"a/{n}", draft(), 0)
    page = store.list("pods", "a/", limit=4)
    assert page.remaining == 6
    await store.delete("pods", "a/5", None)
    await store.put("pods", "a/55", draft(), 0)
    await store.put("pods", "a/6", draft("new"), None)
    rest = store.list("pods", "a/", after="a/3", limit=4, revision=page.revision)
    assert [i.key for i in rest.items] == ["a/4", "a/5", "a/6", "a/7"]
    assert rest.items[2].value.endswith(b'"x"}') and rest.remaining == 2
    last = store.list("pods", "a/", after="a/7", limit=4, revision=page.revision)
    assert [i.key for i in last.items] == ["a/8", "a/9"] and last.revision == page.revision


async def test_a_page_token_expires(store, clock):
    for n in range(3):
        await store.put("pods", f"a/{n}", draft(), 0)
    page = store.list("pods", limit=1)
    await clock.advance(299)
    for _ in range(200):
        await store.put("pods", "a/0", draft(), None)
    assert store.list("pods", after="a/0", limit=1, revision=page.revision).items
    await clock.advance(2)
    with pytest.raises(Compacted):
        store.list("pods", after="a/0", limit=1, revision=page.revision)


async def test_a_page_token_expires_also_where_nothing_changes(store, clock):
    for n in range(3):
        await store.put("pods", f"a/{n}", draft(), 0)
    page = store.list("pods", limit=1)
    for _ in range(35):  # others write on
        await store.put("nodes", "b", draft(), None)
        await clock.advance(10)
    with pytest.raises(Compacted):
        store.list("pods", after="a/0", limit=1, revision=page.revision)
    assert store.list("pods", revision=store.revision).items


async def test_an_exact_older_revision_is_rebuilt_from_history(store):
    first = await store.put("pods", "a/1", draft("one"), 0)
    await store.put("pods", "a/2", draft(), 0)
    await store.put("pods", "a/1", draft("two"), None)
    await store.delete("pods", "a/2", None)
    assert store.list("pods", revision=first.revision).items == [first]
    assert [i.key for i in store.list("pods", revision=first.revision + 1).items] == ["a/1", "a/2"]


async def take(watch, count: int):
    changes = []
    async for batch in watch:
        changes += batch
        if len(changes) >= count:
            return changes


async def test_a_watch_sees_every_later_change_of_its_prefix_in_order(store):
    before = await store.put("pods", "a/1", draft(), 0)
    watch = store.watch("pods", "a/", since=before.revision)
    reader = asyncio.ensure_future(take(watch, 3))
    await asyncio.sleep(0)
    await store.put("pods", "a/2", draft(), 0)
    await store.put("pods", "b/1", draft(), 0)
    await store.put("configmaps", "a/1", draft(), 0)
    await store.put("pods", "a/1", draft("new"), None)
    await store.delete("pods", "a/2", None)
    created, updated, deleted = await reader
    assert (created.key, created.previous, created.item.key) == ("a/2", None, "a/2")
    assert (updated.key, updated.previous) == ("a/1", before)
    assert deleted.item is None and b'"%d"' % deleted.revision in deleted.final
    assert watch.revision == store.revision


def on(node: str) -> Draft:
    made = draft()
    made.fields = {"spec.nodeName": node}
    return made


async def test_a_routed_watch_sees_what_enters_changes_and_leaves_and_sleeps_through_the_rest(store):
    before = await store.put("pods", "a/0", on("n1"), 0)
    await store.put("pods", "a/1", on("n1"), 0)
    await store.put("pods", "a/2", on("n2"), 0)
    watch = store.watch("pods", "a/", since=before.revision, route=("spec.nodeName", "n1"))
    assert [c.key for c in await take(watch, 1)] == ["a/1"]
    waking = asyncio.ensure_future(anext(aiter(watch)))
    await asyncio.sleep(0)
    await store.put("pods", "a/2", on("n2"), None)
    await store.put("pods", "b/1", on("n1"), 0)
    await asyncio.sleep(0)
    assert not waking.done()
    await store.put("pods", "a/2", on("n1"), None)
    assert [c.key for c in await waking] == ["a/2"]
    await store.put("pods", "a/1", on("n2"), None)
    await store.put("pods", "a/1", on("n3"), None)
    await store.delete("pods", "a/2", None)
    assert [(c.key, c.item is None) for c in await take(watch, 2)] == [("a/1", False), ("a/2", True)]
    assert watch.revision == store.revision
    watch.close()
    assert not watch._history._routes


async def test_a_watch_routed_to_one_key(store):
    watch = store.watch("pods", "a/1", since=store.revision, route=(KEY, "a/1"))
    reader = asyncio.ensure_future(take(watch, 2))
    await asyncio.sleep(0)
    for key in ("a/1", "a/10", "b/1", "a/1"):
        await store.put("pods", key, draft(), None)
    assert [c.key for c in await reader] == ["a/1", "a/1"]


async def test_a_routed_watch_that_is_not_read_costs_no_memory_without_end(store):
    watch = store.watch("pods", since=store.revision, route=(KEY, "a/1"))
    assert not watch.take()
    for _ in range(200):
        await store.put("pods", "a/1", draft(), None)
    with pytest.raises(Compacted):
        await take(watch, 1)


async def test_a_closed_watch_ends(store):
    watch = store.watch("pods", since=store.revision)
    reader = asyncio.ensure_future(take(watch, 1))
    await asyncio.sleep(0)
    watch.close()
    assert await reader is None


async def test_a_watch_from_too_far_back_is_refused(store):
    first = await store.put("pods", "a/1", draft(), 0)
    slow = store.watch("pods", since=first.revision)
    for _ in range(200):
        await store.put("pods", "a/1", draft(), None)
    with pytest.raises(Compacted):
        store.watch("pods", since=first.revision)
    with pytest.raises(Compacted):
        await take(slow, 1)
    store.watch("pods", since=store.revision - 50)


async def test_a_history_of_large_objects_is_short(clock):
    store = MemoryStore(clock)
    for _ in range(50):
        await store.put("pods", "a/1", draft("x" * (1 << 20)), None)
    with pytest.raises(Compacted):
        store.watch("pods", since=store.revision - 45)
    assert len(await take(store.watch("pods", since=store.revision - 25), 25)) == 25


async def test_history_ages(store, clock):
    first = await store.put("pods", "a/1", draft(), 0)
    await store.put("pods", "a/1", draft(), None)
    await clock.advance(601)
    await store.put("pods", "a/1", draft(), None)
    with pytest.raises(Compacted):
        store.watch("pods", since=first.revision - 1)


async def test_a_cancelled_reader_leaves_nothing_behind(store):
    watch = store.watch("pods", since=store.revision)
    reader = asyncio.ensure_future(take(watch, 1))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert not watch._history.waiters


async def test_a_resting_reader_is_fed_without_being_woken(clock):
    store = MemoryStore(clock)
    watches = [store.watch("pods", prefix, since=store.revision) for prefix in ("", "", "a/", "b/")]
    fed: list[list[list[str]]] = [[], [], [], []]
    for watch, got in zip(watches, fed, strict=True):
        watch.feed = lambda batch, got=got: got.append([c.key for c in batch]) is None
    readers = [asyncio.ensure_future(take(watch, 1)) for watch in watches]
    await asyncio.sleep(0)
    await asyncio.gather(*(store.put("pods", f"a/{n:03}", draft(), 0) for n in range(300)))
    for _ in range(10):
        await asyncio.sleep(0)
    everything = [f"a/{n:03}" for n in range(300)]
    assert [[key for batch in got for key in batch] for got in fed] == [everything] * 3 + [[]]
    assert not any(reader.done() for reader in readers)
    assert [watch.revision for watch in watches] == [store.revision] * 4
    for watch in watches:
        watch.close()
    await asyncio.gather(*readers)
    assert not watches[0]._history._fed


async def test_who_refuses_to_be_fed_is_woken_and_misses_nothing(store):
    watch = store.watch("pods", since=store.revision)
    fed: list[str] = []

    def feed(batch) -> bool:
        if len(fed) == 1:
            return False
        fed.extend(change.key for change in batch)
        return True

    watch.feed = feed
    reader = asyncio.ensure_future(take(watch, 1))
    await asyncio.sleep(0)
    for name in ("a/1", "a/2"):
        await store.put("pods", name, draft(), 0)
        for _ in range(3):
            await asyncio.sleep(0)
    assert fed == ["a/1"]
    assert [change.key for change in await reader] == ["a/2"]
