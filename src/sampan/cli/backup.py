"""`sampan backup FILE` and `sampan restore FILE`: everything a cluster holds, out and in again, while it runs."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from sampan.api.status import ApiError
from sampan.base.errors import SampanError
from sampan.cli import target
from sampan.cli.show import size
from sampan.client.client import Client, read_body
from sampan.server.nonresource.backup import BACKUP, RESTORE
from sampan.store.backup import Reader, Unreadable

_PART = 1 << 20  # bytes sent at once


def backup(arguments: argparse.Namespace) -> int:
    """Writes the file beside its place first: a backup that breaks off leaves an older one as it was. Raises SampanError."""
    _, config, client = target.running(arguments)
    path = Path(arguments.file)
    if not path.absolute().parent.is_dir():
        raise SampanError(f"there is no directory {path.parent}")
    making = path.with_name(f"{path.name}.tmp")
    try:
        reader = asyncio.run(_fetch(client, making, compressed=path.suffix == ".gz"))
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
    held = f"{reader.head['items']} objects at revision {reader.head['revision']}"
    print(f"cluster {config.name}: {held}, {size(path.stat().st_size)} in {path}")
    print("  It holds all secrets of the cluster: keep it like one.")
    return 0


async def _fetch(client: Client, path: Path, *, compressed: bool) -> Reader:
    """Write the stream to `path`, checking it on the way."""
    response = await client.request("GET", BACKUP)
    if response.status >= 400:
        raise _refused(await read_body(response))
    reader = Reader(keep=False)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        out = cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=3)) if compressed else file
        async for chunk in _chunks(response.body):
            _feed(reader, chunk)
            out.write(chunk)
        if compressed:
            out.close()
        file.flush()
        os.fsync(file.fileno())
    if not reader.complete:
        raise SampanError("the backup ended before it was whole", "Is the cluster being stopped? Try again.")
    return reader


async def _chunks(body: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    async for chunk in body:
        yield chunk


def restore(arguments: argparse.Namespace) -> int:
    """Makes the cluster hold what the file holds, after a question. Returns 1 when the answer was no; raises SampanError."""
    path = Path(arguments.file)
    head = _check(path)
    _, config, client = target.running(arguments)
    print(
        f"{path}: {head['items']} objects at revision {head['revision']}, made {head.get('made')}", flush=True
    )
    if not arguments.yes and not _confirmed(config.name):
        print("nothing was changed")
        return 1
    told = asyncio.run(_send(client, path))
    print(f"cluster {config.name} holds the backup: {told['written']} objects written, {told['removed']} removed, "
          f"{told['unchanged']} were as they should be")  # fmt: skip
    return 0


def _confirmed(name: str) -> bool:
    if not sys.stdin.isatty():
        raise SampanError("this replaces everything the cluster holds", "Say so with --yes.")
    answer = input(f"Everything that cluster {name} holds now is replaced. Go on? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


def _check(path: Path) -> dict[str, Any]:
    """The head of a whole backup. Raises SampanError before anything is sent."""
    reader = Reader(keep=False)
    for part in _parts(path):
        _feed(reader, part)
    if not reader.complete:
        raise SampanError(
            f"{path} is not a whole backup", "It may have been cut off while it was written or copied."
        )
    return reader.head


def _feed(reader: Reader, data: bytes) -> None:
    try:
        reader.feed(data)
    except Unreadable as error:
        raise SampanError(str(error)) from None


def _parts(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            source = cast(BinaryIO, gzip.GzipFile(fileobj=file) if packed else file)
            while part := source.read(_PART):
                yield part
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise SampanError(f"cannot read {path}: {why}") from None


async def _send(client: Client, path: Path) -> dict[str, Any]:
    session, offset = secrets.token_hex(8), 0
    for part in _parts(path):
        await _post(client, {"session": session, "offset": str(offset)}, part)
        offset += len(part)
    return await _post(client, {"session": session, "commit": "true"}, b"")


async def _post(client: Client, query: dict[str, str], body: bytes) -> dict[str, Any]:
    response = await client.request("POST", RESTORE, query, body, "application/octet-stream")
    data = await read_body(response)
    if response.status >= 400:
        raise _refused(data)
    answer: dict[str, Any] = orjson.loads(data)
    return answer


def _refused(body: bytes) -> SampanError:
    return SampanError(ApiError.from_status(orjson.loads(body)).message)
