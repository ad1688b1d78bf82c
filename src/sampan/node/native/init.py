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

from sampan.node.native import cgroups, sandbox, syscalls, zygote

_FIRST_DELAY, _LONGEST_DELAY = 0.05, 10.0  # seconds before a restart of something that keeps dying
_SETTLED = 10.0  # seconds it must have lived for the delay to start over


class NodeProcess:
    """A node seen from outside, like subprocess.Popen: `pid` is its process 1."""

    def __init__(self, pid: int, start: int) -> None:
        self.pid = pid
        self._start = start
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1
        if self._pidfd >= 0 and syscalls.start_ticks(pid) != start:
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


def spawn_node(config: dict) -> NodeProcess:
    """Start a node and return when its process 1 lives. Blocking (about 60 ms). Raises OSError with the cause.

    Keys: agent (argv), agent_log, log, pid_file, zygote (socket path); optional: env (added to ours), cwd, hostname,
    netns ("new", "host" or a path to join; default new), cgroup (swept at the end), die_with_parent (False),
    grace (seconds the agent gets on SIGTERM; 10), pass_fds (descriptors the agent inherits).
    """
    import subprocess

    source = os.path.dirname(os.path.abspath(__file__))
    for _ in range(3):
        source = os.path.dirname(source)
    code = f"import sys; sys.path.insert(0, {source!r}); from sampan.node.native import init; init.main()"
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-I", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=config.get("pass_fds") or (),
    )
    answer, _ = process.communicate(json.dumps({**config, "parent": os.getpid()}).encode())
    if not answer:
        raise OSError(errno.ECHILD, f"node process ended with code {process.returncode} before it started")
    reply = json.loads(answer)
    if reply.get("error"):
        raise OSError(reply.get("errno") or errno.EIO, reply["error"])
    return NodeProcess(reply["pid"], reply["start"])


def main() -> None:
    """Entered by the interpreter that spawn_node started: make the namespaces, leave a process 1 behind, tell its pid."""
    config = json.loads(sys.stdin.buffer.read())
    try:
        reply = _leave(config)
    except OSError as error:
        reply = {"error": f"{error.filename or 'node'}: {error.strerror}", "errno": error.errno}
    os.write(1, json.dumps(reply).encode())
    os._exit(0)


def _leave(config: dict) -> dict:
    parent = os.pidfd_open(config["parent"]) if config.get("die_with_parent") else -1
    os.setsid()
    netns = config.get("netns") or "new"
    flags = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
    if netns == "new":
        flags |= syscalls.CLONE_NEWNET
    elif netns != "host":
        syscalls.enter(netns, syscalls.CLONE_NEWNET)
    syscalls.unshare(flags)
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        _first(config, parent, tell)
    os.close(tell)
    problem = os.read(ready, 4096)
    if problem:
        return json.loads(problem)
    record = {"pid": pid, "start": syscalls.start_ticks(pid), "boot": _boot_id()}
    syscalls.write_atomic(config["pid_file"], json.dumps(record).encode(), 0o644)
    return record


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _first(config: dict, parent: int, tell: int) -> None:
    """We are process 1 of the node. Never returns."""
    try:
        _prepare(config)
        os.close(tell)
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) else 0
        name = getattr(error, "filename", None) or "node"
        text = getattr(error, "strerror", None) or str(error)
        os.write(tell, json.dumps({"error": f"{name}: {text}", "errno": number}).encode())
        os._exit(1)
    try:
        _Init(config, parent).run()
    except BaseException:
        import traceback

        traceback.print_exc()
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
    if config.get("hostname"):
        socket.sethostname(config["hostname"])
    if (config.get("netns") or "new") == "new":
        sandbox.loopback_up()
    os.chdir(config.get("cwd") or "/")
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(config["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    for fd, number in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, number)
    os.close(null)
    os.close(log)


class _Child:
    """Something process 1 keeps alive."""

    def __init__(self, name: str, start: object) -> None:
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
            child.start()  # type: ignore[operator]
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)

    def _zygote(self) -> None:
        os.closerange(3, 1024)
        zygote.serve(self._config["zygote"])

    def _agent(self) -> None:
        kept = set(self._config.get("pass_fds") or ())
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            if fd > 2 and fd not in kept:
                try:
                    os.close(fd)
                except OSError:
                    pass
        log = os.open(self._config["agent_log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.setsid()
        argv = self._config["agent"]
        os.execvpe(argv[0], argv, {**os.environ, **(self._config.get("env") or {})})

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
            print(f"{child.name} ended with {code}; starting it again in {child.delay:.2f} s", flush=True)

    def _stop(self) -> None:
        """The agent first, then everything; leave no group and no file behind."""
        agent = self._children[1]
        until = time.monotonic() + float(self._config.get("grace", 10.0))
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
        if self._config.get("cgroup"):
            cgroups.sweep(self._config["cgroup"])
        for path in (self._config["pid_file"], self._config["zygote"]):
            try:
                os.unlink(path)
            except OSError:
                pass
        os._exit(0)
