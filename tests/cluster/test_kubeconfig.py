import pytest
import yaml

from sampan.base.errors import SampanError
from sampan.cluster import kubeconfig

OURS = kubeconfig.entries("sampan", "https://127.0.0.1:6443", b"ca", b"cert", b"key")
THEIRS = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
    "current-context": "prod",
    "x-unknown": {"kept": True},
}


def read(path):
    return yaml.safe_load(path.read_text())


def test_merge_keeps_what_is_there_and_remove_puts_it_back(tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(THEIRS))
    kubeconfig.merge(path, OURS)
    merged = read(path)
    assert merged["current-context"] == "sampan"
    assert [c["name"] for c in merged["clusters"]] == ["prod", "sampan"]
    assert merged["x-unknown"] == {"kept": True}
    assert kubeconfig.remove(path, "sampan")
    assert read(path) == THEIRS


def test_merging_twice_changes_nothing_more(tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(THEIRS))
    kubeconfig.merge(path, OURS)
    kubeconfig.merge(path, OURS)
    assert len(read(path)["contexts"]) == 2


def test_remove_leaves_a_context_the_user_chose_since(tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(THEIRS))
    kubeconfig.merge(path, OURS)
    chosen = read(path) | {"current-context": "prod"}
    path.write_text(yaml.safe_dump(chosen))
    kubeconfig.remove(path, "sampan")
    assert read(path)["current-context"] == "prod"


def test_a_new_file_is_private(tmp_path):
    path = tmp_path / "dir" / "config"
    kubeconfig.merge(path, OURS)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_held_by_another_is_respected(tmp_path):
    path = tmp_path / "config"
    (tmp_path / "config.lock").touch()
    with pytest.raises(SampanError, match="another program"):
        kubeconfig.merge(path, OURS)


def test_a_damaged_file_is_not_overwritten(tmp_path):
    path = tmp_path / "config"
    path.write_text("a: [")
    with pytest.raises(SampanError, match="not valid YAML"):
        kubeconfig.merge(path, OURS)
    assert path.read_text() == "a: ["
