"""`sampan image`: the machine's image store, which all nodes of all clusters of this user share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sampan.base.errors import SampanError
from sampan.cli.show import size, table
from sampan.cluster.paths import Paths
from sampan.node.images import archive, host, reference
from sampan.node.images.store import Store
from sampan.node.images.unpack import UnpackError


def load(arguments: argparse.Namespace) -> int:
    """Load a `docker save` archive or an OCI layout, from a file, a directory or standard input."""
    source = arguments.archive
    _check_name(arguments.ref)
    if source == "-" and sys.stdin.isatty():
        raise SampanError(
            "standard input is a terminal", "For example: docker save web:1 | sampan image load -"
        )
    with _understood(source):
        loaded = archive.load(
            _store(arguments), sys.stdin.buffer if source == "-" else source, arguments.ref or ""
        )
    if not loaded:
        raise SampanError(f"{source} holds no image")
    for ref in loaded:
        print(f"loaded {ref}")
        if ref.startswith("sha256:"):
            print("  It has no name, so no pod can ask for it. Give it one: sampan image load --ref NAME")
    return 0


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
    with _understood(arguments.directory):
        print(
            f"imported {archive.import_root(_store(arguments), arguments.directory, arguments.ref, config)}"
        )
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
def _understood(source: str) -> Iterator[None]:
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
    except PermissionError:
        raise
    except OSError as error:
        hint = "The disk is full." if error.errno == 28 else ""
        raise SampanError(f"{source}: {error.strerror or error}", hint) from None
