"""Large packages begin with a map of their modules, for those who open them for the first time."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sampan.cli import demo

SOURCE = Path(__file__).parents[1] / "src" / "sampan"


@pytest.mark.parametrize(
    "package",
    [
        "api",
        "cluster",
        "node",
        "node/native",
        "node/network",
        "node/pods",
        "server",
        "server/admission",
        "server/aggregation",
        "server/auth",
        "server/egress",
        "server/flowcontrol",
        "server/nonresource",
        "server/strategies",
        "server/subresources",
    ],
)
def test_its_map_names_every_module(package):
    directory = SOURCE / package
    told = ast.get_docstring(ast.parse((directory / "__init__.py").read_text())) or ""
    modules = {path.stem for path in directory.glob("*.py")} - {"__init__"}
    assert not modules - set(re.findall(r"\w+", told)), "name them in the package's __init__.py"


def test_what_the_demo_applies_is_installed_with_it():
    manifest = demo.MANIFEST
    assert (
        manifest.is_relative_to(SOURCE)
        and manifest.read_bytes() == (SOURCE.parents[1] / "examples/web.yaml").read_bytes()
    )
