import gzip
import io
import os
import stat
import subprocess
import tarfile

import pytest

from sampan.node.images import unpack as unpack_module
from sampan.node.images.compression import Bomb, Content
from sampan.node.images.unpack import UnpackError, unpack


def layer(*entries, compress=None):
    """entries: (name, kind, value, changes); kind: file dir link hard."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, value, *rest in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if kind == "dir" else 0o644
            info.uid, info.gid = os.getuid(), os.getgid()
            info.mtime = 1_000_000
            content = None
            if kind == "file":
                info.size, content = len(value), io.BytesIO(value)
            elif kind == "dir":
                info.type = tarfile.DIRTYPE
            else:
                info.type = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE
                info.linkname = value
            for change in rest:
                for key, new in change.items():
                    setattr(info, key, new)
            archive.addfile(info, content)
    data = buffer.getvalue()
    return io.BytesIO(compress(data) if compress else data)


@pytest.fixture
def target(tmp_path):
    (tmp_path / "layer").mkdir()
    (tmp_path / "outside").mkdir()
    return tmp_path / "layer"


def zstd(data):
    return subprocess.run(["zstd", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def test_files_directories_links_modes_and_times(target):
    source = layer(
        ("bin/", "dir", None),
        ("bin/tool", "file", b"#!", {"mode": 0o4755}),
        ("bin/same", "hard", "bin/tool"),
        ("deep/er/file", "file", b"x"),
        ("bin/sh", "link", "/bin/tool"),
    )
    diff_id, size = unpack(source, str(target))
    assert diff_id.startswith("sha256:") and size == 3
    assert stat.S_IMODE((target / "bin/tool").stat().st_mode) == 0o4755
    assert (target / "bin/same").stat().st_ino == (target / "bin/tool").stat().st_ino
    assert os.readlink(target / "bin/sh") == "/bin/tool"
    assert (target / "bin").stat().st_mtime == 1_000_000
    assert (target / "deep/er/file").read_bytes() == b"x"


@pytest.mark.parametrize("compress", [None, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_the_diff_id_is_that_of_the_content_whatever_the_compression(target, compress, tmp_path):
    entries = [("a", "file", b"1" * 300_000), ("b/c", "file", b"2")]
    plain, _ = unpack(layer(*entries), str(target))
    other = tmp_path / "other"
    other.mkdir()
    assert unpack(layer(*entries, compress=compress), str(other))[0] == plain


@pytest.mark.parametrize(
    "entries",
    [
        [("../outside/evil", "file", b"x")],
        [("/../../outside/evil", "file", b"x")],
        [("way", "link", "../outside"), ("way/evil", "file", b"x")],
        [("way", "link", "{outside}"), ("way/evil", "file", b"x")],
        [("a", "link", "b"), ("b", "link", "../outside"), ("a/evil", "file", b"x")],
        [("way", "link", "../outside"), ("way/", "dir", None, {"mode": 0o700})],
        [("evil", "hard", "../outside/secret")],
        [("way", "link", "../outside"), ("evil", "hard", "way/secret")],
        [("way", "link", "../outside"), ("way/.wh.secret", "file", b"")],
        [("way", "link", "../outside/secret"), ("way", "file", b"overwritten")],
    ],
)
def test_nothing_leaves_the_target(target, tmp_path, entries):
    secret = tmp_path / "outside" / "secret"
    secret.write_text("secret")
    before = secret.stat()
    outside = str(tmp_path / "outside")
    filled = [
        (n, k, v.replace("{outside}", outside) if isinstance(v, str) else v, *r) for n, k, v, *r in entries
    ]
    try:
        unpack(layer(*filled), str(target))
    except UnpackError:
        pass
    assert os.listdir(outside) == ["secret"]
    assert secret.read_text() == "secret" and secret.stat().st_nlink == before.st_nlink
    assert (tmp_path / "outside").stat().st_mode & 0o777 != 0o700


def test_a_later_entry_replaces_an_earlier_one(target):
    unpack(
        layer(
            ("x/", "dir", None),
            ("x/y", "file", b"1"),
            ("x", "file", b"2"),
            ("f", "file", b"old"),
            ("f", "file", b"new"),
        ),
        str(target),
    )
    assert (target / "x").read_bytes() == b"2"
    assert (target / "f").read_bytes() == b"new"


@pytest.mark.root
def test_whiteouts_become_what_overlay_understands(target):
    unpack(
        layer(
            ("d/.wh.gone", "file", b""),
            ("o/.wh..wh..opq", "file", b""),
            ("o/new", "file", b"1"),
            (".wh..wh.plnk", "file", b""),
            (".wh.anew", "file", b""),
            ("anew", "dir", None),
        ),
        str(target),
    )
    status = (target / "d/gone").stat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    assert os.getxattr(target / "o", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(target / "anew", "trusted.overlay.opaque") == b"y", "removed, then made again"
    assert sorted(os.listdir(target)) == ["anew", "d", "o"]


@pytest.mark.root
def test_attributes_of_files_are_kept_but_overlays_own_are_not(target):
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    headers = {
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
    }
    unpack(layer(("ping", "file", b"", {"pax_headers": headers})), str(target))
    assert sorted(os.listxattr(target / "ping")) == ["security.capability", "user.note"]


@pytest.mark.parametrize("cut", [600, 5_000, -20])
def test_a_truncated_layer_is_refused(target, cut):
    data = layer(("a", "file", os.urandom(20_000)), compress=gzip.compress).getvalue()
    with pytest.raises(UnpackError, match="trunca|corrupt|unexpected end"):
        unpack(io.BytesIO(data[:cut]), str(target))


def test_rubbish_is_refused(target):
    with pytest.raises(UnpackError):
        unpack(io.BytesIO(b"no archive at all" * 100), str(target))


def test_a_bomb_is_refused(target):
    data = layer(("zeros", "file", b"\0" * (4 << 20)), compress=gzip.compress)
    with pytest.raises(UnpackError, match="unpacks to more than"):
        unpack(data, str(target), limit=1 << 20)


def test_too_many_entries_are_refused(target, monkeypatch):
    monkeypatch.setattr(unpack_module, "_MOST_ENTRIES", 10)
    with pytest.raises(UnpackError, match="entries"):
        unpack(layer(*[(f"f{i}", "file", b"") for i in range(20)]), str(target))


def test_the_ratio_of_a_bomb_is_noticed():
    class Zeros(io.RawIOBase):
        """A hundred gigabytes of zeros, told as they compress: it is the ratio that stops it."""

        given = 0

        def read(self, size=-1):
            Zeros.given += 1
            return gzip.compress(bytes(64 << 20), 1)

    with pytest.raises(Bomb, match="times its size"):
        for _ in Content(Zeros(), limit=1 << 40, ratio=100):
            pass
    assert Zeros.given < 20
