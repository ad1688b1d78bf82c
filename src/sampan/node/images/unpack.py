"""Unpacking one layer of an image into a directory that overlay can use as it is.

The archive is not trusted: every name is looked up inside the target (openat2 RESOLVE_IN_ROOT), links are never
followed out of it, overlay's own attributes are not accepted from it. OCI image spec, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Callable
from typing import BinaryIO

from sampan.node.images.ahead import Ahead
from sampan.node.images.compression import Content
from sampan.node.native import syscalls

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_CHUNK = 1 << 18
_MOST_ENTRIES = 2_000_000
_MOST_BYTES = 64 << 30


class UnpackError(ValueError):
    """The layer is bad; says how."""


def unpack(source: BinaryIO, target: str, *, limit: int = _MOST_BYTES) -> tuple[str, int]:
    """Unpack into the empty directory `target`; returns (diff id, bytes of files).

    Blocking. Raises UnpackError, or OSError for the disk's own troubles.
    """
    content = Content(source, limit)
    with contextlib.closing(_Target(target)) as layer, contextlib.closing(Ahead(content)) as stream:
        try:
            layer.fill(stream)
            stream.exhaust()
        except tarfile.TarError as error:
            raise UnpackError(f"corrupt or truncated layer: {error}") from None
        except UnpackError:
            raise
        except ValueError as error:
            raise UnpackError(str(error)) from None
        layer.finish()
        return content.digest, layer.size


class _Target:
    """The directory being filled."""

    def __init__(self, path: str) -> None:
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent_path = ""
        self._parent = -1
        self._times: dict[str, int] = {}
        self._owners = syscalls.mapped_ids() > 1 and os.geteuid() == 0
        self._prefix = "user" if syscalls.in_user_namespace() or os.geteuid() else "trusted"
        self.size = 0

    def close(self) -> None:
        self._forget()
        os.close(self._root)

    def _forget(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)
            self._parent, self._parent_path = -1, ""

    def fill(self, stream: Ahead) -> None:
        """Make what the tar in the stream says. Nothing at all is an empty layer, too."""
        try:
            archive = tarfile.TarFile(fileobj=stream)  # type: ignore[arg-type]
        except tarfile.ReadError:
            if stream.tell() == 0:
                return
            raise
        count = 0
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]
            count += 1
            if count > _MOST_ENTRIES:
                raise UnpackError(f"the layer has more than {_MOST_ENTRIES} entries")
            self._add(archive, member)

    def _add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = os.path.normpath(f"/{member.name}").lstrip("/")
        if not path:
            os.chmod(f"/proc/self/fd/{self._root}", member.mode & 0o7777)
            return
        above, _, name = path.rpartition("/")
        parent = self._directory(above)
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name)
            return
        try:
            self._make(archive, member, parent, name, path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            raise UnpackError(f"cannot unpack {member.name!r}: {error.strerror}") from None

    def _directory(self, path: str) -> int:
        """A descriptor of a directory of the layer, made with its parents if absent; the last one is kept open."""
        if self._parent >= 0 and path == self._parent_path:
            return self._parent
        fd = self._open(path)
        self._forget()
        self._parent, self._parent_path = fd, path
        return fd

    def _open(self, path: str) -> int:
        if not path:
            return os.dup(self._root)
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            return syscalls.open_in_root(self._root, path, flags)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UnpackError(f"cannot unpack below {path!r}: {error.strerror}") from None
        above, _, name = path.rpartition("/")
        parent = self._open(above)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            raise UnpackError(f"{path!r} is a link that leads nowhere, not a directory") from None
        finally:
            os.close(parent)
        return syscalls.open_in_root(self._root, path, flags)

    def _whiteout(self, parent: int, name: str) -> None:
        """A deletion: overlay's form is a character device 0:0, an opaque directory is an attribute."""
        if name == _OPAQUE:
            self._opaque(f"/proc/self/fd/{parent}")
        elif not name.startswith(_WHITEOUT * 2):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise UnpackError(f"bad whiteout {name!r}")
            self._clear(parent, hidden)
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _opaque(self, path: str) -> None:
        os.setxattr(path, f"{self._prefix}.overlay.opaque", b"y")

    def _clear(self, parent: int, name: str) -> None:
        """An entry replaces what an earlier one of the same layer made."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            self._remove_tree(parent, name)

    def _remove_tree(self, parent: int, name: str) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for one in os.listdir(fd):
                self._clear(fd, one)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)

    def _make(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str, path: str
    ) -> None:
        if member.isdir():
            self._make_directory(member, parent, name, path)
            return
        if member.isreg():
            self._make_file(archive, member, parent, name)
            return
        self._clear(parent, name)
        if member.islnk():
            self._link(member, parent, name)
            return  # owner and mode are those of what it links to
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            try:
                os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
            except PermissionError:
                return  # rootless: devices come from the runtime, never from an image
        else:
            return
        self._attributes(member, parent, name)

    def _make_directory(self, member: tarfile.TarInfo, parent: int, name: str, path: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o755, dir_fd=parent)
            if (
                stat.S_ISCHR(found.st_mode) and not found.st_rdev
            ):  # removed and made anew: nothing shines through
                self._opaque(f"/proc/self/fd/{parent}/{name}")
        self._attributes(member, parent, name)
        self._times[path] = int(member.mtime)

    def _make_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        """Most of an image is files, so everything about one is done through its descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            content = archive.extractfile(member) if member.issparse() else archive.fileobj
            assert content is not None  # a member that is a file, of an archive that is open
            left = member.size
            while left > 0:
                data = content.read(min(left, _CHUNK))
                if not data:
                    raise UnpackError(f"truncated layer: {member.name!r} ends early")
                os.write(fd, data)
                left -= len(data)
            status = os.fstat(fd)
            if self._owners and (status.st_uid, status.st_gid) != (member.uid, member.gid):
                self._own(lambda: os.fchown(fd, member.uid, member.gid))
            os.fchmod(fd, member.mode & 0o7777)
            self._xattrs(member, fd)
            os.utime(fd, (int(member.mtime), int(member.mtime)))
        finally:
            os.close(fd)
        self.size += member.size

    def _link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        source = os.path.normpath(f"/{member.linkname}").lstrip("/")
        above, _, last = source.rpartition("/")
        fd = self._open(above)
        try:
            os.link(last, name, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise UnpackError(
                f"hard link {member.name!r} to {member.linkname!r}, which is not in the layer"
            ) from None
        finally:
            os.close(fd)

    def _attributes(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        if self._owners:
            self._own(lambda: os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False))
        if not member.issym():
            os.chmod(name, member.mode & 0o7777, dir_fd=parent)
        self._xattrs(member, f"/proc/self/fd/{parent}/{name}")
        if not member.isdir():
            seconds = int(member.mtime)
            os.utime(name, (seconds, seconds), dir_fd=parent, follow_symlinks=False)

    @staticmethod
    def _own(chown: Callable[[], None]) -> None:
        try:
            chown()
        except OSError as error:
            if error.errno != errno.EINVAL:  # an id that does not exist in this user namespace
                raise

    @staticmethod
    def _xattrs(member: tarfile.TarInfo, target: int | str) -> None:
        """File capabilities and user attributes; overlay's own would let a layer redirect into others."""
        for key, value in member.pax_headers.items():
            key = key.removeprefix(_XATTR) if key.startswith(_XATTR) else ""
            own = key.startswith("user.") and not key.startswith("user.overlay.")
            if key == "security.capability" or own:
                with contextlib.suppress(OSError):
                    data = value.encode("utf-8", "surrogateescape")
                    os.setxattr(target, key, data, follow_symlinks=isinstance(target, int))

    def finish(self) -> None:
        """Directory times last: filling a directory changes them."""
        self._forget()
        for path, seconds in self._times.items():
            try:
                fd = syscalls.open_in_root(self._root, path, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                os.utime(f"/proc/self/fd/{fd}", (seconds, seconds))
            except OSError:
                pass
            finally:
                os.close(fd)
