"""The code in docs/testing.md runs as it is printed."""

import re
from pathlib import Path

import pytest

from sampan.testing import Cluster

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def printed():
    found = {}
    for block in BLOCKS:
        names: dict = {}
        exec(compile(block, "docs/testing.md", "exec"), names)
        found |= {name: value for name, value in names.items() if name.startswith("test_")}
    return found


@pytest.mark.parametrize("name", printed())
async def test_a_printed_test_passes(name):
    async with Cluster(nodes=2) as cluster:
        await printed()[name](cluster)


def test_the_words_of_the_annotation_are_those_there_are():
    source = (Path(__file__).resolve().parents[2] / "src/sampan/node/simulated.py").read_text()
    for word in (
        "exit",
        "after",
        "times",
        "ready",
        "live",
        "start",
        "stop",
        "error",
        "reason",
        "message",
        "log",
        "cpu",
    ):
        assert f"{word}=" in TEXT and f"{word}=" in source
