"""Who is behind which machine of a cluster that spans several: the table of the tunnel which makes their fabrics one.

Nothing is learned from packets: a node's MAC address is made of its address (see `fabric`), and a machine that joins
writes its own address on its Node object. `wanted` is a pure function of the Nodes; `TunnelTable` makes the kernel agree.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from sampan.base.clock import Clock
from sampan.base.objects import ReadOnlyObject
from sampan.client.view import CachedView
from sampan.node.network import fabric, rtnetlink
from sampan.node.network.routes import internal_ips
from sampan.node.network.watch import LinkWatcher

ADDRESS = "sampan.dev/machine-address"  # annotations of Nodes on machines that have joined
HOST = "sampan.dev/machine-host"  # the fabric address of the machine's host
_ALL = "00:00:00:00:00:00"  # stands for every MAC address the table does not name
_RETRY = 5.0

log = logging.getLogger(__name__)


def notes(machine: str, host: str) -> dict[str, str]:
    """Annotations of the Node of a machine that has joined: its address, and that of its host on the fabric."""
    return {ADDRESS: machine, HOST: host}


def wanted(nodes: Iterable[ReadOnlyObject], me: str, first: str, first_host: str) -> set[tuple[str, str]]:
    """(MAC address, machine's address) for all that is elsewhere than at the machine `me`.

    `first` is the address of the first machine, on which all nodes are that do not say otherwise; `first_host` is the
    fabric address of its host.
    """
    found: set[tuple[str, str]] = set()

    def add(address: str, machine: str) -> None:
        if machine != me and ":" not in address:
            found.update({(fabric.mac(address), machine), (_ALL, machine)})

    add(first_host, first)
    for node in nodes:
        notes = node["metadata"].get("annotations") or {}
        for address in [*internal_ips(node), *([notes[HOST]] if HOST in notes else [])]:
            add(address, notes.get(ADDRESS, first))
    return found


class TunnelTable:
    """`path` is the fabric's namespace, `view` follows nodes; the rest as of `wanted`."""

    def __init__(
        self, view: CachedView, clock: Clock, path: str, me: str, first: str, first_host: str
    ) -> None:
        self._view, self._clock, self._path = view, clock, path
        self._ends = me, first, first_host
        self._changed = asyncio.Event()
        self._written: set[tuple[str, str]] | None = None  # None: not known
        self._links: LinkWatcher | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Writes the table once, then follows. Raises OSError."""
        self._view.subscribe(self._notice)
        goal = wanted(self._view.list("nodes"), *self._ends)
        await asyncio.to_thread(sync, self._path, goal)
        self._written = goal
        self._links = LinkWatcher(self._clock, fabric.MACHINES, self._link_changed, self._path)
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="tunnel-table")

    async def stop(self) -> None:
        """What is written stays."""
        self._view.unsubscribe(self._notice)
        if self._links:
            self._links.close()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _notice(self, resource: str, old: ReadOnlyObject | None, new: ReadOnlyObject | None) -> None:
        if resource == "nodes":
            self._changed.set()

    def _link_changed(self) -> None:
        """Somebody deleted it, and the supervisor made it anew: it knows nothing."""
        self._written = None
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            goal = wanted(self._view.list("nodes"), *self._ends)
            if goal == self._written:
                continue
            try:
                for entry in await asyncio.to_thread(sync, self._path, goal):
                    log.info("%s", entry)
                self._written = goal
            except OSError as error:
                log.warning("other machines may be out of reach: %s", error)
                await self._clock.sleep(_RETRY)
                self._changed.set()


def sync(path: str, goal: set[tuple[str, str]]) -> Sequence[str]:
    """Makes the table what is wanted (blocks). Gives what was changed, in words. Raises OSError."""
    with rtnetlink.connect(path) as nl:
        link = rtnetlink.link_index(nl, fabric.MACHINES)
        present = rtnetlink.forwardings(nl, link)
        for mac, machine in sorted(present - goal):
            if mac == _ALL:
                nl.run(rtnetlink.delete_flooding(link, machine))
            elif not any(mac == other for other, _ in goal):  # else it will be replaced
                nl.run(rtnetlink.delete_forwarding(link, mac))
        for mac, machine in sorted(goal - present):
            nl.run(
                rtnetlink.flooding(link, machine) if mac == _ALL else rtnetlink.forwarding(link, mac, machine)
            )
    left, met = ({machine for _, machine in a - b} for a, b in ((present, goal), (goal, present)))
    return [
        *(f"machine {m} is gone" for m in sorted(left - {m for _, m in goal})),
        *(f"machine {m} is there" for m in sorted(met)),
    ]
