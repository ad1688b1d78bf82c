"""Where a cluster's things are, and what a hint says to find them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.cluster.paths import Paths


@pytest.mark.parametrize(
    "name, data, line",
    [
        ("default", None, "./sampan up"),
        ("boat", None, "./sampan up --name boat"),
        ("boat", "clusters/boat", "./sampan up --name boat"),
        ("boat", "else where", "./sampan up --name boat --data-dir '{root}/else where'"),
        ("default", "elsewhere", "./sampan up --data-dir {root}/elsewhere"),
    ],
)
def test_a_hint_finds_the_cluster_wherever_its_data_are(
    name: str, data: str | None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.cluster.paths.default_data_root", lambda: tmp_path)
    assert Paths.of(name, data and tmp_path / data).command("up") == line.format(root=tmp_path)
