"""A backup is whole or refused, byte by byte."""

from __future__ import annotations

import random

import pytest

from sampan.base.clock import VirtualClock
from sampan.store.backup import Reader, Unreadable, draft_of, pieces
from sampan.store.memory import MemoryStore
from sampan.store.protocol import Draft


async def filled(count=300):
    store = MemoryStore(VirtualClock())
    for number in range(count):
        head = b'{"metadata":{"resourceVersion":"'
        draft = Draft(head + b'","name":"n%d"}}' % number, len(head), {"l": str(number)}, {"f": "x"})
        await store.put("things" if number % 2 else "others", f"d/n{number}", draft, 0)
    await store.put("leases.coordination.k8s.io", "kube-node-lease/n", draft, 0)
    return store


async def test_what_goes_in_comes_out():
    store = await filled()
    data = b"".join(pieces(store, made="now"))
    reader, chance = Reader(), random.Random(1)
    at = 0
    while at < len(data):
        assert not reader.complete
        step = chance.randrange(1, 3000)
        reader.feed(data[at : at + step])
        at += step
    assert reader.complete
    assert (reader.head["items"], reader.head["made"], reader.head["revision"]) == (
        300,
        "now",
        store.revision,
    )
    for record in reader.records:
        now = store.get(record.bucket, record.item.key)
        assert (record.item.value, record.item.labels, record.item.fields) == (
            now.value,
            now.labels,
            now.fields,
        )
        assert draft_of(record.item).value.count(b'"resourceVersion":""') == 1


async def test_writes_meanwhile_do_not_show():
    store = await filled(10)
    stream = pieces(store)
    data = next(stream)
    await store.delete("things", "d/n1", None)
    data += b"".join(stream)
    reader = Reader(keep=False)
    reader.feed(data)
    assert (reader.complete, reader.count, reader.records) == (True, 10, [])


async def test_damage_and_loss_are_found():
    data = b"".join(pieces(await filled(200)))
    for at in range(0, len(data), 97):
        spoilt = bytearray(data)
        spoilt[at] ^= 0x10
        reader = Reader()
        try:
            reader.feed(bytes(spoilt))
        except Unreadable:
            continue
        assert not reader.complete
    for size in range(0, len(data), 501):
        reader = Reader()
        reader.feed(data[:size])
        assert not reader.complete
    with pytest.raises(Unreadable, match="no backup"):
        Reader().feed(b"PK\x03\x04" * 100)
