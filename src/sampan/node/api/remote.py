"""exec and attach: a process's streams to the five channels, and its exit code to a Status at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from sampan.api.status import internal
from sampan.base.clock import Clock
from sampan.client.messages import RawStream, Response
from sampan.node.api.channels import (
    ERROR,
    RESIZE,
    SPDY,
    STDERR,
    STDIN,
    STDOUT,
    WEBSOCKET,
    Channels,
    SpdyChannels,
    WebSocketChannels,
    is_spdy,
    spdy_head,
)
from sampan.node.api.query import Query, text
from sampan.node.api.websocket import WebSocket, handshake, is_websocket
from sampan.node.runtime import Exec, RuntimeFailure

Begin = Callable[[], Awaitable[Exec]]


def serve(query: Query, begin: Begin, command: list[str], clock: Clock, lets_go: bool = False) -> Response:
    """An answer that upgrades the connection and runs what `begin` starts.

    No `command` is an attach. `lets_go`: the end of the client's input ends the attach, as with kubelet for a
    container whose input stays open (stdin without stdinOnce).
    """
    wants = {
        STDIN: query.flag("input", "stdin"),
        STDOUT: query.flag("output", "stdout"),
        STDERR: query.flag("error", "stderr") and not query.flag("tty"),
        RESIZE: query.flag("tty"),
    }
    if is_websocket(query.headers):
        found = handshake(query.headers, WEBSOCKET)
        if found is None:
            return text(400, "no subprotocol of the client is supported\n")
        protocol, head = found

        async def websocket(stream: RawStream) -> None:
            socket = WebSocket(stream, protocol, clock)
            await _run(WebSocketChannels(socket), begin, command, wants, lets_go)

        return Response(101, head, upgrade=websocket)
    if is_spdy(query.headers):
        head = spdy_head(query.headers, SPDY)
        protocol = head.get("x-stream-protocol-version", "")

        async def spdy(stream: RawStream) -> None:
            channels = SpdyChannels(stream, {ERROR, *(c for c, wanted in wants.items() if wanted)}, protocol)
            await channels.opened()
            await _run(channels, begin, command, wants, lets_go)

        return Response(101, head, upgrade=spdy)
    return text(400, "Upgrade request required\n")


async def _run(
    channels: Channels, begin: Begin, command: list[str], wants: dict[int, bool], lets_go: bool
) -> None:
    try:
        process = await begin()
    except (RuntimeFailure, OSError) as error:
        what = "error executing command in container" if command else "error attaching to container"
        await _finish(channels, internal(f"{what}: {error}").status())
        return
    loop = asyncio.get_running_loop()
    copies = [
        loop.create_task(_copy(process.read_stdout, channels, STDOUT if wants[STDOUT] else -1)),
        loop.create_task(_copy(process.read_stderr, channels, STDERR if wants[STDERR] else -1)),
    ]
    inward = loop.create_task(_inward(channels, process, lets_go))
    ended = loop.create_task(process.wait())
    try:
        await asyncio.wait({ended, inward}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            if inward.exception() is None and inward.result():
                await _finish(channels, exit_status(0, command))
            elif command and wants[RESIZE]:  # the client hung up on its terminal
                process.kill()
            elif command:
                await _run_out(process)
            return
        await asyncio.gather(*copies, return_exceptions=True)
        code = ended.result() if command else 0  # who attached learns how a container ended from its status
        await _finish(channels, exit_status(code, command))
    finally:
        for task in (inward, ended, *copies):
            task.cancel()
        await asyncio.gather(inward, ended, *copies, return_exceptions=True)
        process.close()


async def _run_out(process: Exec) -> None:
    """The client is gone: its command reads the end of its input and goes on, as with other runtimes.

    Tools that copy files into a container send all, hang up, and count on that.
    """
    with contextlib.suppress(OSError):
        await process.close_stdin()
    await process.wait()


async def _copy(read: Callable[[], Awaitable[bytes]], channels: Channels, channel: int) -> None:
    gone = channel < 0
    while data := await read():
        if not gone:
            try:
                await channels.send(channel, data)
            except OSError:  # what nobody hears must still be read, or the process would wait for ever
                gone = True


async def _inward(channels: Channels, process: Exec, lets_go: bool) -> bool:
    """Input and sizes to the process; True when the client's input ended and it lets go, False when it is gone."""
    while True:
        channel, data = await channels.receive()
        if channel == -1:
            return False
        with contextlib.suppress(OSError):  # a process may close its input early
            if channel == STDIN and data is None:
                if lets_go:
                    return True
                await process.close_stdin()
            elif channel == STDIN and data:
                await process.write(data)
        if channel == RESIZE and data:
            _resize(process, data)


def _resize(process: Exec, data: bytes) -> None:
    """{"Width": columns, "Height": rows}, one or several. The JavaScript client writes small letters, Go takes both."""
    for line in data.splitlines():
        with contextlib.suppress(ValueError, AttributeError):
            size: Any = orjson.loads(line.lower())
            columns, rows = int(size.get("width", 0)), int(size.get("height", 0))
            if columns > 0 and rows > 0:
                process.resize(columns, rows)


def exit_status(code: int, command: list[str]) -> dict[str, Any]:
    """The Status that ends a remote command (v4): Success, or Failure with the exit code as a cause."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    cause = f"error executing command {_go_list(command)}, exit code {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {cause}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _go_list(words: list[str]) -> str:
    return "[" + " ".join(words) + "]"


async def _finish(channels: Channels, status: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        if channels.structured:
            await channels.send(ERROR, orjson.dumps(status))
        elif status["status"] != "Success":
            await channels.send(ERROR, status["message"].encode())
    await channels.close()
