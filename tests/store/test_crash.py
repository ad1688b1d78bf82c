"""kill -9 at any moment: what was acknowledged is there, what was deleted stays away, no revision comes twice."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from pathlib import Path

from sampan.base.clock import RealClock
from sampan.store.durable import DurableStore

WRITER = Path(__file__).with_name("crash_writer.py")
ROUNDS = 6


def run_and_kill(path: Path, seed: int, seconds: float) -> list[list[str]]:
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().startswith("open")
    time.sleep(seconds)
    process.kill()
    lines, _ = process.communicate()
    return [line.split() for line in lines.splitlines() if line.count(" ") >= 1]


async def test_no_acknowledged_write_is_lost(tmp_path):
    chance = random.Random(1)
    allowed: dict[
        str, set[int]
    ] = {}  # key -> contents that may be found: the acknowledged one, or one on its way
    highest = 0
    for seed in range(ROUNDS):
        for line in run_and_kill(tmp_path, seed, chance.uniform(0.05, 0.4)):
            match line:
                case ["try", key, count]:
                    allowed.setdefault(key, {0}).add(int(count))
                case ["ack", key, count, revision]:
                    allowed[key] = {int(count)}
                    highest = max(highest, int(revision))
                case ["lease", revision]:
                    highest = max(highest, int(revision))
        store = DurableStore(tmp_path, RealClock(), on_fatal=lambda e: None, segment=1 << 18)
        assert store.revision >= highest
        for key, contents in allowed.items():
            item = store.get("pods", key)
            found = int(re.search(rb'"n":(\d+)', item.value)[1]) if item else 0
            assert found in contents, (key, found, contents)
            if item:
                assert b'"resourceVersion":"%d"' % item.revision in item.value
            allowed[key] = {found}
        assert store.count("leases.coordination.k8s.io") == 0
        await store.close()
    assert highest > 100
