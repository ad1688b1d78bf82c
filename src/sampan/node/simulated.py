"""A runtime whose containers are data: for the memory fidelity and for clusters of thousands of nodes.

How a container behaves is read from its pod's annotations, else guessed from its command:

    sampan.dev/simulate: exit=1 after=2s            every container exits with 1 after two seconds
    sampan.dev/simulate.web: ready=false            the readiness probe of container web fails
    exit=N after=DURATION   ends by itself          times=N     only the first N attempts behave so
    ready=false|DURATION    never ready, or later   live=false|DURATION  liveness fails (after a while)
    start=DURATION          latency of a start      stop=DURATION        time between SIGTERM and the end
    error=TEXT              cannot be started       log=TEXT             a line of output
    reason=OOMKilled        reason of the exit      message=TEXT         termination message
    cpu=QUANTITY            what it uses            memory=QUANTITY      (kubectl top, autoscalers)
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
import shlex
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from sampan.api import duration, quantity
from sampan.base.clock import Clock, rfc3339_micro
from sampan.node.runtime import (
    ContainerConfig,
    ContainerStatus,
    Exec,
    Image,
    ImageError,
    Limits,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
)

_SIMULATE = "sampan.dev/simulate"
_SLEEP = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)")
_EXIT = re.compile(r"\bexit\s+(\d+)")


def seconds(text: str) -> float:
    """A duration such as 250ms, 2s, 1m, or plain seconds. Raises ValueError."""
    return float(text) if text.replace(".", "", 1).isdigit() else duration.seconds(text)


def _moment(text: str) -> float:
    return 0.0 if text in ("true", "false") else seconds(text)


_WORDS: Mapping[str, Callable[[str], object]] = {  # of the annotation, and who can read what follows
    **dict.fromkeys(("exit", "times"), int),
    **dict.fromkeys(("after", "start", "stop"), seconds),
    **dict.fromkeys(("ready", "live"), _moment),
    **dict.fromkeys(("error", "reason", "message", "log"), str),
    "cpu": quantity.milli,
    "memory": quantity.value,
}


def _understood(config: ContainerConfig) -> dict[str, str]:
    """As `behaviour`. Raises RuntimeFailure for an annotation that cannot be read."""
    try:
        words = behaviour(config)
    except ValueError as error:
        raise RuntimeFailure("RunContainerError", f"{_SIMULATE} cannot be read: {error}") from None
    if unknown := sorted(words.keys() - _WORDS.keys()):
        raise RuntimeFailure(
            "RunContainerError",
            f"{_SIMULATE} knows no word {', '.join(unknown)}; it knows {', '.join(sorted(_WORDS))}",
        )
    for word, text in words.items():
        try:
            _WORDS[word](text)
        except ValueError as error:
            message = f"{_SIMULATE} cannot read {word}={text}: {error}"
            raise RuntimeFailure("RunContainerError", message) from None
    return words


def behaviour(config: ContainerConfig) -> dict[str, str]:
    """How this attempt of a container behaves, as the words of its annotation."""
    labels = config.labels
    text = labels.get(f"{_SIMULATE}.{config.name}", labels.get(_SIMULATE))
    if text is None:
        return _guess(config.args)
    words = dict(w.partition("=")[::2] for w in shlex.split(text))
    if "times" in words and config.attempt >= int(words["times"]):
        return {}
    return words


def _guess(args: Sequence[str]) -> dict[str, str]:
    """`sleep 5`, `true`, `false`, and shells that only sleep, echo and exit."""
    if not args:
        return {}
    program = args[0].rpartition("/")[2]
    if program in ("true", "false", "echo", "printf"):
        return {"exit": "1" if program == "false" else "0"}
    if program == "sleep" and len(args) > 1 and re.fullmatch(r"\d+(\.\d+)?", args[1]):
        return {"exit": "0", "after": args[1]}
    if program in ("sh", "bash", "ash") and len(args) > 2 and args[1] in ("-c", "-ec"):
        script = args[2]
        exits = _EXIT.findall(script)
        if exits and not re.search(r"\b(while|until|for|if|trap)\b", script):
            return {"exit": exits[-1], "after": str(sum(float(s) for s in _SLEEP.findall(script)))}
    return {}


class SimulatedImages:
    """Every image exists, unless its name says otherwise (a tag or path part `missing`)."""

    def __init__(self) -> None:
        self._present: dict[str, Image] = {}

    async def find(self, ref: str) -> Image | None:
        return self._present.get(ref)

    async def pull(self, ref: str, credentials: Sequence[Mapping[str, Any]] = ()) -> Image:
        """Every image is there but those with `missing` in a part of the name. Raises ImageError for these."""
        if "missing" in re.split(r"[:/@]", ref):
            raise ImageError("ErrImagePull", f'failed to resolve reference "{ref}": {ref}: not found')
        image = self._present.get(ref)
        if image is None:
            digest = "sha256:" + hashlib.sha256(ref.encode()).hexdigest()
            image = Image(ref, digest, f"{ref.partition('@')[0]}@{digest}", (), {}, 1 << 20)
            self._present[ref] = image
        return image

    async def allows(self, image: Image, ref: str, credentials: Sequence[Mapping[str, Any]] = ()) -> bool:
        return True

    async def list(self) -> list[Image]:
        return list(self._present.values())

    async def remove(self, ref: str) -> None:
        self._present.pop(ref, None)


class SimulatedRuntime:
    """Containers as records with timers. `latency` is the time a start takes, in seconds."""

    name = "sampan-simulated://0.1.0"
    handlers: Sequence[str] = ("", "sampan")

    def __init__(self, clock: Clock, latency: float = 0.0) -> None:
        self._clock = clock
        self._latency = latency
        self._sandboxes: dict[str, SandboxStatus] = {}
        self._containers: dict[str, ContainerStatus] = {}
        self._timers: dict[str, Any] = {}
        self._logs: dict[str, list[bytes]] = {}
        self._use: dict[str, dict[str, str]] = {}
        self._on_exit: Callable[[str], None] = lambda _: None

    async def start(self, on_exit: Callable[[str], None]) -> None:
        self._on_exit = on_exit

    async def close(self) -> None:
        """Containers go on: timers are kept, an agent that starts again finds them."""
        self._on_exit = lambda _: None

    def power_off(self) -> None:
        """All containers vanish at once, as when a machine loses power."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._containers.clear()
        self._sandboxes.clear()

    async def run_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        status = SandboxStatus(config, True, self._clock.now())
        self._sandboxes[config.id] = status
        return status

    async def stop_sandbox(self, sandbox_id: str) -> None:
        for status in list(self._containers.values()):
            if status.config.sandbox == sandbox_id and status.state != "exited":
                self._end(status.config.id, 137, "Error")
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox:
            self._sandboxes[sandbox_id] = dataclasses.replace(sandbox, ready=False)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._sandboxes.pop(sandbox_id, None)

    def writable_layer(self, container_id: str) -> str:
        return ""

    async def reclaim(self) -> None:
        pass

    async def reopen_log(self, container_id: str) -> None:
        pass

    async def start_container(self, config: ContainerConfig) -> ContainerStatus:
        """As the pod's annotation says (the module lists the words), by default at once and for ever. Raises RuntimeFailure."""
        words = _understood(config)
        latency = seconds(words["start"]) if "start" in words else self._latency
        if latency:
            await self._clock.sleep(latency)
        if "error" in words:
            raise RuntimeFailure("RunContainerError", words["error"])
        now = self._clock.now()
        status = ContainerStatus(config, "running", now, now, pid=1)
        self._containers[config.id] = status
        if "log" in words:
            line = f"{rfc3339_micro(now)} stdout F {words['log']}\n".encode()
            self._logs.setdefault(config.log_path, []).append(line)
        if "exit" in words:
            code, delay = int(words["exit"]), seconds(words.get("after", "0"))
            reason = words.get("reason", "Completed" if code == 0 else "Error")
            self._timers[config.id] = self._clock.call_later(
                delay, self._end, config.id, code, reason, words.get("message", "")
            )
        return status

    def _end(self, container_id: str, code: int, reason: str, message: str = "") -> None:
        timer = self._timers.pop(container_id, None)
        if timer:
            timer.cancel()
        status = self._containers.get(container_id)
        if status and status.state != "exited":
            self._containers[container_id] = dataclasses.replace(
                status,
                state="exited",
                finished_at=self._clock.now(),
                exit_code=code,
                reason=reason,
                message=message,
            )
            self._on_exit(container_id)

    def kill(self, container_id: str, code: int = 137, reason: str = "Error") -> None:
        """End a container as if the kernel had done it (for tests)."""
        self._end(container_id, code, reason)

    async def stop_container(self, container_id: str, grace: float) -> None:
        """Takes as long as the word `stop` says; beyond `grace` seconds it is killed, with code 137."""
        status = self._containers.get(container_id)
        if status is None or status.state == "exited":
            return
        delay = seconds(behaviour(status.config).get("stop", "0"))
        if delay:
            await self._clock.sleep(min(delay, grace))
        if delay > grace:
            self._end(container_id, 137, "Error")
        else:
            self._end(container_id, 0, "Completed")

    async def remove_container(self, container_id: str) -> None:
        timer = self._timers.pop(container_id, None)
        if timer:
            timer.cancel()
        self._use.pop(container_id, None)
        status = self._containers.pop(container_id, None)
        if status:
            self._logs.pop(status.config.log_path, None)

    async def sandboxes(self) -> list[SandboxStatus]:
        return list(self._sandboxes.values())

    async def containers(self) -> list[ContainerStatus]:
        return list(self._containers.values())

    async def status(self, container_id: str) -> ContainerStatus | None:
        return self._containers.get(container_id)

    async def exec(
        self, container_id: str, args: Sequence[str], *, tty: bool = False, stdin: bool = False
    ) -> Exec:
        if container_id not in self._containers:
            raise RuntimeFailure("ExecError", "the container is not running")
        return EchoExec(args, stdin)

    async def attach(self, container_id: str) -> Exec:
        return EchoExec((), True)

    async def connect(self, sandbox_id: str, port: int) -> socket.socket:
        raise ConnectionRefusedError(f"port {port}: simulated pods have no network")

    async def update_limits(self, container_id: str, limits: Limits) -> None:
        status = self._containers.get(container_id)
        if status:
            config = dataclasses.replace(status.config, limits=limits)
            self._containers[container_id] = dataclasses.replace(status, config=config)

    async def update_sandbox(self, sandbox_id: str, limits: Limits) -> None:
        pass

    async def stats(self) -> Mapping[str, Mapping[str, float]]:
        now = self._clock.now()
        return {
            c: self._used(status, now) for c, status in self._containers.items() if status.state == "running"
        }

    def use(self, container_id: str, *, cpu: str = "", memory: str = "") -> None:
        """From now on the container uses so much (quantities)."""
        self._use.setdefault(container_id, {}).update(
            {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
        )

    def _used(self, status: ContainerStatus, now: float) -> dict[str, float]:
        words = behaviour(status.config) | self._use.get(status.config.id, {})
        cores = quantity.milli(words.get("cpu", "0")) / 1000
        memory = float(quantity.value(words.get("memory", "1Mi")))
        return {
            "cpu_seconds": cores * (now - status.started_at),
            "cores": cores,
            "memory_working_set": memory,
            "memory_rss": memory,
            "pids": 1.0,
        }

    async def logs(self, path: str) -> AsyncIterator[bytes]:
        for line in self._logs.get(path, ()):
            yield line


class EchoExec:
    """`exec` in a simulated container: prints its command, or what it reads; `exit N` ends with N."""

    def __init__(self, args: Sequence[str], stdin: bool) -> None:
        match = _EXIT.search(" ".join(args))
        self._code = int(match[1]) if match else int(bool(args) and args[0] == "false")
        words = args[1:] if args[:1] == ["echo"] else args
        self._output = asyncio.Queue[bytes]()
        if args:
            self._output.put_nowait(" ".join(words).encode() + b"\n")
        if not stdin:
            self._output.put_nowait(b"")
        self._ended = asyncio.Event()
        if not stdin:
            self._ended.set()

    async def read_stdout(self) -> bytes:
        return await self._output.get()

    async def read_stderr(self) -> bytes:
        await self._ended.wait()
        return b""

    async def write(self, data: bytes) -> None:
        self._output.put_nowait(data)

    async def close_stdin(self) -> None:
        self._output.put_nowait(b"")
        self._ended.set()

    def resize(self, columns: int, rows: int) -> None:
        pass

    async def wait(self) -> int:
        await self._ended.wait()
        return self._code

    def kill(self) -> None:
        self._code = 137
        self._output.put_nowait(b"")
        self._ended.set()

    def close(self) -> None:
        pass
