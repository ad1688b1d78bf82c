"""A node's process 1: holds its namespaces, starts zygote and agent and restarts them, reaps what is orphaned.

Killing it kills the node with all that is in it. Started by `spawn_node`; the same for root and for the root of a user
namespace (rootless). It is small and stdlib-only; the zygote is a fork of it and shares its memory.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

from sampan.node.native import cgroups, sandbox, syscalls, zygote

_PID_MAX = "/proc/sys/kernel/pid_max"
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 10.0  # seconds before a restart of something that keeps dying
_SETTLED = 10.0  # seconds it must have lived for the delay to start over


class NodeProcess:
    """A node seen from outside, like subprocess.Popen: `pid` is its process 1."""

    def __init__(self, pid: int, start: int = 0) -> None:
        """`start` (ticks since boot) makes sure that it is that very process; 0 trusts the pid."""
        self.pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1
        if self._pidfd >= 0 and start and syscalls.start_ticks(pid) != start:
            os.close(self._pidfd)
            self._pidfd = -1

    @classmethod
    def find(cls, pid_file: str) -> NodeProcess | None:
        """The node that wrote `pid_file`, if that very process still lives."""
        try:
            with open(pid_file, encoding="utf-8") as file:
                record = json.load(file)
        except (OSError, ValueError):
            return None
        if record.get("boot") != _boot_id():
            return None
        node = cls(record["pid"], record["start"])
        return node if node.poll() is None else None

    @property
    def netns(self) -> str:
        """The path of its network namespace."""
        return f"/proc/{self.pid}/ns/net"

    def poll(self) -> int | None:
        """None while it lives, then 0 (nobody but its parent learns the exit code)."""
        if self._pidfd < 0:
            return 0
        return 0 if select.select([self._pidfd], [], [], 0)[0] else None

    def wait(self, timeout: float | None = None) -> int:
        """Until it ended. Raises TimeoutError."""
        if self._pidfd >= 0 and not select.select([self._pidfd], [], [], timeout)[0]:
            raise TimeoutError(f"node process {self.pid} did not end in {timeout} s")
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody else's child
        return 0

    def send_signal(self, number: int) -> None:
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass

    def terminate(self) -> None:
        """Ask it to stop the agent, then everything else."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything in it at once. Its cgroups stay: `cgroups.sweep()` removes them."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def spawn_node(
    *,
    name: str,
    directory: str,
    run: str,
    agent: Sequence[str],
    log: str,
    die_with_parent: bool = False,
    connect: Callable[[int], None] | None = None,
    cgroup: str | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    grace: float = 10.0,
    netns: str = "new",
    fresh: bool | None = None,
) -> int:
    """Start a node; returns the pid of its process 1 when that is ready. Blocking (10 to 60 ms). Raises OSError.

    `agent` is its argv, restarted whenever it ends; `log` takes its output and ours. `run`/zygote.sock and `run`/init.pid
    are made; `directory` is the working directory. `connect(pid)` is called when the namespaces exist and before the agent
    starts: put a cable into /proc/PID/ns/net there. `netns`: "new", "host", or a path to join. `cgroup` is swept when
    the node is told to stop (SIGTERM: the agent gets `grace` seconds). `fresh`: exec a new interpreter instead of forking
    this one; None decides by whether this process has threads. A forked node becomes our child (we become a subreaper).
    """
    pid_file = f"{run}/init.pid"
    config = {
        "name": name,
        "directory": directory,
        "agent": list(agent),
        "log": log,
        "pid_file": pid_file,
        "zygote": f"{run}/zygote.sock",
        "cgroup": cgroup,
        "env": dict(env or {}),
        "pass_fds": list(pass_fds),
        "grace": grace,
        "netns": netns,
        "parent": os.getpid() if die_with_parent else 0,
        "pid_max": _read(_PID_MAX),
    }
    if fresh is None:
        fresh = len(os.listdir("/proc/self/task")) > 1
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            helper = _exec_helper(config, theirs) if fresh else _fork_helper(config, theirs)
        os.waitpid(helper, 0)
        return _negotiate(ours, pid_file, connect)


def _negotiate(channel: socket.socket, pid_file: str, connect: Callable[[int], None] | None) -> int:
    """Learn its pid, give it its network, let it go on, and hear that it did."""
    pid = int(_answer(channel)["pid"])
    try:
        if connect is not None:
            connect(pid)
        channel.send(b"{}")
        _answer(channel)
        record = {"pid": pid, "start": syscalls.start_ticks(pid), "boot": _boot_id()}
        syscalls.write_atomic(pid_file, json.dumps(record).encode(), 0o644)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    return pid


def _answer(channel: socket.socket) -> dict:
    data = channel.recv(65536)
    if not data:
        raise OSError(errno.ECHILD, "the node's first process died while it started")
    reply = json.loads(data)
    if reply.get("error"):
        raise OSError(reply.get("errno") or errno.EIO, reply["error"])
    return reply


def _exec_helper(config: dict, channel: socket.socket) -> int:
    """A new, small interpreter: nothing of a large or threaded caller is inherited."""
    import subprocess

    source = os.path.dirname(os.path.abspath(__file__))
    for _ in range(3):
        source = os.path.dirname(source)
    code = f"import sys; sys.path.insert(0, {source!r}); from sampan.node.native import init; init.main()"
    memory = os.memfd_create("config")
    try:
        os.write(memory, json.dumps(config).encode())
        process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-I", "-c", code, str(memory), str(channel.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[memory, channel.fileno(), *config["pass_fds"]],
        )
    finally:
        os.close(memory)
    process.returncode = 0  # spawn_node waits for it
    return process.pid


def _fork_helper(config: dict, channel: socket.socket) -> int:
    """A single-threaded, light caller (the supervisor) is forked: its memory is shared with the whole node."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _leave(config, channel)
    return pid


def main() -> None:
    """Entered by the interpreter of _exec_helper: argv has the descriptors of the config and the channel."""
    memory, number = int(sys.argv[1]), int(sys.argv[2])
    config = json.loads(os.pread(memory, os.fstat(memory).st_size, 0))
    _leave(config, socket.socket(fileno=number))


def _leave(config: dict, channel: socket.socket) -> None:
    """Make the namespaces, leave a process 1 behind, tell its pid. Never returns."""
    try:
        parent = os.pidfd_open(config["parent"]) if config["parent"] else -1
        os.setsid()
        flags = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
        if config["netns"] == "new":
            flags |= syscalls.CLONE_NEWNET
        elif config["netns"] != "host":
            syscalls.enter(config["netns"], syscalls.CLONE_NEWNET)
        syscalls.unshare(flags)
        pid = os.fork()
        if pid == 0:
            _first(config, parent, channel)
        channel.send(json.dumps({"pid": pid}).encode())
    except OSError as error:
        _report(channel, error)
    finally:
        os._exit(0)


def _report(channel: socket.socket, error: BaseException) -> None:
    number = error.errno if isinstance(error, OSError) else 0
    name = getattr(error, "filename", None) or "node"
    text = getattr(error, "strerror", None) or str(error)
    channel.send(json.dumps({"error": f"{name}: {text}", "errno": number}).encode())


def _boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _first(config: dict, parent: int, channel: socket.socket) -> None:
    """We are process 1 of the node. Never returns."""
    try:
        if not channel.recv(64):
            os._exit(1)
        _prepare(config)
        _close_all_but({parent, channel.fileno(), *config["pass_fds"]})
        channel.send(b"{}")
        channel.close()
    except BaseException as error:
        _report(channel, error)
        os._exit(1)
    try:
        _Init(config, parent).run()
    except BaseException:
        _log(traceback.format_exc())
    finally:
        os._exit(1)


def _prepare(config: dict) -> None:
    """Mounts, name, loopback and standard streams of a fresh node."""
    syscalls.set_name("sampan-node")
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SHARED)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", flags)
    try:  # since Linux 6.14 a namespace has a number of its own, which promises more than there are
        syscalls.write_file(_PID_MAX, config["pid_max"])
    except OSError:
        pass
    socket.sethostname(config["name"])
    if config["netns"] == "new":
        sandbox.loopback_up()
    os.makedirs(config["directory"], mode=0o700, exist_ok=True)
    os.chdir(config["directory"])
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(config["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    for fd, number in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, number)
    os.close(null)
    os.close(log)


def _log(text: str) -> None:
    """To the log, past sys.stderr: whoever was forked into us may have replaced that. A full disk loses lines only."""
    try:
        os.write(2, text.encode(errors="replace"))
    except OSError:
        pass


def _close_all_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass


class _Child:
    """Something process 1 keeps alive."""

    def __init__(self, name: str, start: Callable[[], None]) -> None:
        self.name = name
        self.start = start
        self.pid = 0
        self.since = 0.0
        self.delay = _FIRST_DELAY
        self.due = 0.0  # when to start it again; meaningless while it lives


class _Init:
    def __init__(self, config: dict, parent: int) -> None:
        self._config = config
        self._parent = parent
        self._children = [_Child("zygote", self._zygote), _Child("agent", self._agent)]
        self._stopping = False

    def run(self) -> None:
        """Serve signals and deaths until told to stop, or until the parent we are tied to is gone."""
        wake, signals = socket.socketpair()
        wake.setblocking(False)
        signals.setblocking(False)
        signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        poll = select.poll()
        poll.register(wake.fileno(), select.POLLIN)
        if self._parent >= 0:
            poll.register(self._parent, select.POLLIN)
        while not self._stopping:
            ready = {fd for fd, _ in poll.poll(self._start_due())}
            if wake.fileno() in ready:
                wake.recv(4096)
            if self._parent in ready:
                os._exit(0)  # all that lives in this PID namespace dies with us
            self._reap()
        self._stop()

    def _note(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._stopping = True

    def _start_due(self) -> float | None:
        """Start what is due; milliseconds until the next start, None when everything runs."""
        waits = []
        for child in self._children:
            if child.pid:
                continue
            now = time.monotonic()
            if child.due <= now:
                child.pid, child.since = self._fork(child), now
            else:
                waits.append((child.due - now) * 1000)
        return min(waits) + 1 if waits else None

    def _fork(self, child: _Child) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            child.start()
        except BaseException:
            _log(traceback.format_exc())
        finally:
            os._exit(1)

    def _zygote(self) -> None:
        os.closerange(3, 1024)
        zygote.serve(self._config["zygote"])

    def _agent(self) -> None:
        kept = set(self._config["pass_fds"])
        _close_all_but(kept)
        for fd in kept:
            os.set_inheritable(fd, True)
        os.setsid()
        argv = self._config["agent"]
        os.execvpe(argv[0], argv, {**os.environ, **self._config["env"]})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    self._died(child, os.waitstatus_to_exitcode(status))

    def _died(self, child: _Child, code: int) -> None:
        now = time.monotonic()
        child.pid = 0
        child.delay = _FIRST_DELAY if now - child.since > _SETTLED else min(child.delay * 2, _LONGEST_DELAY)
        child.due = now + child.delay
        if not self._stopping:
            _log(f"{child.name} ended with {code}; starting it again in {child.delay:.2f} s\n")

    def _stop(self) -> None:
        """The agent first, then everything; leave no group and no file behind."""
        agent = self._children[1]
        until = time.monotonic() + self._config["grace"]
        if agent.pid:
            os.kill(agent.pid, signal.SIGTERM)
        while agent.pid and time.monotonic() < until:
            self._reap()
            if agent.pid:
                signal.sigtimedwait([signal.SIGCHLD], 0.02)
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        if self._config["cgroup"]:
            cgroups.sweep(self._config["cgroup"])
        for path in (self._config["pid_file"], self._config["zygote"]):
            try:
                os.unlink(path)
            except OSError:
                pass
        os._exit(0)
