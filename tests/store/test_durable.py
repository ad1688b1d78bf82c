"""What the directory of a store holds after all that can happen to it."""

from __future__ import annotations

import asyncio
import os

import pytest

from sampan.base.clock import VirtualClock
from sampan.base.errors import SampanError
from sampan.store.durable import DurableStore
from sampan.store.frames import Corrupt
from sampan.store.log import StoreFailed
from sampan.store.open import open_store
from sampan.store.protocol import Compacted, Conflict, Draft

HEAD = b'{"metadata":{"resourceVersion":"'
LEASES = "leases.coordination.k8s.io"


def draft(size: int = 10, **labels: str) -> Draft:
    return Draft(HEAD + b'"},"pad":"' + b"x" * size + b'"}', len(HEAD), labels, {"spec.nodeName": "n1"})


@pytest.fixture
async def reopen(tmp_path):
    made = []

    async def again(**options):
        if made:
            await made[-1].close()
        made.append(
            DurableStore(
                tmp_path / "s", VirtualClock(), on_fatal=options.pop("on_fatal", pytest.fail), **options
            )
        )
        return made[-1]

    yield again
    await made[-1].close()


def everything(store):
    return {
        (bucket, i.key): (i.revision, i.value, dict(i.labels), dict(i.fields), i.created, i.slot)
        for bucket in store.buckets()
        for i in store.list(bucket).items
    }


async def test_all_of_an_object_comes_back(reopen):
    store = await reopen()
    await store.put("pods", "a/x", draft(app="web"), 0)
    await store.put("pods", "a/x", draft(app="new"), None)
    await store.put("pods", "a/gone", draft(), 0)
    await store.delete("pods", "a/gone", None)
    await store.put("nodes", "n1", draft(), 0)
    before, revision = everything(store), store.revision
    store = await reopen()
    assert everything(store) == before and store.revision == revision
    assert (await store.put("pods", "a/y", draft(), 0)).revision == revision + 1


async def test_a_watcher_goes_on_across_a_restart(reopen):
    store = await reopen()
    first = await store.put("pods", "a/x", draft(), 0)
    await store.delete("pods", "a/x", None)
    store = await reopen()
    (change,) = await anext(aiter(store.watch("pods", since=first.revision)))
    assert change.item is None and change.previous.value == first.value
    assert b'"resourceVersion":"%d"' % change.revision in change.final


async def test_segments_roll_and_snapshots_replace_them(reopen, tmp_path):
    store = await reopen(segment=1 << 16, compact=1 << 18)
    for n in range(40):
        await asyncio.gather(*[store.put("pods", f"a/{k}", draft(1000, n=str(n)), None) for k in range(30)])
        if store._compacting:
            await asyncio.to_thread(store._compacting.join)
    before = everything(store)
    assert list((tmp_path / "s").glob("*.snapshot"))
    assert sum(f.stat().st_size for f in (tmp_path / "s").glob("*.log")) < 1 << 20
    store = await reopen(segment=1 << 16)
    assert everything(store) == before
    with pytest.raises(Compacted):
        store.watch("pods", since=1)
    await store.put("pods", "a/0", draft(200_000), None)  # longer than a segment
    before = everything(store)
    assert everything(await reopen(segment=1 << 16)) == before


async def test_node_heartbeats_are_not_written(reopen, tmp_path):
    store = await reopen()
    await store.put("pods", "a/x", draft(), 0)
    lease = await store.put(LEASES, "kube-node-lease/n1", draft(), 0)
    other = await store.put(LEASES, "kube-system/leader", draft(), 0)
    frames = store._embedded._sequence
    for _ in range(100):
        lease = await store.put(LEASES, "kube-node-lease/n1", draft(), lease.revision)
    assert store._embedded._sequence == frames
    last = store.revision
    store = await reopen()
    assert store.get(LEASES, "kube-node-lease/n1") is None
    assert store.get(LEASES, "kube-system/leader").revision == other.revision
    assert store.revision > last
    with pytest.raises(Compacted):
        store.watch(LEASES, since=last)
    store.watch("pods", since=last)
    assert (await store.put(LEASES, "kube-node-lease/n1", draft(), 0)).revision > last


async def test_heartbeats_wait_for_writes_before_them(reopen):
    store = await reopen()
    await store.put(LEASES, "kube-node-lease/n1", draft(), 0)
    seen = []

    async def put(bucket, key):
        seen.append((await store.put(bucket, key, draft(), None)).revision)

    await asyncio.gather(put("pods", "a/1"), put(LEASES, "kube-node-lease/n1"), put("pods", "a/2"))
    assert seen == sorted(seen)


async def one_log(tmp_path):
    store = DurableStore(tmp_path / "s", VirtualClock(), on_fatal=pytest.fail, segment=1 << 16)
    ends = []
    for n in range(3):
        await store.put("pods", f"a/{n}", draft(100), 0)
        ends.append(store._segments._offset)
    await store.close()
    (path,) = (tmp_path / "s").glob("*.log")
    return path, ends


async def test_a_cut_off_last_commit_is_forgotten(reopen, tmp_path):
    path, ends = await one_log(tmp_path)
    with open(path, "r+b") as file:
        file.seek(ends[2] - 5)
        file.write(b"garbage")
    store = await reopen(segment=1 << 16)
    assert [i.key for i in store.list("pods").items] == ["a/0", "a/1"]
    await store.put("pods", "a/9", draft(), 0)
    store = await reopen(segment=1 << 16)
    assert [i.key for i in store.list("pods").items] == ["a/0", "a/1", "a/9"]


@pytest.mark.parametrize("damage", [b"X", bytes(40)])
async def test_damage_in_the_middle_is_fatal_and_located(tmp_path, damage):
    path, ends = await one_log(tmp_path)
    with open(path, "r+b") as file:
        file.seek(ends[0])
        file.write(damage)
    with pytest.raises(Corrupt) as error:
        open_store(tmp_path / "s", clock=VirtualClock())
    assert str(path) in error.value.message and f"offset {ends[0]}" in error.value.message


async def test_a_missing_segment_is_fatal(tmp_path):
    store = DurableStore(tmp_path / "s", VirtualClock(), on_fatal=pytest.fail, segment=1 << 12)
    for n in range(10):
        await store.put("pods", f"a/{n}", draft(2000), 0)
    await store.close()
    sorted((tmp_path / "s").glob("*.log"))[1].unlink()
    with pytest.raises(Corrupt):
        open_store(tmp_path / "s", clock=VirtualClock())


async def test_a_second_process_is_kept_out(reopen, tmp_path):
    await reopen()
    with pytest.raises(SampanError, match="in use by another process"):
        open_store(tmp_path / "s", clock=VirtualClock())


async def test_a_newer_format_is_refused(tmp_path):
    await open_store(tmp_path / "s", clock=VirtualClock()).close()
    (tmp_path / "s" / "FORMAT").write_text("sampan-store 99\n")
    with pytest.raises(SampanError, match="format 99"):
        open_store(tmp_path / "s", clock=VirtualClock())


async def test_a_write_error_is_never_acknowledged_and_stops_everything(reopen):
    errors = []
    store = await reopen(on_fatal=errors.append)
    await store.put("pods", "a/1", draft(), 0)
    os.close(store._segments._fd)
    store._segments._fd = os.open("/dev/full", os.O_RDWR)
    results = await asyncio.gather(
        *[store.put("pods", f"b/{n}", draft(), 0) for n in range(3)], return_exceptions=True
    )
    assert all(isinstance(r, StoreFailed) for r in results)
    assert len(errors) == 1 and isinstance(errors[0], OSError)
    assert store.count("pods") == 1
    with pytest.raises(StoreFailed):
        await store.put("pods", "a/2", draft(), 0)


async def test_readers_see_nothing_that_is_not_on_disk(reopen):
    store = await reopen()
    watch = store.watch("pods", since=store.revision)
    writing = asyncio.ensure_future(store.put("pods", "a/1", draft(), 0))
    await asyncio.sleep(0)
    assert store.latest("pods", "a/1") is not None
    assert store.get("pods", "a/1") is None and not watch.take()
    item = await writing
    assert store.get("pods", "a/1") is item and watch.take()[0].item is item


async def test_what_a_conflict_rests_on_can_be_seen_once_the_store_has_settled(reopen):
    store = await reopen()
    first = await store.put("pods", "a/1", draft(), 0)
    writing = asyncio.ensure_future(store.put("pods", "a/1", draft(), first.revision))
    await asyncio.sleep(0)
    with pytest.raises(Conflict):
        await store.put("pods", "a/1", draft(), first.revision)
    assert store.get("pods", "a/1") is first
    await store.settled()
    assert store.get("pods", "a/1") is await writing
    await store.settled()
