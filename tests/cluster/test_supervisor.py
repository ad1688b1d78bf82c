"""What the supervisor has in memory is in every fork of it: nodes, zygotes, the shim of each container."""

import subprocess
import sys
from pathlib import Path

import sampan

LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
from sampan.cluster import supervisor
print(*sorted({"threading", "asyncio", "logging", "subprocess", "numpy", "orjson", "cryptography"} & set(sys.modules)))
"""


def test_it_loads_nothing_that_makes_forks_dear():
    source = str(Path(sampan.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-I", "-c", LOAD, source], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
