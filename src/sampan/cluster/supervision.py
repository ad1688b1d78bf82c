"""Talking to a cluster's supervisor: is it there, start it, ask it something."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from sampan.base.errors import SampanError
from sampan.cluster import config as configs
from sampan.cluster import processes
from sampan.cluster.paths import Paths, known_clusters, make_private

_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid
_BOOT = "import sys; sys.path.insert(0, {source!r}); from sampan.cluster import supervisor; supervisor.main()"


def source_root() -> str:
    """The directory that holds the `sampan` package: processes that skip site-packages need to be told."""
    return str(Path(__file__).resolve().parents[2])


def module_command() -> list[str]:
    """How a process runs a module of ours with all dependencies: [python, -I, -m], the module's name to follow."""
    return [sys.executable, "-I", "-m"]


def start(paths: Paths) -> None:
    """Start the supervisor and wait until it serves. Raises SampanError with its own words when it cannot."""
    make_private(paths.run)
    make_private(paths.logs)
    boot = _BOOT.format(source=source_root())
    interpreter = getattr(sys, "_base_executable", sys.executable)
    with open(paths.log("supervisor"), "a") as log:
        process = subprocess.Popen(
            [interpreter, "-S", "-E", "-I", "-c", boot, str(paths.data), str(paths.run), *module_command()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    answer = json.loads(line) if line.strip() else {"error": "it ended without a word"}
    if "error" in answer:
        hint = f"Its log: {paths.log('supervisor')}. What this machine lacks: sampan doctor"
        raise SampanError(f"the cluster's supervisor could not start: {answer['error']}", hint)


def not_running(paths: Paths) -> SampanError:
    """What a person is told who needs a cluster's processes."""
    return SampanError(f"cluster {paths.name} is not running", f"Start it: {paths.command('up')}")


def ask(paths: Paths, op: str, timeout: float | None = 30, **arguments: Any) -> dict[str, Any]:
    """One request. Raises SampanError when no supervisor runs or it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(paths.supervisor_socket))
            connection.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
            line = connection.makefile().readline()
        except (FileNotFoundError, ConnectionRefusedError):
            raise not_running(paths) from None
        except TimeoutError:
            raise SampanError(
                f"the supervisor did not answer {op!r} in {timeout:.0f} s",
                f"Its log: {paths.log('supervisor')}",
            ) from None
    answer = json.loads(line) if line else {"error": "it ended before it answered"}
    if "error" in answer:
        raise SampanError(f"{op}: {answer['error']}", f"Its log: {paths.log('supervisor')}")
    return answer


def shutdown(paths: Paths, timeout: float = 60) -> None:
    """Ask the supervisor to stop everything, and wait until it has ended itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(paths.supervisor_socket))
        connection.sendall(b'{"op": "shutdown"}\n')
        try:
            while connection.recv(64):
                pass
        except TimeoutError:
            raise SampanError(
                f"the cluster did not stop in {timeout:.0f} s", f"Its log: {paths.log('supervisor')}"
            ) from None


def end(paths: Paths) -> bool:
    """Shut down, whether or not the supervisor still answers. False: none was there. Raises as `running`."""
    if not running(paths):
        return False
    pid = holder(paths)
    try:
        shutdown(paths)
    except (SampanError, OSError):
        processes.stop([pid] if pid else [], grace=20)  # all others die with it
    return True


def running(paths: Paths) -> bool:
    """Whether a supervisor of this cluster runs. Raises SampanError when one of the same name but with other data does."""
    if not holder(paths):
        return not paths.supervisor_lock.exists() and _answers(paths)
    data = paths.supervisor_lock.read_text()
    if data != str(paths.data):
        hint = "That one is meant? Give its --data-dir. Another one? Choose another --name."
        raise SampanError(f"a cluster {paths.name} with its data in {data} is running", hint)
    return True


def configuration(paths: Paths) -> configs.ClusterConfig:
    """What the cluster is made with. Raises SampanError when there is none here, as `running` when it is elsewhere."""
    running(paths)
    if not paths.config.exists():
        others = ", ".join(f"--name {name}" for name in known_clusters())
        hint = f"There are others: {others}" if others else f"Make it: {paths.command('up')}"
        raise SampanError(f"there is no cluster {paths.name}: {paths.data} holds none", hint)
    return configs.load(paths.config)


def _answers(paths: Paths) -> bool:
    """For when somebody removed the lock's file: the socket tells, too."""
    try:
        ask(paths, "status", timeout=5)
    except (SampanError, OSError):
        return False
    return True


def crashed(paths: Paths) -> bool:
    """Whether a supervisor ended without a goodbye: it was killed, and all its processes with it."""
    return paths.supervisor_socket.exists() and not running(paths)


def holder(paths: Paths) -> int:
    """The pid of the supervisor of this name, 0 when there is none: as long as it lives it holds a lock."""
    try:
        file = os.open(paths.supervisor_lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else pid
    finally:
        os.close(file)
