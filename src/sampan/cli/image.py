"""`sampan image`: the machine's image store, which all nodes of all clusters of this user share."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sampan.base.errors import SampanError
from sampan.cli.show import size, table
from sampan.cluster.paths import Paths
from sampan.node.images import archive, configured, host, reference, registry
from sampan.node.images.store import FULL, Store
from sampan.node.images.unpack import UnpackError

_ROOM = "Make room there, for example with: sampan image rm NAME"


def load(arguments: argparse.Namespace) -> int:
    """Load a `docker save` archive or an OCI layout, from a file, a directory or standard input."""
    source = arguments.archive
    _check_name(arguments.ref)
    if source == "-" and sys.stdin.isatty():
        raise SampanError(
            "standard input is a terminal", "For example: docker save web:1 | sampan image load -"
        )
    store = _store(arguments)
    with _understood(source, store):
        loaded = archive.load(store, sys.stdin.buffer if source == "-" else source, arguments.ref or "")
    if not loaded:
        raise SampanError(f"{source} holds no image")
    for ref in loaded:
        print(f"loaded {ref}")
        if ref.startswith("sha256:"):
            print("  It has no name, so no pod can ask for it. Give it one: sampan image load --ref NAME")
    return 0


def pull(arguments: argparse.Namespace) -> int:
    """Fetch images from their registries, as a node would, with the progress of each layer."""
    logins = _logins(arguments.credentials)
    for given in arguments.refs:
        ref = reference.parse(_canonical(given))
        if ref.host == "localhost":
            raise SampanError(f"{ref} is local to this machine", "Load it: sampan image load, or import.")
        shown = Layers()
        try:
            settings = configured.read(ref.host)
            registry.pull(_store(arguments), ref, logins, settings, shown)
        except (registry.PullError, ValueError) as error:
            full = isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL
            raise SampanError(str(error), _ROOM if full else "") from None
        finally:
            shown.end()
        print(f"pulled {ref}")
    return 0


class Layers:
    """Progress of layers that arrive side by side: one line in place on a terminal, else a line for each that is there."""

    def __init__(self) -> None:
        self._have: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._terminal = sys.stdout.isatty()

    def __call__(self, digest: str, have: int, total: int) -> None:
        """Called from the threads that download."""
        with self._lock:
            complete = have >= total > 0 and self._have.get(digest, (0, 0))[0] < total
            self._have[digest] = (have, total)
            if self._terminal:
                done = sum(h for h, _ in self._have.values())
                count = sum(h >= t for h, t in self._have.values())
                print(f"\r  {count} of {len(self._have)} layers, {size(done)}   ", end="", flush=True)
            elif complete:
                print(f"  layer {digest.removeprefix('sha256:')[:12]} {size(total)}", flush=True)

    def end(self) -> None:
        if self._terminal and self._have:
            print()


def _logins(path: str | None) -> list[dict[str, Any]]:
    """A Docker configuration file's logins; without a path the user's own, if there is one."""
    chosen = path or os.path.expanduser("~/.docker/config.json")
    try:
        with open(chosen, "rb") as file:
            return [json.load(file)]
    except FileNotFoundError:
        if path:
            raise SampanError(f"there is no {path}") from None
    except ValueError:
        raise SampanError(f"{chosen} is not JSON", "It is what `docker login` writes.") from None
    return []


def ls(arguments: argparse.Namespace) -> int:
    """Names, ids and sizes; the built-in image is always there."""
    rows = [[f"{host.REPOSITORY}:*", "-", "-", "built in: this machine's own programs"]]
    for image in _store(arguments).list():
        command = [*(image.config.get("Entrypoint") or ()), *(image.config.get("Cmd") or ())]
        rows.append(
            [image.ref, image.id.removeprefix("sha256:")[:12], size(image.size), " ".join(command)[:50]]
        )
    table(["name", "id", "size", "runs"], rows)
    return 0


def rm(arguments: argparse.Namespace) -> int:
    """Forget names (or ids); layers that containers use go when those have ended."""
    store = _store(arguments)
    known = store.list()
    missing = []
    for given in arguments.refs:
        if host.is_host(_canonical(given)):
            raise SampanError(f"{given} is built in and cannot be removed")
        names = [image.id for image in known if image.id.removeprefix("sha256:")[:12] == given]
        if store.remove(names[0] if names else _canonical(given)):
            print(f"removed {given}")
        else:
            missing.append(given)
    if missing:
        raise SampanError(f"there is no image {', '.join(missing)}", "Those there are: sampan image ls")
    return 0


def import_(arguments: argparse.Namespace) -> int:
    """Make an image of a directory tree (or a tar of one)."""
    _check_name(arguments.ref)
    if not os.path.exists(arguments.directory):
        raise SampanError(f"there is no {arguments.directory}")
    config = {"Cmd": arguments.cmd} if arguments.cmd else {}
    store = _store(arguments)
    with _understood(arguments.directory, store):
        print(f"imported {archive.import_root(store, arguments.directory, arguments.ref, config)}")
    return 0


def _store(arguments: argparse.Namespace) -> Store:
    return Store(str(Paths.of(arguments.name, arguments.data_dir).images))


def _canonical(name: str) -> str:
    try:
        return name if name.startswith("sha256:") else str(reference.parse(name))
    except ValueError as error:
        raise SampanError(str(error), "A name looks like localhost/web:v1.") from None


def _check_name(name: str | None) -> None:
    if name and host.is_host(_canonical(name)):
        raise SampanError(f"{name} is the built-in image", f"Choose another name, such as {name}-mine.")


@contextmanager
def _understood(source: str, store: Store) -> Iterator[None]:
    """Failures of reading, unpacking and storing in words."""
    try:
        yield
    except FileNotFoundError as error:
        raise SampanError(f"there is no {error.filename or source}") from None
    except (archive.ArchiveError, UnpackError) as error:
        hint = (
            "It takes what `docker save` writes, and OCI layouts; a plain directory tree: sampan image import"
        )
        raise SampanError(f"{source}: {error}", hint) from None
    except ValueError as error:
        raise SampanError(str(error), "A name looks like localhost/web:v1.") from None
    except OSError as error:
        if error.errno in FULL:
            raise SampanError(f"cannot store it in {store.directory}: {error.strerror}", _ROOM) from None
        if error.filename:
            raise
        raise SampanError(f"{source}: {error.strerror or error}") from None
