"""The examples are accepted as they are by the server a newcomer will send them to, and the test in README runs."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from sampan.testing import Cluster

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
DEFINITION = EXAMPLES / "10-custom-resource.yaml"


def documents(path):
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


async def create(cluster, path):
    for obj in documents(path):
        group, _, version = obj["apiVersion"].rpartition("/")
        row = cluster.plane.registry.by_kind(group, version, obj["kind"])
        if row.namespaced:
            obj["metadata"].setdefault("namespace", "default")
        await cluster.client.create(row, obj)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
async def test_an_example_is_accepted(path):
    async with Cluster(nodes=1) as cluster:
        if path.name == "11-boat.yaml":
            await create(cluster, DEFINITION)
            await cluster.settle()
        await create(cluster, path)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_example_says_what_it_shows(path):
    assert path.read_text().startswith("# ") and path.name in (EXAMPLES / "README.md").read_text()


def test_the_test_in_the_readme_is_the_one_that_runs():
    lines = (EXAMPLES / "test_operator.py").read_text()
    readme = (EXAMPLES.parent / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0].strip().splitlines()
    body = [line.partition("  #")[0].strip() for line in code if line.strip() and not line.startswith("from")]
    missing = [line for line in body if line not in lines]
    assert missing == []


def _example():
    spec = importlib.util.spec_from_file_location("test_operator", EXAMPLES / "test_operator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [n for n in dir(_example()) if n.startswith("test_")])
async def test_the_example_of_a_test_passes(name):
    await getattr(_example(), name)()
