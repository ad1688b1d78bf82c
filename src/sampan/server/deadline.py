"""How long a request may take: a minute, or less if it says so. One that waits for nothing costs no timer, and all
that have the usual minute share one.

Source: kube-apiserver `--request-timeout`; API concepts, the `timeout` parameter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from sampan.api import duration
from sampan.api.status import ApiError, bad_request
from sampan.base.clock import Clock
from sampan.server.route import RequestInfo

T = TypeVar("T")
LIMIT = 60.0  # seconds
_LASTING = frozenset(("exec", "attach", "portforward", "proxy", "log"))


def seconds(info: RequestInfo) -> float | None:
    """How long this request may take; None for one that lasts as long as it likes. Raises 400."""
    if info.verb == "watch" or info.subresource in _LASTING:
        return None
    text = info.first("timeout") if info.query else ""
    if not text:
        return LIMIT
    try:
        asked = duration.seconds(text)
    except ValueError as error:
        raise bad_request(f"invalid timeout specified in the request URL - {error}") from None
    return min(asked, LIMIT) if asked > 0 else LIMIT


class Deadlines:
    """`within` is what a server asks; who came first is due first, so the one timer stands for that."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[_Wait, None] = {}  # in the order they are due
        self._armed = False

    async def within(self, limit: float | None, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, within `limit` seconds. Raises 504."""
        if limit is None:
            return await work
        try:
            waiting = work.send(None)
        except StopIteration as done:
            return done.value
        begun = _Begun(work, waiting)
        if limit != LIMIT:
            return await self._alone(limit, begun)
        wait = _Wait(self._clock.monotonic() + limit)
        self._waiting[wait] = None
        if not self._armed:
            self._arm(limit)
        try:
            return await begun
        except asyncio.CancelledError:
            if wait.expired and wait.task.uncancel() <= wait.cancelling:
                raise _too_late() from None
            raise
        finally:
            self._waiting.pop(wait, None)

    async def _alone(self, limit: float, begun: _Begun) -> Any:
        """A limit of the request's own has a timer of its own."""
        try:
            async with self._clock.timeout(limit):
                return await begun
        except TimeoutError:
            raise _too_late() from None

    def _arm(self, delay: float) -> None:
        self._armed = True
        self._clock.call_later(delay, self._due)

    def _due(self) -> None:
        self._armed = False
        now = self._clock.monotonic()
        for wait in list(self._waiting):
            if wait.due > now:
                self._arm(wait.due - now)
                return
            del self._waiting[wait]
            wait.expired = True
            wait.task.cancel()


class _Wait:
    """A task that waits for its answer, until `due` (monotonic seconds)."""

    __slots__ = ("cancelling", "due", "expired", "task")

    def __init__(self, due: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.cancelling = task.cancelling()
        self.due = due
        self.expired = False


def _too_late() -> ApiError:
    return ApiError(504, "Timeout", "Timeout: request did not complete within the allotted timeout", {})


class _Begun:
    """The rest of a coroutine that has begun and waits for something."""

    __slots__ = ("_waiting", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], waiting: Any) -> None:
        self._work, self._waiting = work, waiting

    def __await__(self) -> Generator[Any, Any, Any]:
        work, waiting = self._work, self._waiting
        while True:
            try:
                value = yield waiting
            except BaseException as error:  # thrown in, as a cancellation is
                try:
                    waiting = work.throw(error)
                except StopIteration as done:
                    return done.value
            else:
                try:
                    waiting = work.send(value)
                except StopIteration as done:
                    return done.value
