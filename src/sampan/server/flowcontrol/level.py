"""A priority level: its seats, the flows that belong to it, and the queues of those who wait for seats.

Source: Kubernetes documentation, "API Priority and Fairness", "Queuing" and "Seats Occupied by a Request"; KEP-1040.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from typing import NamedTuple

from sampan.base.objects import Object
from sampan.client.messages import User
from sampan.server import respond
from sampan.server.flowcontrol.tally import Tally
from sampan.server.route import RequestInfo

_WIDEST = 10  # seats of one request
_SHARE = 15  # percent of a level's seats that one request may take


class Flow:
    """Where requests of one kind belong: their schema, its level, and what tells them apart from others in it."""

    __slots__ = ("distinguisher", "headers", "id", "json_headers", "level", "tally")

    def __init__(self, level: Level, schema: Object, distinguisher: str, tally: Tally) -> None:
        self.level = level
        self.tally = tally
        self.distinguisher = distinguisher
        name = schema["metadata"]["name"]
        self.id = f"{name}/{distinguisher}"
        self.headers = {
            "x-kubernetes-pf-flowschema-uid": schema["metadata"].get("uid", ""),
            "x-kubernetes-pf-prioritylevel-uid": level.uid,
        }
        self.json_headers = respond.Headers(respond.JSON_HEADERS | self.headers)


class Waiter(NamedTuple):
    """Who stands in a queue for how many seats, and since when; `seat` is done when they are handed over."""

    seat: asyncio.Future[None]
    flow: Flow
    user: User
    info: RequestInfo
    since: float
    width: int


class Level:
    """Queues take turns; in each, who came first is served first, however many seats it takes."""

    __slots__ = (
        "borrowing",
        "exempt",
        "hand",
        "length",
        "lendable",
        "name",
        "queues",
        "seats",
        "taken",
        "turn",
        "uid",
        "waiting",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = self.waiting = self.turn = 0  # seats, requests, number of a queue
        self.queues: list[deque[Waiter]] = []

    @property
    def lower(self) -> int:
        return self.seats - self.lendable

    @property
    def upper(self) -> int:
        return self.seats + self.borrowing

    @property
    def now(self) -> int:
        return max(self.seats, self.taken)

    @property
    def widest(self) -> int:
        """Seats that one request may take."""
        return max(1, min(_WIDEST, -(-self.seats * _SHARE // 100)))

    def configure(self, raw: Object, seats: int, everything: int) -> None:
        """As its object now says; `seats` is its share of `everything`."""
        spec = raw.get("spec") or {}
        limited = spec.get("limited") or {}
        self.uid: str = raw["metadata"].get("uid", "")
        self.exempt = spec.get("type") == "Exempt"
        self.seats = seats
        self.lendable = seats * (limited.get("lendablePercent") or 0) // 100
        percent = limited.get("borrowingLimitPercent")
        self.borrowing = everything if percent is None else seats * percent // 100
        response = limited.get("limitResponse") or {}
        queuing = response.get("queuing") or {}
        count = queuing.get("queues", 64) if response.get("type") == "Queue" else 0
        self.hand = max(1, min(queuing.get("handSize", 8), count))
        self.length = queuing.get("queueLengthLimit", 50)
        while len(self.queues) < count:
            self.queues.append(deque())
        if len(self.queues) > count and not self.waiting:
            del self.queues[count:]

    def choose(self, flow: str) -> deque[Waiter] | None:
        """The shortest of a few queues that belong to a flow; None when even that is full (or there are none)."""
        if not self.queues:
            return None
        value = zlib.crc32(flow.encode()) | zlib.adler32(flow.encode()) << 32
        left = list(range(len(self.queues)))
        best: deque[Waiter] | None = None
        for _ in range(min(self.hand, len(left))):
            value, index = divmod(value, len(left))
            queue = self.queues[left.pop(index)]
            if best is None or len(queue) < len(best):
                best = queue
        return best if best is not None and len(best) < self.length else None

    def first(self) -> Waiter | None:
        """Who has waited longest in the queue whose turn it is."""
        for step in range(len(self.queues)):
            for waiter in self.queues[(self.turn + step) % len(self.queues)]:
                if not waiter.seat.done():  # who has given up is about to go
                    return waiter
        return None

    def serve(self, waiter: Waiter) -> None:
        """Hand over the seats that somebody waits for; the turn is that of the next queue."""
        self.turn = self.drop(waiter) + 1
        self.taken += waiter.width
        waiter.seat.set_result(None)

    def drop(self, waiter: Waiter) -> int:
        """Take somebody out of their queue; returns its number."""
        index = next(i for i, queue in enumerate(self.queues) if waiter in queue)
        self.queues[index].remove(waiter)
        self.waiting -= 1
        return index
