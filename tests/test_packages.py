"""Large packages begin with a map of their modules, for those who open them for the first time."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

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
        "server/flowcontrol",
    ],
)
def test_its_map_names_every_module(package):
    directory = SOURCE / package
    told = ast.get_docstring(ast.parse((directory / "__init__.py").read_text())) or ""
    modules = {path.stem for path in directory.glob("*.py")} - {"__init__"}
    assert not modules - set(re.findall(r"\w+", told)), "name them in the package's __init__.py"
