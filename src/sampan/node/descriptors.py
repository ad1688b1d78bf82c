"""Waiting for a file descriptor on the event loop, where none of asyncio's transports fits: pipes and terminals of
containers, sockets that came from another process."""

from __future__ import annotations

import asyncio


async def when(fd: int, *, writable: bool = False) -> None:
    """Wait until a descriptor is readable (or writable). One waiter a descriptor and direction."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not waiter.done():
            waiter.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if writable else (loop.add_reader, loop.remove_reader)
    add(fd, settle)
    try:
        await waiter
    finally:
        remove(fd)
