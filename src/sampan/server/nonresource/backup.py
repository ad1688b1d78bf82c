"""Backup and restore of a running cluster, for `sampan backup` and `sampan restore`.

GET /debug/sampan/backup streams the store as it is at one revision. POST /debug/sampan/restore takes such a stream in
parts and then, at one go, makes the store hold what the backup holds: objects keep their uids and get new revisions, so
that everybody who watches sees ordinary changes and no controller ever sees half of it. Like all of /debug, authorization
leaves both to system:masters unless a role names the paths.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from sampan.api.status import ApiError, bad_request, method_not_allowed
from sampan.base.clock import Clock, Timer, rfc3339
from sampan.client.messages import Request, Response
from sampan.server import respond
from sampan.server.definitions import BUCKET, Definitions
from sampan.server.route import RequestInfo
from sampan.store.backup import Reader, Unreadable, draft_of, pieces
from sampan.store.frames import Record
from sampan.store.protocol import Store

BACKUP, RESTORE = "/debug/sampan/backup", "/debug/sampan/restore"
_PATIENCE = 120.0  # seconds between two parts of an upload
log = logging.getLogger("sampan.backup")


class Backups:
    """`after` is awaited when a restore is done: the composition root puts in what every cluster must have."""

    def __init__(self, store: Store, clock: Clock, served: Definitions, version: str) -> None:
        """`served` are the custom kinds, which come and go with a restore; `version` is written into backups."""
        self._store = store
        self._clock = clock
        self._served = served
        self._version = version
        self.after: Callable[[], Awaitable[Any]] | None = None
        self._upload: _Upload | None = None

    async def answer(self, request: Request, info: RequestInfo) -> Response | None:
        """The answer when the path is one of these, else None."""
        if info.path == BACKUP:
            if request.method != "GET":
                raise method_not_allowed()
            return Response(200, {"content-type": "application/octet-stream"}, self._stream())
        if info.path == RESTORE:
            if request.method != "POST":
                raise method_not_allowed()
            return await self._restore(request, info)
        return None

    async def _stream(self) -> AsyncIterator[bytes]:
        made = {"made": rfc3339(self._clock.now()), "version": self._version}
        for piece in pieces(self._store, **made):
            yield piece
            await self._clock.sleep(0)  # a turn for others

    async def _restore(self, request: Request, info: RequestInfo) -> Response:
        """`?session=ID&offset=N` with a part of the file; `?session=ID&commit=true` when all parts were sent."""
        session = info.first("session")
        if not session:
            raise bad_request("a restore needs a session")
        upload = self._upload
        if upload is None or upload.session != session:
            if info.first("offset") != "0":
                raise ApiError(409, "Conflict", "the upload is not known any more: begin again")
            if upload is not None and upload.busy:
                raise ApiError(409, "Conflict", "another restore is being carried out")
            upload = self._upload = _Upload(session)
        upload.wait(self._clock, self._forget)
        if info.first("commit") != "true":
            upload.take(request.body, info.first("offset"))
            return respond.document({"received": upload.received, "items": upload.reader.count})
        return await self._commit(upload)

    def _forget(self, upload: _Upload) -> None:
        if self._upload is upload and not upload.busy:
            self._upload = None

    async def _commit(self, upload: _Upload) -> Response:
        if not upload.reader.complete:
            raise bad_request("the backup is not complete")
        upload.busy = True
        try:
            counts = await self._replace(upload.reader.records)
        finally:
            self._upload = None
        log.warning("the cluster was restored from a backup: %s", counts)
        if self.after is not None:
            await self.after()
        return respond.document({"revision": upload.reader.head["revision"], **counts})

    async def _replace(self, records: list[Record]) -> dict[str, int]:
        """Make the store hold these records. All writes are given to it before anybody else gets a turn."""
        store = self._store
        wanted = {(r.bucket, r.item.key): r.item for r in records if r.item is not None}
        writes: list[Awaitable[Any]] = []
        defined: list[dict[str, Any]] = []
        undefined: list[dict[str, Any]] = []
        removed = 0
        for bucket in list(store.buckets()):
            for item in store.list(bucket).items:
                if (bucket, item.key) in wanted or _heartbeat(bucket, item.key):
                    continue
                removed += 1
                writes.append(store.delete(bucket, item.key, None))
                if bucket == BUCKET:
                    undefined.append(orjson.loads(item.value))
        put = 0
        for (bucket, key), item in wanted.items():
            now = store.get(bucket, key)
            draft = draft_of(item)
            if now is not None and draft_of(now).value == draft.value:
                continue
            put += 1
            writes.append(store.put(bucket, key, draft, None))
            if bucket == BUCKET:
                defined.append(orjson.loads(item.value))
        for obj in undefined:
            self._served.removed(obj)
        for obj in defined:
            self._served.changed(obj)
        await asyncio.gather(*writes, return_exceptions=False)
        return {"written": put, "removed": removed, "unchanged": len(wanted) - put}


class _Upload:
    """A backup on its way here."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.reader = Reader()
        self.received = 0
        self.busy = False
        self._timer: Timer | None = None

    def wait(self, clock: Clock, forget: Callable[[_Upload], None]) -> None:
        """Give the sender a while for its next part."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = clock.call_later(_PATIENCE, forget, self)

    def take(self, data: bytes, offset: str) -> None:
        if offset != str(self.received):
            raise ApiError(409, "Conflict", f"expected the part at {self.received}")
        try:
            self.reader.feed(data)
        except Unreadable as error:
            raise bad_request(str(error)) from None
        self.received += len(data)


def _heartbeat(bucket: str, key: str) -> bool:
    return bucket == "leases.coordination.k8s.io" and key.startswith("kube-node-lease/")
