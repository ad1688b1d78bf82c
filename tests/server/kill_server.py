"""An API server over a store on disk until it is killed; it says its port when it serves. Run by test_kill.py."""

import asyncio
import socket
import sys
from pathlib import Path

from sampan.api.resources import BUILTIN
from sampan.base.clock import RealClock
from sampan.base.ids import Ids
from sampan.client.messages import Request, User
from sampan.server.app import Server
from sampan.server.http import serve
from sampan.store.durable import DurableStore

ADMIN = User("admin", ("system:masters", "system:authenticated"))


async def main(path: str) -> None:
    clock = RealClock()
    # Small segments: snapshots and compaction go on all the time, so that many kills meet them.
    store = DurableStore(Path(path), clock, on_fatal=lambda e: None, segment=1 << 18, compact=1 << 19)
    server = Server(store, BUILTIN.copy(), clock=clock, ids=Ids())

    async def handle(request: Request):
        request.user = ADMIN
        return await server.handle(request)

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    await serve(handle, [listener], None, clock)
    print(listener.getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
