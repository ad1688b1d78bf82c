"""Any history of writes, restarts and reads agrees with a plain dictionary."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.base.clock import VirtualClock
from sampan.store.durable import DurableStore
from sampan.store.memory import MemoryStore
from sampan.store.protocol import Conflict, Draft

HEAD = b'{"metadata":{"resourceVersion":"'
KEYS = st.sampled_from(["a/1", "a/2", "b/1", "b", "c/1"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.sampled_from(["any", "right", "wrong", "absent"])),
        st.tuples(st.just("delete"), KEYS, st.sampled_from(["any", "right", "wrong"])),
        st.tuples(st.just("lease"), KEYS, st.just("any")),
        st.tuples(st.just("reopen"), KEYS, st.just("any")),
    ),
    max_size=40,
)


def expectation(kind, model, key):
    here = model.get(key, 0)
    return {"any": None, "right": here, "wrong": here + 1, "absent": 0}[kind]


async def check(make, steps, reopens):
    store = make()
    model: dict[str, int] = {}
    history: list[tuple[int, dict[str, int]]] = [(store.revision, {})]
    seen = [store.revision]
    try:
        for what, key, kind in steps:
            expected = expectation(kind, model, key)
            if what == "put":
                ok = expected is None or expected == model.get(key, 0)
                draft = Draft(HEAD + b'"}}', len(HEAD), {}, {})
                try:
                    model[key] = (await store.put("pods", key, draft, expected)).revision
                    assert ok
                except Conflict as error:
                    assert not ok and (error.latest.revision if error.latest else 0) == model.get(key, 0)
            elif what == "delete":
                try:
                    await store.delete("pods", key, expected)
                    assert expected in (None, model.pop(key))
                except Conflict:
                    assert expected != model[key]
                except KeyError:
                    assert key not in model
            elif what == "lease":
                draft = Draft(HEAD + b'"}}', len(HEAD), {}, {})
                await store.put("leases.coordination.k8s.io", f"kube-node-lease/{key}", draft, None)
            elif reopens:
                await store.close()
                store = make()
            assert store.revision >= seen[-1]
            seen.append(store.revision)
            history.append((store.revision, dict(model)))
            assert {i.key: i.revision for i in store.list("pods").items} == model
            assert [i.key for i in store.list("pods", "a/").items] == sorted(
                k for k in model if k.startswith("a/")
            )
        if not reopens:
            for revision, then in history:
                latest = [m for r, m in history if r == revision][-1]
                assert {i.key: i.revision for i in store.list("pods", revision=revision).items} == latest, (
                    then
                )
        replayed: dict[str, int] = {}
        watch = store.watch("pods", since=1)
        while changes := watch.take():
            for change in changes:
                assert (change.previous.revision if change.previous else None) == replayed.get(change.key)
                if change.item:
                    replayed[change.key] = change.revision
                else:
                    del replayed[change.key]
        assert replayed == model
    finally:
        await store.close()


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_store_in_memory_does_what_the_model_does(steps):
    clock = VirtualClock()
    asyncio.run(check(lambda: MemoryStore(clock), steps, False))


@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_a_store_on_disk_does_what_the_model_does(steps):
    with tempfile.TemporaryDirectory() as path:
        clock = VirtualClock()
        make = lambda: DurableStore(Path(path), clock, on_fatal=pytest.fail, segment=4096)  # noqa: E731
        asyncio.run(check(make, steps, True))
