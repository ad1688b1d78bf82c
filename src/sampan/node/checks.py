"""One look at a container for a probe or a hook: exec, HTTP, TCP, gRPC health. Each returns (ok, what was seen).

Rules: "Configure Liveness, Readiness and Startup Probes"; any status from 200 to 399 is a success, and so is a redirect
to another host, which is not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from sampan.api import duration
from sampan.base import hostport, tls
from sampan.base.objects import Object
from sampan.node.pods.podspec import mains
from sampan.node.runtime import Runtime, RuntimeFailure

Seen = tuple[bool, str]
_BODY = 10 * 1024
_AGENT = "kube-probe/1.37"
_MOVED = (301, 302, 303, 307, 308)
_REDIRECTS = 10


class Unknown(Exception):
    """Nobody could look, so nothing is known about the container; says why."""


REDIRECTED = "Probe terminated redirects, Response body: "  # how what is seen of a redirect elsewhere begins


async def check(
    runtime: Runtime, pod: Object, container: Object, container_id: str, handler: Object, ip: str
) -> Seen:
    """`handler` is a probe or lifecycle handler. Raises Unknown: the command cannot be started, no port has that name."""
    try:
        if handler.get("exec"):
            return await run_command(runtime, container_id, handler["exec"].get("command") or ())
        if handler.get("httpGet"):
            return await http_get(pod, container, handler["httpGet"], ip)
        if handler.get("tcpSocket"):
            action = handler["tcpSocket"]
            return await tcp_connect(action.get("host") or ip, port_number(pod, container, action["port"]))
        if handler.get("grpc"):
            return await grpc_health(ip, handler["grpc"], handler.get("timeoutSeconds", 1))
    except RuntimeFailure as error:
        raise Unknown(f"failed to exec in container: {error}") from None
    except (OSError, ValueError, EOFError) as error:
        return False, str(error)
    return True, ""


def port_number(pod: Object, container: Object, port: Any) -> int:
    """A port by number or by its name in the container (or another of the pod). Raises Unknown, worded as by kubelet."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for candidate in (container, *mains(pod)):
        for entry in candidate.get("ports") or ():
            if entry.get("name") == port:
                return int(entry["containerPort"])
    raise Unknown(f'strconv.Atoi: parsing "{port}": invalid syntax')


async def run_command(runtime: Runtime, container_id: str, command: Sequence[str]) -> Seen:
    """Success is exit code 0; what was printed is what was seen."""
    process = await runtime.exec(container_id, command)
    output: list[bytes] = []

    async def collect(read: Callable[[], Awaitable[bytes]]) -> None:
        while data := await read():
            if sum(map(len, output)) < _BODY:
                output.append(data)

    try:
        await asyncio.gather(collect(process.read_stdout), collect(process.read_stderr))
        code = await process.wait()
    except asyncio.CancelledError:
        process.kill()
        raise
    finally:
        process.close()
    return code == 0, b"".join(output).decode("utf-8", "replace")[:_BODY]


async def tcp_connect(host: str, port: int) -> Seen:
    """(whether the port took the connection, why not). Source: "Configure Probes", TCP probes."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return False, f"dial tcp {hostport.join(host, port)}: {_cause(error)}"
    await _close(writer)
    return True, ""


def _cause(error: OSError) -> str:
    return f"connect: {os.strerror(error.errno).lower()}" if error.errno and error.errno > 0 else str(error)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


async def http_get(pod: Object, container: Object, action: Object, ip: str) -> Seen:
    """GET as kubelet does it: certificates are not verified; a redirect is followed as long as it stays on the host."""
    host, path = action.get("host") or ip, action.get("path") or "/"
    scheme, port = action.get("scheme", "HTTP").lower(), port_number(pod, container, action["port"])
    url = f"{scheme}://{hostport.join(host, port)}{path if path.startswith('/') else '/' + path}"
    headers = {"Host": hostport.join(host, port), "User-Agent": _AGENT, "Accept": "*/*"}
    for header in action.get("httpHeaders") or ():
        name = "Host" if header["name"].lower() == "host" else header["name"]
        headers[name] = header.get("value", "")
    for _ in range(_REDIRECTS):
        code, location, body = await _get(url, headers)
        if not location:
            ok = 200 <= code < 400
            return ok, "" if ok else f"HTTP probe failed with statuscode: {code}"
        url = urljoin(url, location)
        if urlsplit(url).hostname != host.lower():
            return True, REDIRECTED + body
        headers["Host"] = urlsplit(url).netloc
    return False, f'Get "{url}": stopped after {_REDIRECTS} redirects'


async def _get(url: str, headers: Mapping[str, str]) -> tuple[int, str, str]:
    """(status code, where it redirects to or "", the body if it redirects). Raises OSError and ValueError."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls.client_context(verify=False) if secure else None
        )
    except OSError as error:
        raise ConnectionError(f'Get "{url}": dial tcp {hostport.join(host, port)}: {_cause(error)}') from None
    try:
        lines = [
            f"GET {target} HTTP/1.1",
            *(f"{k}: {v}" for k, v in headers.items() if v),
            "Connection: close",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        status = await reader.readline()
        words = status.split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise ValueError("malformed HTTP response" if status else f'Get "{url}": EOF')
        code, location, length = int(words[1]), "", 0
        if code not in _MOVED:
            return code, "", ""
        while line := (await reader.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "location":
                location = value.strip()
            elif name.lower() == "content-length" and value.strip().isdigit():
                length = min(int(value), _BODY)
        return code, location, (await reader.readexactly(length)).decode("utf-8", "replace")
    finally:
        await _close(writer)


# gRPC: the health protocol's one unary call over plain HTTP/2 (RFC 9113, RFC 7541 literals only, grpc.health.v1).

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY = 0, 1, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_SERVING = b"\x08\x01"


async def grpc_health(host: str, action: Object, seconds: float) -> Seen:
    """SERVING is a success. Who refuses is told of as kubelet does, which goes on trying for `seconds`."""
    port, service = action["port"], action.get("service") or ""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        where = f'"{hostport.join(host, port)}" within {duration.of_seconds(seconds)}'
        return False, f"timeout: failed to connect service {where}: context deadline exceeded"
    try:
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _request(hostport.join(host, port), service))
        body = b""
        while True:
            kind, flags, stream, data = await _read_frame(reader)
            if kind == _SETTINGS and not flags & _ACK:
                writer.write(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                writer.write(_frame(_PING, _ACK, 0, data))
            elif kind == _DATA and stream == 1:
                body += data
            if kind == _GOAWAY or (stream == 1 and kind in (_DATA, _HEADERS) and flags & _END_STREAM):
                break
        if body[5:].startswith(_SERVING):
            return True, ""
        return False, 'service unhealthy (responded with "NOT_SERVING")'
    finally:
        await _close(writer)


def _request(authority: str, service: str) -> bytes:
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", _AGENT),
    )
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)
    message = b"\x0a" + bytes((len(service),)) + service.encode() if service else b""
    body = struct.pack(">BI", 0, len(message)) + message
    return _frame(_HEADERS, _END_HEADERS, 1, block) + _frame(_DATA, _END_STREAM, 1, body)


def _text(text: str) -> bytes:
    """An HPACK string without Huffman coding, shorter than 127 bytes."""
    raw = text.encode()
    return bytes((len(raw),)) + raw


def _frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    return struct.pack(">I", len(data))[1:] + struct.pack(">BBI", kind, flags, stream) + data


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    head = await reader.readexactly(9)
    kind, flags, stream = struct.unpack(">BBI", head[3:])
    return kind, flags, stream & 0x7FFFFFFF, await reader.readexactly(int.from_bytes(head[:3], "big"))
