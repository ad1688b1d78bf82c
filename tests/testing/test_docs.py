"""The code in docs/testing.md runs as it is printed."""

import inspect
import re
import shutil
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


def taking(*names):
    return {k: v for k, v in printed().items() if tuple(inspect.signature(v).parameters) == names}


@pytest.mark.parametrize("name", [*taking("cluster"), *taking("shared")])
async def test_a_printed_test_passes(name):
    async with Cluster(nodes=2) as cluster:
        await printed()[name](cluster)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_the_printed_tests_over_https_pass(sampan_kubeconfig):
    for test in taking().values():
        test()
    for test in taking("sampan_kubeconfig").values():
        test(sampan_kubeconfig)


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
