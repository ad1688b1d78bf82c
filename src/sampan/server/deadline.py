"""How long a request may take: a minute, or less if it says so. One that waits for nothing costs no timer.

Source: kube-apiserver `--request-timeout`; API concepts, the `timeout` parameter.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

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
    from sampan.api.cel.values import parse_duration  # Go's form of a duration; loaded when somebody asks

    try:
        asked = parse_duration(text).ns / 1e9
    except ValueError as error:
        raise bad_request(f"invalid timeout specified in the request URL - {error}") from None
    return min(asked, LIMIT) if asked > 0 else LIMIT


async def within(clock: Clock, limit: float | None, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, within `limit` seconds. Raises 504."""
    if limit is None:
        return await work
    try:
        waiting = work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    try:
        async with clock.timeout(limit):
            return await _Begun(work, waiting)
    except TimeoutError:
        text = "Timeout: request did not complete within the allotted timeout"
        raise ApiError(504, "Timeout", text, {}) from None


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
