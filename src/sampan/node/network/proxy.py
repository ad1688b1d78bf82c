"""The kernel side of Services: one nftables table, programmed by small transactions, watched for damage.

`ServiceProxy` belongs to one network namespace. What to program is decided in `services` and `programming`; here it is
committed, in a thread, and verified by events: any change of our table that we did not make leads to a full resync.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Mapping

from sampan.node.network import conntrack, namespace, nftables, programming, ruleset
from sampan.node.network.damage import DamageWatcher
from sampan.node.network.expressions import FAMILIES
from sampan.node.network.programming import Delta, Programmed
from sampan.node.network.ruleset import Balance, Config
from sampan.node.network.services import Element, Entries

log = logging.getLogger(__name__)


class ServiceProxy:
    """Programs one namespace (None: the caller's). Calls are serialised; all of them may be repeated."""

    def __init__(self, config: Config, netns: namespace.Netns | None = None) -> None:
        self.config = config
        self._netns = netns
        self._state = Programmed()
        self._known: dict[int, set[Balance]] = {4: set(), 6: set()}
        self._nl: nftables.NftSocket | None = None
        self._lock = asyncio.Lock()
        self._watcher: DamageWatcher | None = None

    async def start(
        self, wanted: Mapping[str, Entries] | None = None, damaged: Callable[[], None] | None = None
    ) -> None:
        """Replaces the table with what is wanted, in one transaction. `damaged` is called when somebody else changed it."""
        self._nl = await asyncio.to_thread(nftables.connect, self._netns)
        self._state.change(wanted or {})
        await self.resync()
        if damaged:
            self._watcher = DamageWatcher(self.config.table, self._nl.port, self._netns, damaged)

    @property
    def port(self) -> int:
        """The number of the netlink socket that makes its changes, 0 before `start`."""
        return self._nl.port if self._nl else 0

    def expect(self, wanted: Mapping[str, Entries]) -> None:
        """Before `start`: elements that shall be in the table from the first."""
        self._state.change(wanted)

    def close(self) -> None:
        """Stops programming; the rules stay in force (connections outlive a restart of the agent)."""
        if self._watcher:
            self._watcher.close()
            self._watcher = None
        if self._nl:
            self._nl.close()
            self._nl = None

    def remove(self) -> None:
        """Deletes the table."""
        for family in FAMILIES:
            nftables.drop_table(family, self.config.table, self._netns)

    def programmed(self, service: str) -> Entries:
        """The elements of a Service ("namespace/name") as they are in force or about to be."""
        return self._state.by_service.get(service, {})

    def taken(self, service: str) -> dict[str, str]:
        """What a Service asks for that another has: "address:port/PROTOCOL" -> who."""
        return {
            describe(element): owner
            for element, owner in self._state.lost(service)
            if element.set in (ruleset.VIPS, ruleset.REJECTED, ruleset.DROPPED)
        }

    async def change(self, wanted: Mapping[str, Entries]) -> None:
        """New elements of some Services; empty ones are gone. Returns when the kernel has them. Raises OSError."""
        async with self._lock:
            delta = self._state.change(wanted)
            if not delta:
                return
            changes, made = programming.transaction(delta, self.config, self._known)
            try:
                await asyncio.to_thread(self._commit, changes)
            except OSError as error:
                log.warning("programming services: %s; writing the whole table", error)
                await self._resync()
            else:
                self._learn(made)
            await self._forget_flows(delta)

    async def resync(self) -> None:
        """Writes the whole table anew."""
        async with self._lock:
            await self._resync()

    async def _resync(self) -> None:
        changes, made = programming.whole(self._state.effective(), self.config)
        await asyncio.to_thread(self._commit, changes)
        self._known = {4: set(), 6: set()}
        self._learn(made)

    def _commit(self, changes: nftables.Transaction) -> None:
        assert self._nl is not None, "start() comes first"
        for attempt in range(3):
            try:
                self._nl.commit(changes)
                return
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.EINTR, errno.EAGAIN) or attempt == 2:
                    raise

    def _learn(self, made: Iterable[set[Balance]]) -> None:
        for family, balances in zip(FAMILIES, made, strict=True):
            self._known[family.version] |= balances

    async def _forget_flows(self, delta: Delta) -> None:
        stale = stale_udp(delta)
        if stale:
            try:
                await asyncio.to_thread(self._forget, stale)
            except OSError as error:
                log.warning("forgetting UDP connections of former endpoints: %s", error)

    def _forget(self, stale: Mapping[tuple[int, bytes, int], set[bytes] | None]) -> None:
        def is_stale(flow: conntrack.Flow) -> bool:
            answered = flow.answered_by + struct.pack(">Hxx", flow.answered_from)
            for address in (flow.destination, bytes(len(flow.destination))):
                key = (flow.version, address, flow.port)
                if key in stale:
                    gone = stale[key]
                    return answered in gone if gone is not None else flow.answered_by == flow.destination
            return False

        with conntrack.connect(self._netns) as nl:
            for version in sorted({version for version, _, _ in stale}):
                conntrack.forget(nl, version, is_stale)


def stale_udp(delta: Delta) -> dict[tuple[int, bytes, int], set[bytes] | None]:
    """(version, address, port) of UDP -> endpoints that no longer serve it; None: it had none before.

    In the second case clients may have a connection to the Service's address itself, from when nobody translated it.
    """
    gone: dict[tuple[int, bytes, int], set[bytes]] = {}
    there: dict[tuple[int, bytes, int], set[bytes]] = {}
    for elements, into in ((delta.removed, gone), (delta.added, there)):
        for element, value in elements.items():
            if element.set == ruleset.ENDPOINTS and _is_udp(element):
                into.setdefault(_udp_key(element), set()).add(value)  # type: ignore[arg-type]
    result: dict[tuple[int, bytes, int], set[bytes] | None] = {}
    for key, values in gone.items():
        if left := values - there.get(key, set()):
            result[key] = left
    for element in delta.added:
        if element.set == ruleset.VIPS and _is_udp(element) and element not in delta.removed:
            result[_udp_key(element)] = None
    return result


def describe(element: Element) -> str:
    """The address and port of a key, as people write them."""
    size = 4 if element.version == 4 else 16
    address = element.key[:size]
    protocol, (port,) = element.key[size], struct.unpack_from(">H", element.key, size + 4)
    names = {socket.IPPROTO_TCP: "TCP", socket.IPPROTO_UDP: "UDP"}
    if not any(address):
        return f"node port {port}/{names.get(protocol, 'SCTP')}"
    text = socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, address)
    return f"{f'[{text}]' if size == 16 else text}:{port}/{names.get(protocol, 'SCTP')}"


def _is_udp(element: Element) -> bool:
    return element.key[4 if element.version == 4 else 16] == socket.IPPROTO_UDP


def _udp_key(element: Element) -> tuple[int, bytes, int]:
    size = 4 if element.version == 4 else 16
    return element.version, element.key[:size], struct.unpack_from(">H", element.key, size + 4)[0]
