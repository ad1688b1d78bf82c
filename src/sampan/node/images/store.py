"""The machine's image store: layers unpacked once, shared by all nodes; an index of names beside them.

layers/HEX is one unpacked layer (HEX of its diff id), ingest/ holds downloads under way (kept for resuming), index.json
names images. Every change happens under one file lock and becomes visible by a rename. A layer that a container uses is
locked by its shim and stays until nobody does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from sampan.node.images import access
from sampan.node.images.unpack import UnpackError, unpack
from sampan.node.runtime import Image

_RESUMED = 24 * 3600  # seconds for which a broken download is kept to go on from
FULL = (errno.ENOSPC, errno.EDQUOT)


class Store:
    """All methods block: call them in a thread."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        for name in ("layers", "ingest"):
            os.makedirs(f"{self.directory}/{name}", mode=0o755, exist_ok=True)

    @contextlib.contextmanager
    def locked(self, name: str = "lock") -> Iterator[None]:
        """One process at a time, on the whole machine."""
        fd = os.open(f"{self.directory}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Around add_layer() and put(): meanwhile nobody takes a layer that no image names yet for garbage."""
        fd = os.open(f"{self.directory}/adding", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    # -- layers

    def layer_path(self, diff_id: str) -> str:
        return f"{self.directory}/layers/{diff_id.removeprefix('sha256:')}"

    def has_layer(self, diff_id: str) -> bool:
        return os.path.isdir(self.layer_path(diff_id))

    def add_layer(self, source: BinaryIO, expected: str = "") -> tuple[str, int]:
        """Unpack a (compressed) layer; returns (diff id, bytes). Raises UnpackError when it is bad or not `expected`."""
        temporary = f"{self.directory}/layers/.new-{os.getpid()}-{id(source):x}"
        os.mkdir(temporary, 0o755)
        try:
            diff_id, size = unpack(source, temporary)
            if expected and diff_id != expected:
                raise UnpackError(f"layer has diff id {diff_id}, the image says {expected}")
            try:
                os.rename(temporary, self.layer_path(diff_id))
            except OSError:
                if not self.has_layer(diff_id):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return diff_id, size

    # -- images

    def _read(self) -> dict[str, Any]:
        try:
            with open(f"{self.directory}/index.json", "rb") as file:
                return json.load(file)
        except FileNotFoundError:
            return {"images": {}, "refs": {}}

    def _write(self, index: Mapping[str, Any]) -> None:
        path = f"{self.directory}/index.json"
        private = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(private, "w", encoding="utf-8") as file:
            json.dump(index, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.tmp", path)

    def put(
        self,
        refs: Sequence[str],
        image_id: str,
        config: Mapping[str, Any],
        size: int,
        digest: str = "",
        pulled: access.Pulled | None = None,
    ) -> None:
        """Name an image whose layers are all there. `config` is the OCI image configuration, `refs` are canonical.

        With `pulled` it is for those only who could pull it, too.
        """
        with self.locked():
            index = self._read()
            record = access.granted(index["images"].get(image_id), pulled)
            index["images"][image_id] = {
                "config": config.get("config") or {},
                "diff_ids": config["rootfs"]["diff_ids"],
                "size": size,
            } | ({"access": record} if record is not None else {})
            for ref in refs:
                index["refs"][ref] = {"id": image_id, "digest": digest}
            self._write(index)

    def allows(self, image_id: str, repository: str, logins: Sequence[access.Login]) -> bool:
        """Whether somebody with these logins may use an image that is here as one of that repository."""
        return access.allows(self._read()["images"].get(image_id, {}).get("access"), repository, logins)

    def find(self, ref: str) -> Image | None:
        """By canonical reference or by image id (sha256:...)."""
        index = self._read()
        entry = index["refs"].get(ref)
        if entry is None and ref in index["images"]:
            entry = {"id": ref, "digest": ""}
        if entry is None:
            return None
        return self._image(ref, entry, index["images"][entry["id"]])

    def _image(self, ref: str, entry: Mapping[str, Any], image: Mapping[str, Any]) -> Image | None:
        layers = [self.layer_path(one) for one in image["diff_ids"]]
        if not all(map(os.path.isdir, layers)):
            return None
        top_first = list(
            dict.fromkeys(reversed(layers))
        )  # a layer that comes twice counts where it is on top
        return Image(ref, entry["id"], entry["digest"], top_first, image["config"], image["size"])

    def list(self) -> list[Image]:
        """Every reference with its image; one whose layers are not all there is left out."""
        index = self._read()
        found = [
            self._image(ref, entry, index["images"][entry["id"]])
            for ref, entry in sorted(index["refs"].items())
        ]
        return [one for one in found if one is not None]

    def remove(self, ref: str) -> bool:
        """Forget a name (by id: all its names), and what nothing names any more. False: it was not there.

        With the last tag of what was pulled goes the digest it was pulled as.
        """
        with self.locked():
            index = self._read()
            refs = index["refs"]
            names = [name for name, entry in refs.items() if ref in (name, entry["id"])]
            digests = {refs.pop(name)["digest"] for name in names}
            for digest in digests - {
                entry["digest"] for name, entry in refs.items() if name != entry["digest"]
            }:
                refs.pop(digest, None)
            named = {entry["id"] for entry in index["refs"].values()}
            index["images"] = {id_: image for id_, image in index["images"].items() if id_ in named}
            try:
                self._write(index)
            except OSError as error:
                if error.errno not in FULL or not self._collect(index):
                    raise
                self._write(index)  # into the room of the layers: what lacks them was no image any more
            self._collect(index)
        return bool(names)

    def in_use(self, image: Image) -> bool:
        """Whether all its layers are locked by shims (then it, or an image built on it, runs somewhere)."""
        return all(is_locked(path) for path in image.layers)

    def collect(self) -> int:
        """Remove layers that no image names and no container uses, and what broken downloads left; returns how many."""
        with self.locked():
            return self._collect(self._read())

    def _collect(self, index: Mapping[str, Any]) -> int:
        """Nothing while images are being added: no name keeps their layers yet."""
        adding = os.open(f"{self.directory}/adding", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(adding, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(adding)
            self._forget_downloads(os.fstat(adding).st_mtime)
            return self._forget_layers(index)
        except BlockingIOError:
            return 0
        finally:
            os.close(adding)

    def _forget_downloads(self, now: float) -> None:
        for name in os.listdir(f"{self.directory}/ingest"):
            path = f"{self.directory}/ingest/{name}"
            if os.stat(path).st_mtime < now - _RESUMED:
                os.unlink(path)

    def _forget_layers(self, index: Mapping[str, Any]) -> int:
        used = {
            one.removeprefix("sha256:") for image in index["images"].values() for one in image["diff_ids"]
        }
        removed = 0
        for name in os.listdir(f"{self.directory}/layers"):
            path = f"{self.directory}/layers/{name}"
            if name in used:
                continue
            if name.startswith(".new-"):  # whoever was unpacking it was killed
                shutil.rmtree(path, ignore_errors=True)
                continue
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            else:
                doomed = f"{self.directory}/layers/.new-removed-{name[:16]}"
                os.rename(path, doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                removed += 1
            finally:
                os.close(fd)
        return removed

    def usage(self) -> tuple[int, int]:
        """(used, capacity) in bytes of the file system that holds the images."""
        status = os.statvfs(self.directory)
        return (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_blocks * status.f_frsize


def is_locked(path: str) -> bool:
    """Whether somebody uses this layer."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
