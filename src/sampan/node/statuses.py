"""Pod statuses on their way to the API: one latest-wins slot a pod, a few writers, nothing sent that is unchanged.

A burst of changes of a pod costs one patch; a patch carries only what differs from what the API was last told. That a
pod has begun to start is worth a patch only if it is not up a moment later.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sampan.api.status import ApiError
from sampan.base.clock import Clock, Timer
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.node.pods import resize

log = logging.getLogger(__name__)
_ON_THE_WAY = ("ContainerCreating", "PodInitializing")
_WRITERS = 8
_RETRY = (0.2, 10.0)  # first and longest pause after a failure
_PATIENCE = 0.05  # seconds that a status waits which says no more than that the pod is being started


class StatusWriter:
    """Sends pod statuses as strategic merge patches that hold for one uid only."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._slots: dict[str, tuple[Object, Object]] = {}  # uid -> (pod, status), newest wins
        self._held: dict[str, tuple[Object, Object, Timer]] = {}  # those that may wait, until their timer
        self._sent: dict[str, Object] = {}
        self._written: dict[str, int] = {}  # the revision that has it
        self._writers: set[asyncio.Task[None]] = set()
        self._active: dict[str, asyncio.Event] = {}  # uids being written

    def know(self, pod: Object) -> None:
        """What the API already has, so that taking a pod over writes nothing."""
        uid = pod["metadata"]["uid"]
        self._sent.setdefault(uid, pod.get("status", {}))
        self._written.setdefault(uid, int(pod["metadata"].get("resourceVersion") or 0))

    def seen(self, pod: Object) -> None:
        """What the API has now. Conditions that somebody else changed are told again: a node that was not heard of for
        a while finds its pods marked as not ready."""
        uid = pod["metadata"]["uid"]
        if uid in self._slots or uid in self._held or uid in self._active or uid not in self._written:
            return
        if int(pod["metadata"]["resourceVersion"]) < self._written[uid]:
            return
        stored, told = (_states(status) for status in (pod.get("status", {}), self._sent[uid]))
        if any(stored.get(kind) != state for kind, state in told.items()):
            status, self._sent[uid] = self._sent[uid], pod.get("status", {})
            self.put(pod, status)

    def put(self, pod: Object, status: Object) -> None:
        """The newest status of a pod is to be written; one that was not sent yet is replaced.

        A pod that only starts waits a moment, since what follows most often makes that status needless.
        """
        uid = pod["metadata"]["uid"]
        held = self._held.pop(uid, None)
        if _starting(status) and uid not in self._slots:
            timer = held[2] if held else self._clock.call_later(_PATIENCE, self._release, uid)
            self._held[uid] = (pod, status, timer)
            return
        if held:
            held[2].cancel()
        self._slots[uid] = (pod, status)
        self._start_writer()

    def _release(self, uid: str) -> None:
        pod, status, _ = self._held.pop(uid)
        self._slots[uid] = (pod, status)
        self._start_writer()

    def _start_writer(self) -> None:
        if len(self._writers) < _WRITERS:
            task = asyncio.get_running_loop().create_task(self._write())
            self._writers.add(task)
            task.add_done_callback(self._writers.discard)

    async def flush(self, uid: str) -> None:
        """Returns when nothing newer is to be sent for this pod."""
        if uid in self._held:
            self._held[uid][2].cancel()
            self._release(uid)
        while uid in self._slots or uid in self._active:
            if uid in self._active:
                await self._active[uid].wait()
            else:
                slot = self._slots.pop(uid)
                await self._send(uid, *slot)

    def forget(self, uid: str) -> None:
        """The pod is gone: nothing more is sent for it."""
        self._slots.pop(uid, None)
        self._sent.pop(uid, None)
        held = self._held.pop(uid, None)
        if held:
            held[2].cancel()
        self._written.pop(uid, None)

    async def close(self) -> None:
        """Ends at once; what was not sent is computed again by the next agent."""
        for _, _, timer in self._held.values():
            timer.cancel()
        self._held.clear()
        for task in list(self._writers):
            task.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            uid = next((u for u in self._slots if u not in self._active), None)
            if uid is None:
                return
            await self._send(uid, *self._slots.pop(uid))

    async def _send(self, uid: str, pod: Object, status: Object) -> None:
        self._active[uid] = asyncio.Event()
        delay = _RETRY[0]
        try:
            while True:
                try:
                    await self._patch(uid, pod, status)
                    return
                except ApiError as error:
                    if error.code in (404, 409, 422):  # gone, or another pod of that name
                        if error.code == 422:
                            log.error("status of pod %s refused: %s", pod["metadata"]["name"], error.message)
                        return
                    log.warning("status of pod %s: %s", pod["metadata"]["name"], error.message)
                except (OSError, EOFError) as error:
                    log.warning("status of pod %s: %s", pod["metadata"]["name"], error)
                if uid in self._slots:  # a newer one is waiting
                    pod, status = self._slots.pop(uid)
                await self._clock.sleep(delay)
                delay = min(delay * 2, _RETRY[1])
        finally:
            self._active.pop(uid).set()

    async def _patch(self, uid: str, pod: Object, status: Object) -> None:
        patch = status_patch(self._sent.get(uid, {}), status)
        if not patch:
            return
        meta = pod["metadata"]
        body = {"metadata": {"uid": uid}, "status": patch}
        made = await self._client.patch(
            "pods", meta["name"], body, meta["namespace"], kind="strategic", subresource="status"
        )
        self._sent[uid] = status
        self._written[uid] = int(made["metadata"]["resourceVersion"])


def _starting(status: Object) -> bool:
    """Whether it says no more than that nothing of the pod has run yet and nothing has gone wrong."""
    if status["phase"] != "Pending" or "reason" in status:
        return False
    containers = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    return all((c["state"].get("waiting") or {}).get("reason") in _ON_THE_WAY for c in containers)


def status_patch(old: Object, new: Object) -> Object:
    """The strategic merge patch from one pod status to the next; {} when they say the same."""
    patch: Object = {}
    for key in ("reason", "message"):
        if key in old and key not in new:
            patch[key] = None
    for key, value in new.items():
        if key == "conditions" or _same(old.get(key), value):
            continue
        if key == "podIPs" and old.get(key):
            value = [*value, {"$patch": "replace"}]
        patch[key] = value
    changed = _conditions(old.get("conditions") or [], new["conditions"])
    if changed:
        mine = [c["type"] for c in new["conditions"]]
        known = [c["type"] for c in old.get("conditions") or ()]
        others = [kind for kind in known if kind not in mine and kind not in resize.CONDITIONS]
        patch["$setElementOrder/conditions"] = [{"type": t} for t in [*mine, *others]]
        patch["conditions"] = changed
    return patch


def _states(status: Object) -> dict[str, str]:
    return {c["type"]: c["status"] for c in status.get("conditions") or ()}


def _conditions(old: list[Object], new: list[Object]) -> list[Object]:
    before = {c["type"]: {k: v for k, v in c.items() if v is not None} for c in old}
    changed = []
    for condition in new:
        known = before.get(condition["type"])
        if known != condition:
            gone = [k for k in ("reason", "message") if known and k in known and k not in condition]
            changed.append(condition | dict.fromkeys(gone))
    present = {c["type"] for c in new}
    over = [kind for kind in resize.CONDITIONS if kind in before and kind not in present]
    return changed + [{"type": kind, "$patch": "delete"} for kind in over]


def _same(old: Any, new: Any) -> bool:
    """Equal but for nulls and empty maps, which a server may drop."""
    return _bare(old) == _bare(new)


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: b for k, v in value.items() if (b := _bare(v)) is not None and b != {}}
    if isinstance(value, list):
        return [_bare(v) for v in value]
    return value
