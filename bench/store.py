"""Durable writes a second, by 1, 16 and 64 writers at once: `python bench/store.py [directory] [seconds]`."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from sampan.base.clock import RealClock
from sampan.store.open import open_store
from sampan.store.protocol import Draft

HEAD = b'{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"'
DRAFT = Draft(HEAD + b'"},"pad":"' + b"x" * 2000 + b'"}', len(HEAD), {"app": "web"}, {"spec.nodeName": "n1"})


async def measure(path: Path | None, writers: int, seconds: float) -> tuple[float, float]:
    """Puts a second, and the 99th percentile of one in milliseconds."""
    store = open_store(path, clock=RealClock())
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def write(number: int) -> None:
        count = 0
        while (began := time.perf_counter()) < end:
            await store.put("pods", f"w{number}/{count % 1000}", DRAFT, None)
            took.append(time.perf_counter() - began)
            count += 1
            if path is None and count % 100 == 0:
                await asyncio.sleep(0)

    await asyncio.gather(*[write(n) for n in range(writers)])
    await store.close()
    took.sort()
    return len(took) / seconds, took[len(took) * 99 // 100] * 1000


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    for name in ("memory", "durable"):
        for writers in (1, 16, 64):
            path = Path(tempfile.mkdtemp(dir=directory)) if name == "durable" else None
            rate, slow = uvloop.run(measure(path, writers, seconds))
            print(f"{name:8} {writers:3} writers {rate:9,.0f} puts/s   p99 {slow:6.2f} ms", flush=True)
            if path is not None:
                began = time.perf_counter()
                store = open_store(path, clock=RealClock())
                print(
                    f"{'':8} opened in {(time.perf_counter() - began) * 1000:.0f} ms: {store.count('pods')} objects"
                )
                asyncio.run(store.close())
                shutil.rmtree(path)


if __name__ == "__main__":
    main()
