"""Writes to a store until it is killed, saying on stdout what was acknowledged. Run by test_crash.py."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from sampan.base.clock import RealClock
from sampan.store.durable import DurableStore
from sampan.store.protocol import Draft

HEAD = b'{"metadata":{"resourceVersion":"'


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def writer(store: DurableStore, name: str, chance: random.Random) -> None:
    """Each writer has keys of its own, so that its acknowledgements are in order."""
    for count in range(1_000_000):
        key = f"{name}/{chance.randrange(20)}"
        if chance.random() < 0.3 and store.get("pods", key):
            say("try", key, 0)
            change = await store.delete("pods", key, None)
            say("ack", key, 0, change.revision)
        else:
            value = HEAD + b'"},"n":%d,"pad":"%s"}' % (count, b"x" * chance.randrange(3000))
            say("try", key, count)
            item = await store.put("pods", key, Draft(value, len(HEAD), {}, {}), None)
            say("ack", key, count, item.revision)
        if chance.random() < 0.1:
            lease = Draft(HEAD + b'"}}', len(HEAD), {}, {})
            item = await store.put("leases.coordination.k8s.io", f"kube-node-lease/{name}", lease, None)
            say("lease", item.revision)


async def main(path: str, seed: int) -> None:
    store = DurableStore(Path(path), RealClock(), on_fatal=lambda e: None, segment=1 << 18, compact=1 << 19)
    say("open", store.revision)
    await asyncio.gather(*[writer(store, f"w{n}", random.Random(seed * 100 + n)) for n in range(8)])


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
