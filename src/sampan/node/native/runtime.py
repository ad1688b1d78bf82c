"""The native container runtime as the agent sees it: requests to the zygote, exits told by pidfds, state read from disk.

The agent itself never forks and never enters a namespace. What a request leads to is in `shim`, `sandbox` and `execute`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from sampan import __version__
from sampan.base.clock import Clock
from sampan.node.native import cgroups, requests, stdio, streams, syscalls, usage
from sampan.node.native.channel import Channel, ZygoteError, connect_unix
from sampan.node.native.records import Container, Sandbox, own_namespaces
from sampan.node.runtime import (
    ContainerConfig,
    ContainerStatus,
    Limits,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
)

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_AT_ONCE = 2 * (os.cpu_count() or 1)  # starts under way: more would only wait for the processor


class SandboxNetwork(Protocol):
    """Connects a sandbox's network namespace to the node; given by `node.network`."""

    async def attach(self, netns_path: str, config: SandboxConfig) -> str:
        """Returns the pod's address."""
        ...

    async def adopt(self, netns_path: str, config: SandboxConfig) -> str:
        """The same for a sandbox a former agent left, with `config.ip`."""
        ...

    async def detach(self, config: SandboxConfig) -> None: ...


class NativeRuntime:
    """Implements `node.runtime.Runtime` with Linux namespaces."""

    name = f"sampan://{__version__}"
    handlers: Sequence[str] = ("", "sampan")

    def __init__(
        self,
        directory: str,
        zygote_socket: str,
        clock: Clock,
        network: SandboxNetwork | None = None,
        *,
        cgroup: str | None = None,
    ) -> None:
        """`directory` holds this node's state; `cgroup` is the group its pods live below, e.g. "sampan/n1" (None: no
        groups, so no limits). `network` None leaves sandboxes with a loopback only."""
        self._directory = os.path.abspath(directory)
        self._channel = Channel(zygote_socket, clock)
        self._clock = clock
        self._network = network
        self._cgroup = cgroup
        self._weights: dict[str, int] = {}  # of the groups of QoS classes
        self._on_exit: Callable[[str], None] = lambda _: None
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._watched: dict[str, int] = {}
        self._boot = ""
        self._under_way: dict[asyncio.Task[Any], str] = {}  # -> sandbox whose container it starts
        self._starting = asyncio.Semaphore(_AT_ONCE)

    # -- life of the agent

    async def start(self, on_exit: Callable[[str], None]) -> None:
        """Takes over what is running: `on_exit(container id)` is called for each container that ends from now on.

        One that ended while nobody looked is settled from its files; one whose shim is gone without a word was lost.
        """
        self._on_exit = on_exit
        await asyncio.to_thread(self._load)
        await self._adopt_sandboxes()
        for id_, record in self._containers.items():
            self._ended[id_] = asyncio.Event()
            if record.exit is not None:
                self._ended[id_].set()
            elif not record.shim_alive(self._boot):
                record.settle()
                self._ended[id_].set()
            else:
                await self._until_started(record)
                self._watch(id_)

    def _load(self) -> None:
        with open("/proc/sys/kernel/random/boot_id") as file:
            self._boot = file.read().strip()
        for name in ("sandboxes", "containers"):
            os.makedirs(f"{self._directory}/{name}", mode=0o700, exist_ok=True)
        for entry in sorted(os.listdir(f"{self._directory}/sandboxes")):
            sandbox = Sandbox.load(f"{self._directory}/sandboxes/{entry}", self._boot)
            if sandbox is None:
                self._erase(f"{self._directory}/sandboxes/{entry}")
                continue
            if self._network is not None and not sandbox.config.host_network and not sandbox.config.ip:
                sandbox.ready = False  # it was being made
            self._sandboxes[entry] = sandbox
        for entry in sorted(os.listdir(f"{self._directory}/containers")):
            record = Container.load(f"{self._directory}/containers/{entry}")
            if record is None:
                self._erase(f"{self._directory}/containers/{entry}")
            else:
                self._containers[entry] = record

    async def _adopt_sandboxes(self) -> None:
        for sandbox in self._sandboxes.values():
            if self._network is None or sandbox.config.host_network or not sandbox.ready:
                continue
            try:
                address = await self._network.adopt(f"{sandbox.directory}/net", sandbox.config)
            except OSError as error:
                log.warning("sandbox %s has no network any more: %s", sandbox.config.id, error)
                sandbox.ready = False
            else:
                sandbox.config = replace(sandbox.config, ip=address)

    async def _until_started(self, record: Container) -> None:
        """The agent died while this one was being made: its shim is about to finish that."""
        for _ in range(200):
            fresh = Container.load(record.directory)
            if fresh is None or fresh.state.get("started_at") or fresh.exit is not None:
                record.state = fresh.state if fresh else record.state
                return
            await self._clock.sleep(0.01)

    async def close(self) -> None:
        if self._under_way:  # so that whoever comes next finds it on disk
            await asyncio.wait(self._under_way)
        for id_ in list(self._watched):
            self._unwatch(id_)

    async def _to_the_end(self, work: Coroutine[Any, Any, _T], sandbox: str = "") -> _T:
        """What was asked for is done also when the caller no longer waits: nothing is left half known."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way[task] = sandbox
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Any]) -> None:
        del self._under_way[task]
        if not task.cancelled():
            task.exception()  # whoever still waits for it sees it; nobody else has to

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        return await self._to_the_end(self._run_sandbox(config))

    async def _run_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        existing = self._sandboxes.get(config.id)
        if existing is not None and existing.ready:
            return existing.status()
        directory = f"{self._directory}/sandboxes/{config.id}"
        own = own_namespaces(config)
        created = self._clock.now()
        request = requests.sandbox(directory, config, own, self._pod_cgroup(config), created)
        sandbox = Sandbox(directory, config, created, own)
        try:
            async with self._starting:
                reply, _ = await self._channel.ask("sandbox", request)
            if reply.get("error"):
                raise ZygoteError(reply["error"])
            self._sandboxes[config.id] = sandbox
            if self._network is not None and not config.host_network:
                address = await self._network.attach(f"{directory}/net", config)
                sandbox.config = replace(config, ip=address)
                syscalls.write_atomic(f"{directory}/ip", address.encode())
        except (ZygoteError, OSError) as error:
            sandbox.ready = False
            self._sandboxes[config.id] = sandbox
            await self.remove_sandbox(config.id)
            raise RuntimeFailure("CreatePodSandboxError", f"failed to create pod sandbox: {error}") from None
        self._weigh_classes()
        return sandbox.status()

    def _weigh_classes(self) -> None:
        """BestEffort pods together have the least of a contended CPU, Burstable ones what they asked for ("Pod QoS")."""
        if self._cgroup is None:
            return
        there = [one.config for one in self._sandboxes.values() if one.ready]
        for name in ("besteffort", "burstable"):
            asked = [c.limits.cpu_shares or 0 for c in there if c.cgroup.startswith(f"{name}/")]
            shares = max(2, sum(asked)) if name == "burstable" else 2
            if asked and self._weights.get(name) != shares:
                with contextlib.suppress(OSError):  # a group that is not ours to weigh
                    cgroups.update(f"{self._cgroup}/{name}", {"cpu_shares": shares})
                    self._weights[name] = shares

    def _pod_cgroup(self, config: SandboxConfig) -> str | None:
        if self._cgroup is None:
            return None
        return f"{self._cgroup}/{config.cgroup or f'pod{config.pod_uid}'}"

    async def stop_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        sandbox.ready = False
        starting = [task for task, of in self._under_way.items() if of == sandbox_id]
        if starting:  # else they would make their groups anew below one that we have removed
            await asyncio.wait(starting)
        inside = [id_ for id_, one in self._containers.items() if one.config.sandbox == sandbox_id]
        await asyncio.gather(*(self.stop_container(id_, 0) for id_ in inside))
        if self._network is not None and not sandbox.config.host_network:
            await self._network.detach(sandbox.config)
        await asyncio.to_thread(self._dismantle, sandbox)
        self._weigh_classes()

    def _dismantle(self, sandbox: Sandbox) -> None:
        init = sandbox.record.get("init") or self._init_of(sandbox)
        if init:
            with contextlib.suppress(OSError):
                os.kill(init, signal.SIGKILL)
        for name in ("net", "ipc", "uts", "pid", "user", "shm"):
            with contextlib.suppress(OSError):
                syscalls.umount(f"{sandbox.directory}/{name}")
        group = self._pod_cgroup(sandbox.config)
        others = any(
            one is not sandbox and one.ready and self._pod_cgroup(one.config) == group
            for one in self._sandboxes.values()
        )
        if group and not others and not cgroups.remove(group):
            cgroups.kill(group)  # somebody is still there, or takes long to die
            cgroups.remove(group, patience=5.0)

    def _init_of(self, sandbox: Sandbox) -> int:
        loaded = Sandbox.load(sandbox.directory, self._boot)
        if loaded is None or not loaded.record.get("init"):
            return 0
        pid = loaded.record["init"]
        same = loaded.record.get("boot") == self._boot
        return pid if same and syscalls.start_ticks(pid) == loaded.record["init_start"] else 0

    async def remove_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        await self.stop_sandbox(sandbox_id)
        for id_, one in list(self._containers.items()):
            if one.config.sandbox == sandbox_id:
                await self.remove_container(id_)
        await asyncio.to_thread(self._erase, sandbox.directory)
        self._sandboxes.pop(sandbox_id, None)

    # -- containers

    async def start_container(self, config: ContainerConfig) -> ContainerStatus:
        return await self._to_the_end(self._start_container(config), config.sandbox)

    async def _start_container(self, config: ContainerConfig) -> ContainerStatus:
        sandbox = self._sandboxes.get(config.sandbox)
        if sandbox is None or not sandbox.ready:
            raise RuntimeFailure("CreateContainerError", f"sandbox {config.sandbox} is not running")
        if config.id in self._containers:
            return self._containers[config.id].status()
        if not config.args or not config.args[0]:
            raise RuntimeFailure("CreateContainerError", "no command specified")
        directory = f"{self._directory}/containers/{config.id}"
        pod = sandbox.config
        pid = "host" if pod.host_pid else self._processes_of(sandbox, config.target)
        spec = requests.container(directory, config, sandbox, self._pod_cgroup(pod), pid)
        record = Container(directory, {**spec, "config": None}, config)
        try:
            async with self._starting:
                reply, _ = await self._channel.ask("container", spec)
        except ZygoteError as error:
            await asyncio.to_thread(self._erase, directory)
            raise RuntimeFailure("CreateContainerError", str(error)) from None
        if "shim" not in reply:
            await asyncio.to_thread(self._erase, directory)
            raise RuntimeFailure("CreateContainerError", reply.get("error") or "no answer")
        record.state = reply
        self._containers[config.id] = record
        self._ended[config.id] = asyncio.Event()
        if reply.get("error"):
            record.settle()
            self._ended[config.id].set()
            raise RuntimeFailure(
                "RunContainerError", f'failed to start container "{config.name}": {reply["error"]}'
            )
        status = record.status()
        self._watch(config.id)
        if not sandbox.ready:  # it was stopped meanwhile
            await self.stop_container(config.id, 0)
            raise RuntimeFailure("CreateContainerError", f"sandbox {config.sandbox} was stopped")
        return status

    def _processes_of(self, sandbox: Sandbox, target: str) -> str:
        """The PID namespace of the pod or of a running container; `own` without one. Raises RuntimeFailure."""
        if "pid" in sandbox.own:
            return f"{sandbox.directory}/pid"
        if not target:
            return "own"
        record = self._containers.get(target)
        if record is None or record.exit is not None or not record.state.get("pid"):
            raise RuntimeFailure("CreateContainerError", "the target container does not run")
        return f"/proc/{record.state['pid']}/ns/pid"

    def _watch(self, id_: str) -> None:
        """Be told when the shim ends; at once if it has already."""
        loop = asyncio.get_running_loop()
        try:
            pidfd = os.pidfd_open(self._containers[id_].state["shim"])
        except OSError:
            loop.call_soon(self._shim_ended, id_)
            return
        self._watched[id_] = pidfd
        loop.add_reader(pidfd, self._shim_ended, id_)

    def _unwatch(self, id_: str) -> None:
        pidfd = self._watched.pop(id_, -1)
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def _shim_ended(self, id_: str) -> None:
        self._unwatch(id_)
        record = self._containers.get(id_)
        if record is None or record.exit is not None:
            return
        record.settle()
        self._ended[id_].set()
        self._on_exit(id_)

    async def stop_container(self, container_id: str, grace: float) -> None:
        record = self._containers.get(container_id)
        if record is None or record.exit is not None:
            return
        ended = self._ended[container_id]
        if grace > 0:
            self._signal(record, signal_number(record.config.stop_signal))
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(grace):
                    await ended.wait()
        if not ended.is_set():
            self._signal(record, signal.SIGKILL)
            await ended.wait()

    def _signal(self, record: Container, number: int) -> None:
        pid = record.state.get("pid") or 0
        if not pid:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if syscalls.start_ticks(pid) == record.state["pid_start"]:
                signal.pidfd_send_signal(pidfd, number)
        except OSError:
            pass
        finally:
            os.close(pidfd)

    async def remove_container(self, container_id: str) -> None:
        record = self._containers.get(container_id)
        if record is None:
            return
        await self.stop_container(container_id, 0)
        await asyncio.to_thread(self._clear, record)
        self._containers.pop(container_id, None)
        self._ended.pop(container_id, None)

    def _clear(self, record: Container) -> None:
        if record.spec.get("cgroup"):  # only left behind when the shim was killed
            cgroups.kill(record.spec["cgroup"])
            cgroups.remove(record.spec["cgroup"])
        self._erase(record.directory)

    @staticmethod
    def _erase(directory: str) -> None:
        shutil.rmtree(directory, ignore_errors=True)

    async def update_limits(self, container_id: str, limits: Limits) -> None:
        record = self._containers.get(container_id)
        if record is None or not record.spec.get("cgroup"):
            return
        await _resized(self._resize, record, requests.limits(limits))
        record.config = replace(record.config, limits=limits)

    @staticmethod
    def _resize(record: Container, limits: dict[str, Any]) -> None:
        """A controller that was not needed so far is joined now."""
        group = record.spec["cgroup"]
        usage = cgroups.stats(group).get("memory_working_set", 0)
        if 0 < limits["memory"] < usage:
            text = f"memory limit ({limits['memory']}) below current usage ({int(usage)})"
            raise RuntimeFailure("UpdateContainerError", f"cannot resize: {text}")
        members = cgroups.members(group)
        for path in cgroups.create(group, limits):
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    syscalls.write_file(path, str(pid))

    async def update_sandbox(self, sandbox_id: str, limits: Limits) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        group = self._pod_cgroup(sandbox.config) if sandbox else None
        if sandbox is None or group is None:
            return
        await _resized(cgroups.update, group, requests.limits(limits))
        sandbox.config = replace(sandbox.config, limits=limits)
        self._weigh_classes()
        await asyncio.to_thread(sandbox.save)

    # -- looking

    async def sandboxes(self) -> list[SandboxStatus]:
        return [one.status() for one in self._sandboxes.values()]

    async def containers(self) -> list[ContainerStatus]:
        return [one.status() for one in self._containers.values()]

    async def status(self, container_id: str) -> ContainerStatus | None:
        record = self._containers.get(container_id)
        return record.status() if record else None

    async def stats(self) -> Mapping[str, Mapping[str, float]]:
        running = {id_: one for id_, one in self._containers.items() if one.exit is None}
        return await asyncio.to_thread(self._read_stats, running)

    @staticmethod
    def _read_stats(running: Mapping[str, Container]) -> dict[str, dict[str, float]]:
        result = {
            id_: cgroups.stats(one.spec["cgroup"]) for id_, one in running.items() if one.spec.get("cgroup")
        }
        without = {id_: one.state["pid"] for id_, one in running.items() if not one.spec.get("cgroup")}
        return result | (usage.by_tree(without) if without else {})

    def writable_layer(self, container_id: str) -> str:
        """The directory of what the container has written outside its volumes, "" when there is none."""
        record = self._containers.get(container_id)
        return f"{record.directory}/rw" if record else ""

    async def reclaim(self) -> None:
        """Delete what dead containers wrote outside their volumes: nobody can read that any more."""
        dead = [f"{one.directory}/rw" for one in self._containers.values() if one.exit is not None]
        await asyncio.to_thread(lambda: [self._erase(layer) for layer in dead])

    def logs(self, path: str) -> AsyncIterator[bytes]:
        """The raw log file (CRI lines) and what is appended to it, until the caller stops."""
        return streams.follow(path)

    # -- streams

    async def exec(
        self, container_id: str, args: Sequence[str], *, tty: bool = False, stdin: bool = False
    ) -> streams.Execution:
        """Raises RuntimeFailure when the container does not run or the command cannot be started."""
        record = self._containers.get(container_id)
        if record is None or record.exit is not None or not record.state.get("pid"):
            raise RuntimeFailure("ExecError", f'container "{container_id}" is not running')
        try:
            connection = await self._channel.request(
                "exec", requests.execution(record, args, tty=tty, stdin=stdin)
            )
        except ZygoteError as error:
            raise RuntimeFailure("ExecError", str(error)) from None
        try:
            reply, fds = await connection.recv()
        except ZygoteError as error:
            connection.close()
            raise RuntimeFailure("ExecError", str(error)) from None
        if reply.get("error"):
            connection.close()
            raise RuntimeFailure("ExecError", reply["error"])
        return streams.Execution(connection, fds, tty)

    async def attach(self, container_id: str) -> streams.Attachment:
        """Raises RuntimeFailure when the container does not run."""
        record = self._containers.get(container_id)
        if record is None or record.exit is not None:
            raise RuntimeFailure("AttachError", f'container "{container_id}" is not running')

        async def exit_code() -> int:
            await self._ended[container_id].wait()
            return record.exit["code"] if record.exit else 0

        try:
            return await streams.Attachment.connect(record.directory, record.config.tty, exit_code)
        except OSError as error:
            raise RuntimeFailure("AttachError", f"cannot attach: {error}") from None

    async def reopen_log(self, container_id: str) -> None:
        """Go on in a new file at the same path: the old one was renamed away (log rotation)."""
        record = self._containers.get(container_id)
        if record is None or record.exit is not None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, contextlib.suppress(OSError):
            connect_unix(sock, f"{record.directory}/attach.sock")
            sock.send(bytes((stdio.REOPEN,)))

    async def connect(self, sandbox_id: str, port: int) -> socket.socket:
        """Raises OSError when nothing listens, RuntimeFailure when the sandbox is gone."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            raise RuntimeFailure("PortForwardError", f"sandbox {sandbox_id} is not running")
        net = f"{sandbox.directory}/net" if "net" in sandbox.own else None
        try:
            _, fds = await self._channel.ask("dial", {"net": net})
        except ZygoteError as error:
            raise RuntimeFailure("PortForwardError", str(error)) from None
        candidates = [socket.socket(fileno=fd) for fd in fds]
        failure: OSError = ConnectionRefusedError(111, "connection refused")
        chosen = None
        for candidate, address in zip(candidates, ("127.0.0.1", "::1"), strict=False):
            candidate.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(candidate, (address, port))
                chosen = candidate
                break
            except OSError as error:
                failure = error if address == "127.0.0.1" else failure
        for candidate in candidates:
            if candidate is not chosen:
                candidate.close()
        if chosen is None:
            raise failure
        return chosen


async def _resized(change: Callable[..., None], *arguments: Any) -> None:
    """Change a group in a thread. Raises RuntimeFailure."""
    try:
        await asyncio.to_thread(change, *arguments)
    except OSError as error:
        raise RuntimeFailure("UpdateContainerError", f"cannot resize: {error}") from None


def signal_number(name: str) -> int:
    """SIGTERM, TERM, 15 or SIGRTMIN+3 as a number; SIGTERM when it is none of them."""
    text = name.strip().upper()
    if text.isdigit():
        return int(text)
    text = text if text.startswith("SIG") else f"SIG{text}"
    base, plus, offset = text.partition("+")
    try:
        return int(signal.Signals[base]) + (int(offset) if plus else 0)
    except (KeyError, ValueError):
        return int(signal.SIGTERM)
