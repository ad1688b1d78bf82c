"""The parent of a cluster's processes: small, dull, and the one that must not die.

It opens the listeners (so that connections wait while the server restarts), builds the fabric, starts the control plane
and the nodes, restarts the control plane when it dies, and answers `sampan` on a private socket. Only the standard
library and `sampan.node`'s light modules are imported: it is there all the time. Its children die with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sampan.cluster import delegation, ports, processes, rootless
from sampan.cluster.wiring import Wiring
from sampan.node.native import cgroups, init
from sampan.node.network import fabric

_RESTART_PAUSE = 0.2
_RESTART_PAUSE_MAX = 10.0
_FREEBIND, _FREEBIND6 = 15, 78  # socket options of Linux
_ATTEMPTS = 3  # starts of the control plane before whoever waits for it is told


class Supervisor:
    """State of one cluster's processes. `data` and `run` as in `cluster.paths.Paths`."""

    def __init__(self, data: Path, run: Path, command: list[str]) -> None:
        self.data, self.run, self.command = data, run, command
        self.config: dict[str, Any] = json.loads((data / "cluster.json").read_text())
        self.listeners: list[socket.socket] = []
        self.control_plane = 0
        self.ready_fd = -1
        self.ready = False
        self.restarts = 0
        self.restart_at: float | None = None
        self.nodes: dict[str, int] = {}
        self.waiting: list[socket.socket] = []
        self.leaving: socket.socket | None = None
        self.gateway: rootless.Gateway | None = None
        self.wiring = Wiring(self.config, run)
        self.stopping = False

    # -- starting ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Everything that belongs to this machine: listeners or the way to the first machine, control plane, nodes."""
        if self.joined:
            self.wiring.build()
        else:
            self._open_listeners()
        self.start_control_plane()
        for node in self.config["nodes"]:
            if not node["stopped"]:
                self.start_node(node["name"])

    def _open_listeners(self) -> None:
        port, machine = self.config["port"], self.config.get("machine")
        self.listeners.append(_listen("127.0.0.1", port))
        if machine:
            self.listeners.append(_listen(machine, port))
        if self.config["rootless"]:
            os.environ[delegation.VARIABLE] = delegation.claim()
            self.gateway = rootless.enter()
        if self.config["fabric"]:
            self.listeners += [_listen(address, port) for address in self.wiring.build()]

    @property
    def joined(self) -> bool:
        """Whether the control plane is on another machine: `machine` then takes its place here."""
        return bool(self.config.get("server"))

    @property
    def log_of_control_plane(self) -> Path:
        return self.data / "logs" / ("machine.log" if self.joined else "control-plane.log")

    def start_control_plane(self) -> None:
        """It inherits the listeners, and says through a pipe when it is ready."""
        read, write = os.pipe()
        self.ready_fd, self.ready, self.restart_at = read, False, None
        fds = {"SAMPAN_LISTEN_FDS": [s.fileno() for s in self.listeners], "SAMPAN_READY_FD": [write]}
        if self.gateway:
            fds["SAMPAN_GATEWAY_FD"] = [self.gateway.fd]
        module = "sampan.cluster.joined_machine" if self.joined else "sampan.cluster.control_plane"
        self.control_plane = processes.spawn(
            [*self.command, module, str(self.data)], log=self.log_of_control_plane, fds=fds
        )
        os.close(write)

    def start_node(self, name: str) -> None:
        """Starts a node's process 1 in namespaces of its own; nothing to do when it runs."""
        if name in self.nodes:
            return
        directory = self.data / "nodes" / name
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        rundir = self.run / "nodes" / name
        rundir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.nodes[name] = init.spawn_node(
            name=name,
            directory=str(directory),
            run=str(rundir),
            agent=[*self.command, "sampan.cluster.agent", str(self.data), name],
            log=str(self.data / "logs" / f"{name}.log"),
            die_with_parent=True,
            connect=lambda pid: self.wiring.connect(name, pid),
            cgroup=processes.cgroup(self.config["name"], name),
        )

    # -- stopping ---------------------------------------------------------------------------------------------------

    def stop_node(self, name: str) -> None:
        """Its process 1 goes, and all in the node with it."""
        pid = self.nodes.pop(name, 0)
        if pid:
            processes.stop([pid], grace=5)
        if self.config["fabric"]:
            self.wiring.leave(name)

    def stop_all(self) -> None:
        """Nodes first, while the control plane can still be told; then all that was made outside of the processes."""
        self.stopping = True
        processes.stop([*self.nodes.values()], grace=5)
        self.nodes.clear()
        if self.control_plane:
            processes.stop([self.control_plane], grace=10)
        if self.config["fabric"]:
            self.wiring.destroy()
        if self.gateway:
            self.gateway.close()
            self.gateway = None
        if os.environ.get(delegation.VARIABLE):  # nobody else knows where they are
            cgroups.sweep(processes.cgroup(self.config["name"]))
            cgroups.remove_empty(processes.cgroup(""))
        processes.reap()

    # -- the loop ---------------------------------------------------------------------------------------------------

    def serve(self, server: socket.socket) -> None:
        """Answer requests and look after children until a shutdown is asked for."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while not self.stopping:
            sources: list[Any] = [server, wake_read]
            if self.ready_fd >= 0:
                sources.append(self.ready_fd)
            if self.wiring.fileno() >= 0:
                sources.append(self.wiring)
            pause = None if self.restart_at is None else max(0.0, self.restart_at - time.monotonic())
            ready, _, _ = select.select(sources, [], [], pause)
            if wake_read in ready:
                os.read(wake_read, 4096)
            self._reap()
            if self.ready_fd in ready:
                self._control_plane_reported()
            if self.restart_at is not None and time.monotonic() >= self.restart_at:
                self.start_control_plane()
            if self.wiring in ready:
                for leaf in self.wiring.repair(self.nodes):
                    log(f"the link of {leaf} was gone; it has a new one")
            if server in ready:
                self._answer(server.accept()[0])
        self.stop_all()
        for connection in self.waiting:
            connection.close()

    def _on_signal(self, number: int, frame: Any) -> None:
        if number != signal.SIGCHLD:
            self.stopping = True

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.control_plane:
                self.control_plane = 0
                self._close_ready()
                self.restarts += 1
                pause = min(_RESTART_PAUSE * 2 ** min(self.restarts - 1, 6), _RESTART_PAUSE_MAX)
                self.restart_at = time.monotonic() + pause
                log(f"control plane (pid {pid}) ended; starting it again in {pause:.1f} s")
                if self.restarts >= _ATTEMPTS and not self.ready:
                    self._refuse_waiting()
            for name, node in list(self.nodes.items()):
                if pid == node:
                    log(f"node {name} (pid {pid}) ended")
                    del self.nodes[name]

    def _refuse_waiting(self) -> None:
        """Whoever waits for a control plane that cannot start is told its last words."""
        with open(self.log_of_control_plane, errors="replace") as file:
            last = ([line.strip() for line in file if line.strip()] or ["it wrote nothing"])[-1]
        for connection in self.waiting:
            _reply(connection, {"error": f"the control plane does not start: {last}"})
        self.waiting.clear()

    def _control_plane_reported(self) -> None:
        if os.read(self.ready_fd, 64):
            self.ready, self.restarts = True, 0
            for connection in self.waiting:
                _reply(connection, {"ready": True})
            self.waiting.clear()
        self._close_ready()

    def _close_ready(self) -> None:
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        try:
            request = json.loads(connection.makefile().readline() or "{}")
            operations: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
                "status": self._op_status,
                "wait-ready": lambda request: None if not self.ready else {"ready": True},
                "node-start": self._op_node_start,
                "node-stop": self._op_node_stop,
                "node-remove": self._op_node_remove,
                "partition": lambda request: self._op_cut(request, fabric.partition),
                "heal": lambda request: self._op_cut(request, fabric.heal),
                "reload": self._op_reload,
                "shutdown": self._op_shutdown,
            }
            answer = operations[request["op"]](request)
            if request["op"] == "shutdown":
                self.leaving = connection  # its end tells the caller that this process has ended
            elif answer is None:
                self.waiting.append(connection)
            else:
                _reply(connection, answer)
        except (OSError, ValueError, KeyError, StopIteration) as error:
            log(f"request failed: {error!r}")
            _reply(connection, {"error": str(error) or repr(error)})

    def _op_status(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "control_plane": {"pid": self.control_plane, "ready": self.ready},
            "nodes": self.nodes,
            "gateway": self.gateway.pid if self.gateway else 0,
        }

    def _op_reload(self, request: dict[str, Any]) -> dict[str, Any]:
        self.config = json.loads((self.data / "cluster.json").read_text())
        self.wiring.update(self.config)
        return {}

    def _op_node_start(self, request: dict[str, Any]) -> dict[str, Any]:
        self._op_reload(request)
        self.start_node(request["name"])
        return {}

    def _op_node_stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self.stop_node(request["name"])
        return self._op_reload(request)

    def _op_node_remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """A node's files may belong to subordinate ids, which only this process can remove."""
        self.stop_node(request["name"])
        shutil.rmtree(self.data / "nodes" / request["name"], ignore_errors=True)
        return self._op_reload(request)

    def _op_cut(self, request: dict[str, Any], act: Callable[..., None]) -> dict[str, Any]:
        """Cuts two nodes from each other, or a node from the control plane (`b` empty), or undoes that."""
        a, b = request["a"], request["b"]
        for name in (a, b):
            if name and name not in self.nodes:
                raise ValueError(f"node {name} does not run")
        self.wiring.cut(self.nodes, a, b, act)
        return {}

    def _op_shutdown(self, request: dict[str, Any]) -> dict[str, Any]:
        self.stop_all()
        return {}


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # After a reboot an address may come later than we.
    level, option = (socket.IPPROTO_IPV6, _FREEBIND6) if ":" in host else (socket.IPPROTO_IP, _FREEBIND)
    listener.setsockopt(level, option, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ports.taken(port, host) from None
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def _hold(path: Path, data: Path) -> int:
    """Take the lock that says: the cluster of this name lives. It is a process's own, so that no child keeps it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RuntimeError("another supervisor of this cluster runs") from None
    os.ftruncate(file, 0)
    os.write(file, str(data).encode())
    return file


def _reply(connection: socket.socket, answer: dict[str, Any]) -> None:
    try:
        connection.sendall(json.dumps(answer).encode() + b"\n")
    except OSError as error:
        log(f"the caller left before its answer: {error}")
    connection.close()


def log(text: str) -> None:
    """A full disk loses lines, never the cluster."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):
        os.write(2, f"{stamp} supervisor: {text}\n".encode())


def main() -> None:
    """argv: data directory, run directory, then the command that runs a module with the full Python.

    Prints one line of JSON on its standard output once it serves, {"error": ...} if it cannot.
    """
    data, run, command = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    try:
        held = _hold(run / "supervisor.lock", data)  # noqa: F841 closing it would end the lock
        path = run / "supervisor.sock"
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(path))
        os.chmod(path, 0o600)
        server.listen(64)
        supervisor = Supervisor(data, run, command)
        supervisor.start()
    except Exception as error:
        log(f"cannot start: {error!r}")
        os.write(1, json.dumps({"error": str(error) or repr(error)}).encode() + b"\n")
        sys.exit(1)
    os.write(1, json.dumps({"pid": os.getpid()}).encode() + b"\n")
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    supervisor.serve(server)
    path.unlink(missing_ok=True)
