"""localhost/host: an image made of the machine itself, so that anything installed on it runs in a pod with no image at all.

The lowest layer is a skeleton made here: empty directories, links such as bin -> usr/bin, and a small /etc. The machine's
/usr (and Python's prefix, when it lies elsewhere) are laid over it copy-on-write. It is an allow-list: /root, /home, /var
and the secrets of /etc are not there; from /etc only what every user of the machine may read is taken.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator

from sampan.node.images.store import is_locked
from sampan.node.runtime import Image

REPOSITORY = "localhost/host"
_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_EMPTY = (
    "dev",
    "proc",
    "sys",
    "run",
    "home",
    "mnt",
    "media",
    "opt",
    "srv",
    "var/cache",
    "var/lib",
    "var/log",
    "etc",
    "usr",
)
_ETC_NAMES = (
    "alternatives ca-certificates ca-certificates.conf crypto-policies debian_version gai.conf host.conf inputrc "
    "ld.so.cache ld.so.conf ld.so.conf.d locale.alias localtime mime.types os-release pki/ca-trust pki/tls profile "
    "protocols python3 python3.11 python3.12 python3.13 redhat-release services ssl/certs ssl/openssl.cnf terminfo "
    "timezone bash.bashrc java-11-openjdk java-17-openjdk java-21-openjdk"
)
_ETC = _ETC_NAMES.split()
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = 24 * 3600  # seconds
_FORMAT = 1  # raise it when the skeleton's making changes


def is_host(ref: str) -> bool:
    """Whether a canonical reference names this image; any tag or digest of it is the same image."""
    return ref.partition("@")[0].partition(":")[0] == REPOSITORY


def build(directory: str, ref: str) -> Image:
    """Make the skeleton below `directory` unless an equal one is there. Blocking: call it in a thread. Raises OSError."""
    trees = _trees()
    digest = _digest(trees)
    skeleton = f"{directory}/{digest[:32]}"
    if not os.path.isdir(skeleton):
        os.makedirs(directory, mode=0o755, exist_ok=True)
        temporary = tempfile.mkdtemp(
            dir=directory, prefix=".skeleton-"
        )  # several pods may ask for it at once
        os.chmod(temporary, 0o755)
        _skeleton(temporary, trees)
        try:
            os.rename(temporary, skeleton)
            _forget_older(directory, skeleton)
        except OSError:  # another node of the machine was faster
            shutil.rmtree(temporary, ignore_errors=True)
    path = _PATH
    for source, _ in trees:
        if source == _python_prefix():
            path += f":{source}/bin"
    config = {"Env": [f"PATH={path}"], "Cmd": ["/bin/sh"], "WorkingDir": "/"}
    identity = f"sha256:{digest}"
    return Image(ref, identity, f"{REPOSITORY}@{identity}", [skeleton], config, 0, tuple(trees))


def _forget_older(directory: str, skeleton: str) -> None:
    """/etc changes with every update of the machine: what was made of it a day before and nobody uses goes."""
    newest = os.stat(skeleton).st_mtime
    for name in os.listdir(directory):
        old = f"{directory}/{name}"
        if os.stat(old).st_mtime < newest - _KEPT and not is_locked(old):
            shutil.rmtree(old, ignore_errors=True)


def _trees() -> list[tuple[str, str]]:
    """The machine's directories that appear in the image, at their own paths."""
    found = [("/usr", "/usr")]
    for name in _TOP:
        if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"):
            found.append((f"/{name}", f"/{name}"))
    prefix = _python_prefix()
    if prefix:
        found.append((prefix, prefix))
    return found


def _python_prefix() -> str:
    """Where this Python is installed, if that is not in /usr and may be read."""
    prefix = os.path.realpath(sys.base_prefix)
    if (
        prefix == "/"
        or prefix.startswith("/usr/")
        or prefix == "/usr"
        or not os.access(prefix, os.R_OK | os.X_OK)
    ):
        return ""
    return prefix


def _etc_files() -> Iterator[str]:
    """The allow-listed files of /etc that anyone may read, as paths relative to it."""
    for name in _ETC:
        top = f"/etc/{name}"
        if os.path.islink(top) or os.path.isfile(top):
            yield name
            continue
        for at, directories, files in os.walk(top):
            for one in sorted(files) + [d for d in directories if os.path.islink(f"{at}/{d}")]:
                yield os.path.relpath(f"{at}/{one}", "/etc")


def _digest(trees: list[tuple[str, str]]) -> str:
    """Changes when the skeleton must be made anew."""
    total = hashlib.sha256(f"{_FORMAT} {trees} {os.geteuid()}".encode())
    for name in ("passwd", "group", *_ETC):
        try:
            status = os.lstat(f"/etc/{name}")
        except OSError:
            continue
        total.update(f"{name} {status.st_mtime_ns} {status.st_size}\n".encode())
    return total.hexdigest()


def _skeleton(root: str, trees: list[tuple[str, str]]) -> None:
    for name in _EMPTY:
        os.makedirs(f"{root}/{name}", mode=0o755)
    os.makedirs(f"{root}/root", mode=0o700)
    for name in ("tmp", "var/tmp"):
        os.mkdir(f"{root}/{name}")
        os.chmod(f"{root}/{name}", 0o1777)
    os.symlink("/run", f"{root}/var/run")
    os.symlink("/run/lock", f"{root}/var/lock")
    os.chmod(root, 0o755)
    for name in _TOP:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
    for _, target in trees:
        _reachable(root, target)
    _accounts(f"{root}/etc")
    for name in _etc_files():
        _copy(f"/etc/{name}", f"{root}/etc/{name}")
    _write(
        f"{root}/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n",
    )
    for name in ("hosts", "hostname", "resolv.conf"):
        _write(f"{root}/etc/{name}", "")


def _reachable(root: str, target: str) -> None:
    """The directories above a mount point; a workload that is not root may pass through /root to Python."""
    at = root
    parts = target.strip("/").split("/")
    for depth, part in enumerate(parts):
        at = f"{at}/{part}"
        if not os.path.isdir(at):
            os.mkdir(at)
        if depth < len(parts) - 1:
            os.chmod(at, stat.S_IMODE(os.stat(at).st_mode) | 0o111)


def _accounts(etc: str) -> None:
    """System users and groups only: people who have an account on the machine are not the pod's business."""
    for name, mine in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
        kept = mine
        try:
            with open(f"/etc/{name}", encoding="utf-8", errors="replace") as file:
                for line in file:
                    fields = line.split(":")
                    if (
                        len(fields) > 3
                        and fields[2].isdigit()
                        and (0 < int(fields[2]) < 1000 or fields[2] == "65534")
                    ):
                        kept += line if name == "passwd" else ":".join([*fields[:3], "\n"])
        except OSError:
            pass
        _write(f"{etc}/{name}", kept)


def _copy(source: str, target: str) -> None:
    """Copy a link, or a file that every user may read; anything else is left out."""
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    try:
        status = os.lstat(source)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH:
            shutil.copyfile(source, target)
            os.chmod(target, stat.S_IMODE(status.st_mode) & 0o755)
    except OSError:
        pass


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)
