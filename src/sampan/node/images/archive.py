"""Images from files: `docker save` archives, OCI layouts (directory or archive), and root file systems to import."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from sampan.node.images import compression, manifests, reference
from sampan.node.images.store import Store

_MOST_BYTES = 256 << 30
_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class ArchiveError(ValueError):
    """The file is no image archive, or a bad one; says why."""


class _Directory:
    """Files of an unpacked layout."""

    def __init__(self, path: str) -> None:
        self._path = path

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        if ".." in name.split("/") or name.startswith("/"):
            raise ArchiveError(f"bad path in the image layout: {name!r}")
        try:
            with open(f"{self._path}/{name}", "rb") as file:
                yield file
        except FileNotFoundError:
            raise ArchiveError(f"the image layout lacks {name}") from None

    def has(self, name: str) -> bool:
        return os.path.isfile(f"{self._path}/{name}")


class _Tar:
    """Files of an archive."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {os.path.normpath(one.name): one for one in archive}

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        member = self._members.get(os.path.normpath(name))
        hops = 0
        while member is not None and (member.issym() or member.islnk()) and hops < 8:
            link = member.linkname
            if member.issym():  # docker save shares layers by links such as ../HEX/layer.tar
                link = os.path.join(os.path.dirname(member.name), link)
            member, hops = self._members.get(os.path.normpath(link)), hops + 1
        content = self._archive.extractfile(member) if member is not None and member.isreg() else None
        if content is None:
            raise ArchiveError(f"the archive lacks {name}")
        with content:
            yield content  # type: ignore[misc]

    def has(self, name: str) -> bool:
        return name in self._members


_Files = _Directory | _Tar


def load(store: Store, source: str | BinaryIO, name: str = "") -> list[str]:
    """Load every image of an archive or layout; returns their canonical references.

    `source` is a path, or a stream such as standard input (kept in a temporary file). `name` is for an image without
    one. Blocking. Raises ArchiveError, UnpackError, or OSError.
    """
    with store.adding():
        if isinstance(source, str) and os.path.isdir(source):
            return _load(store, _Directory(source), name)
        with contextlib.ExitStack() as stack:
            if isinstance(source, str):
                file: BinaryIO = stack.enter_context(open(source, "rb"))
            else:
                file = stack.enter_context(tempfile.TemporaryFile(dir=f"{store.directory}/ingest"))
                shutil.copyfileobj(source, file, 1 << 20)
                file.seek(0)
            if compression.is_compressed(file):
                file = stack.enter_context(_plain(store, file))
            try:
                archive = stack.enter_context(tarfile.open(fileobj=file, mode="r:"))
                files = _Tar(archive)
            except tarfile.TarError as error:
                raise ArchiveError(f"not an image archive: {error}") from None
            return _load(store, files, name)


@contextlib.contextmanager
def _plain(store: Store, file: BinaryIO) -> Iterator[BinaryIO]:
    """The archive without its compression, on disk: its parts are read in another order than they are in it."""
    with tempfile.TemporaryFile(dir=f"{store.directory}/ingest") as plain:
        try:
            plain.writelines(compression.Content(file, _MOST_BYTES))
        except ValueError as error:
            raise ArchiveError(f"not an image archive: {error}") from None
        plain.seek(0)
        yield plain


def _load(store: Store, files: _Files, name: str) -> list[str]:
    if files.has("manifest.json"):
        loaded = [_load_docker(store, files, entry, name) for entry in _json(files, "manifest.json")]
    elif files.has("index.json"):
        listed = _json(files, "index.json").get("manifests") or []
        ours = [one for one in listed if manifests.is_ours(one)] or listed
        loaded = [_load_oci(store, files, descriptor, name) for descriptor in ours]
    else:
        raise ArchiveError("neither manifest.json (docker save) nor index.json (OCI layout) is there")
    return [ref for refs in loaded for ref in refs]


def _json(files: _Files, path: str) -> Any:
    with files.open(path) as file:
        try:
            return json.loads(file.read(32 << 20))
        except ValueError as error:
            raise ArchiveError(f"{path}: {error}") from None


def _load_docker(store: Store, files: _Files, entry: Mapping[str, Any], name: str) -> list[str]:
    with files.open(entry["Config"]) as file:
        raw = file.read(32 << 20)
    config = json.loads(raw)
    _config(config, len(entry["Layers"]))
    size = 0
    for path, diff_id in zip(entry["Layers"], config["rootfs"]["diff_ids"], strict=True):
        size += _layer(store, files, path, diff_id)
    names = [str(reference.parse(one)) for one in entry.get("RepoTags") or ([name] if name else [])]
    return _name(store, names, manifests.digest_of(raw), config, size, "")


def _load_oci(store: Store, files: _Files, descriptor: Mapping[str, Any], name: str) -> list[str]:
    annotations = descriptor.get("annotations") or {}
    digest = descriptor["digest"]
    manifest = json.loads(_blob(files, digest))
    if manifests.is_index(manifest):
        chosen = manifests.choose(manifest, name or digest)
        manifest = json.loads(_blob(files, chosen["digest"]))
    config_descriptor, layers = manifests.parts(manifest)
    raw = _blob(files, config_descriptor["digest"])
    config = json.loads(raw)
    _config(config, len(layers))
    size = 0
    for layer, diff_id in zip(layers, config["rootfs"]["diff_ids"], strict=True):
        size += _layer(store, files, _path(layer["digest"]), diff_id)
    given = next((annotations[key] for key in _NAME_KEYS if annotations.get(key)), "")
    if given and "/" not in given and ":" not in given and name:
        given = f"{name}:{given}"  # a bare tag, as skopeo writes it
    names = [str(reference.parse(given or name))] if given or name else []
    return _name(store, names, manifests.digest_of(raw), config, size, digest)


def _path(digest: str) -> str:
    kind, _, value = digest.partition(":")
    if kind != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ArchiveError(f"unsupported digest {digest!r}")
    return f"blobs/{kind}/{value}"


def _blob(files: _Files, digest: str) -> bytes:
    with files.open(_path(digest)) as file:
        try:
            return manifests.check(file.read(32 << 20), digest, "blob")
        except ValueError as error:
            raise ArchiveError(str(error)) from None


def _config(config: Mapping[str, Any], layers: int) -> None:
    try:
        manifests.check_config(config, layers)
    except ValueError as error:
        raise ArchiveError(str(error)) from None


def _layer(store: Store, files: _Files, path: str, diff_id: str) -> int:
    """The diff id is a digest of the content, so that a layer that is there need not be read again."""
    if store.has_layer(diff_id):
        return 0
    with files.open(path) as file:
        return store.add_layer(file, diff_id)[1]


def _name(
    store: Store, names: Sequence[str], image_id: str, config: Mapping[str, Any], size: int, digest: str
) -> list[str]:
    names = list(names) or [image_id]
    repository = names[0].rpartition("@")[0] or names[0].rpartition(":")[0]
    store.put(names, image_id, config, size, f"{repository}@{digest}" if digest and repository else "")
    return names


def import_root(
    store: Store, source: str | BinaryIO, name: str, config: Mapping[str, Any] | None = None
) -> str:
    """An image of one layer from a directory tree, or from a tar of one; `config` as in the OCI spec (Cmd, Env, ...).

    Returns the canonical reference. Blocking. Raises ValueError for a bad name, UnpackError, OSError.
    """
    ref = str(reference.parse(name))
    with store.adding(), contextlib.ExitStack() as stack:
        if isinstance(source, str) and os.path.isdir(source):
            file: BinaryIO = stack.enter_context(tempfile.TemporaryFile(dir=f"{store.directory}/ingest"))
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(source, arcname=".")
            file.seek(0)
        else:
            file = stack.enter_context(open(source, "rb")) if isinstance(source, str) else source
        diff_id, size = store.add_layer(file)
        settings = {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            **(config or {}),
        }
        document = {
            "architecture": manifests.architecture(),
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        raw = json.dumps(document, sort_keys=True).encode()
        store.put([ref], manifests.digest_of(raw), document, size)
    return ref
