"""The kubeconfig is the user's file: sampan adds its own three entries, changes nothing else, and takes them back.

Like client-go it holds FILE.lock while it writes and renames a finished file into place.
"""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sampan.base.errors import SampanError
from sampan.cluster.config import write_atomic

_LISTS = ("clusters", "users", "contexts")
_PATIENCE = 2.0  # seconds that another program may take to write
_PREVIOUS = "sampan.dev/previous-context"


def target(flag: str | None = None) -> Path:
    """--kubeconfig, else the first file of $KUBECONFIG, else ~/.kube/config."""
    if flag:
        return Path(flag).absolute()
    for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep):
        if entry:
            return Path(entry).absolute()
    return Path.home() / ".kube" / "config"


def entries(context: str, server: str, ca: bytes, cert: bytes, key: bytes) -> dict[str, Any]:
    """A complete kubeconfig of one cluster, user and context that share a name."""
    text = [base64.b64encode(part).decode() for part in (ca, cert, key)]
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority-data": text[0]}}],
        "users": [
            {"name": context, "user": {"client-certificate-data": text[1], "client-key-data": text[2]}}
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }


def check(path: Path) -> None:
    """Raises SampanError when this file could not be merged into, before anything depends on it."""
    hint = "Choose a file with --kubeconfig or $KUBECONFIG."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SampanError(f"cannot make {path.parent} for the kubeconfig: {error.strerror}", hint) from None
    if not os.access(path.parent, os.W_OK):
        raise SampanError(f"cannot write a kubeconfig into {path.parent}", hint)
    _read(path)


def merge(path: Path, new: dict[str, Any]) -> None:
    """Add or replace the entries of `new` and make its context current, remembering the one before."""
    with _locked(path):
        config = _read(path)
        context = new["current-context"]
        for name in _LISTS:
            theirs = [e for e in config.get(name) or [] if e.get("name") != context]
            config[name] = theirs + new[name]
        before = config.get("current-context") or ""
        if before != context:
            _remember(config, context, before)
        config["current-context"] = context
        _write(path, config)


def remove(path: Path, context: str) -> bool:
    """Take our entries back; the context that was current before `merge` returns if ours still is. False: not there."""
    if not path.exists():
        return False
    with _locked(path):
        config = _read(path)
        had = any(e.get("name") == context for e in config.get("contexts") or [])
        before = _previous(config, context)
        for name in _LISTS:
            config[name] = [e for e in config.get(name) or [] if e.get("name") != context]
        if config.get("current-context") == context:
            known = {e.get("name") for e in config["contexts"]}
            config["current-context"] = before if before in known else ""
        if had and any(config.get(key) for key in config if key not in ("apiVersion", "kind")):
            _write(path, config)
        elif had:
            path.unlink()  # nothing in it was ever anyone's but ours
        return had


def _remember(config: dict[str, Any], context: str, before: str) -> None:
    for entry in config["contexts"]:
        if entry["name"] == context:
            extension = {"name": _PREVIOUS, "extension": before}
            entry["context"].setdefault("extensions", []).append(extension)


def _previous(config: dict[str, Any], context: str) -> str:
    for entry in config.get("contexts") or []:
        if entry.get("name") == context:
            for extension in entry.get("context", {}).get("extensions") or []:
                if extension.get("name") == _PREVIOUS:
                    return extension.get("extension") or ""
    return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        config = None
    except yaml.YAMLError as error:
        raise SampanError(
            f"{path} is not valid YAML: {error}", "Mend it, or choose another with --kubeconfig."
        ) from None
    if config is None:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not isinstance(config, dict):
        raise SampanError(f"{path} is not a kubeconfig", "Mend it, or choose another with --kubeconfig.")
    return config


def _write(path: Path, config: dict[str, Any]) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    write_atomic(path.resolve(), yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False), mode)


def _taken(lock: Path) -> bool:
    """Whether the lock is ours now. It is client-go's: nobody can wait for it but by trying again."""
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock")
    end = time.monotonic() + _PATIENCE
    while not _taken(lock):
        if time.monotonic() > end:
            raise SampanError(
                f"{lock} exists: another program is writing the kubeconfig",
                "If none is, remove that file and repeat.",
            )
        time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
