"""Where a cluster keeps its things: data that must survive a reboot, and sockets that must not.

Root uses /var/lib/sampan and /run/sampan; an ordinary user the XDG directories. Nothing is written elsewhere.
"""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from sampan.base.errors import SampanError


def called() -> str:
    """How this program was called: `sampan` where it is installed, `./sampan` in a checkout."""
    return "sampan" if os.path.basename(sys.argv[0]) == "sampan" else "./sampan"


def is_root() -> bool:
    return os.geteuid() == 0


def default_data_root() -> Path:
    """Where clusters lie: root's beside other state of the system, a user's as the XDG Base Directory Specification says."""
    if is_root():
        return Path("/var/lib/sampan")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(base) / "sampan"


def run_root() -> Path:
    """Sockets live here: short, because a unix socket's path may have 107 bytes."""
    if is_root():
        return Path("/run/sampan")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "sampan" if base and os.access(base, os.W_OK) else Path(f"/tmp/sampan-{os.getuid()}")


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one cluster."""

    name: str
    data: Path
    run: Path
    images: Path  # one content store for all nodes of all clusters of this user on this machine

    @classmethod
    def of(cls, name: str, data_dir: str | Path | None = None) -> Paths:
        """Where a command finds a cluster. Its processes are told by its configuration: inside a user namespace
        everybody looks like root."""
        data = Path(data_dir).absolute() if data_dir else default_data_root() / "clusters" / name
        _check_owner(data, name)
        return cls(name, data, run_root() / name, default_data_root() / "images")

    @property
    def config(self) -> Path:
        return self.data / "cluster.json"

    @property
    def store(self) -> Path:
        return self.data / "store"

    @property
    def volumes(self) -> Path:
        return self.data / "volumes"

    @property
    def pki(self) -> Path:
        return self.data / "pki"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def reserved(self) -> Path:
        """The addresses this cluster has chosen, for others that choose theirs, wherever their data are."""
        return self.run / "reserved.json"

    @property
    def supervisor_socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def supervisor_lock(self) -> Path:
        return self.run / "supervisor.lock"

    @property
    def fabric(self) -> Path:
        return self.run / "fabric"

    def command(self, words: str) -> str:
        """The command line about this cluster, as hints print it: it finds the cluster, wherever its data are."""
        name = "" if self.name == "default" else f" --name {self.name}"
        usual = default_data_root() / "clusters" / self.name
        return f"{called()} {words}{name}" + (
            "" if self.data == usual else f" --data-dir {shlex.quote(str(self.data))}"
        )

    def node(self, name: str) -> Path:
        return self.data / "nodes" / name

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"


def _check_owner(data: Path, name: str) -> None:
    """What belongs to a cluster of somebody else is not touched, not even by root."""
    try:
        owner = data.stat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        raise SampanError(f"{data} belongs to another user", "Choose another --data-dir.") from None
    if owner != os.geteuid():
        try:
            who = pwd.getpwuid(owner).pw_name
        except KeyError:
            who = str(owner)
        raise SampanError(f"cluster {name} in {data} belongs to {who}", "Use that user, or another --name.")


def make_private(path: Path) -> Path:
    """Create a directory that only its owner may enter. Raises SampanError where nothing can be written."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        hint = "Choose another place with --data-dir or $XDG_DATA_HOME."
        raise SampanError(f"cannot make {path}: {error.strerror}", hint) from None
    return path


def known_clusters() -> list[str]:
    """Names of clusters with data in the default place."""
    root = default_data_root() / "clusters"
    return sorted(p.name for p in root.iterdir() if (p / "cluster.json").exists()) if root.is_dir() else []
