"""Which pod addresses of this node are taken. The kernel's routes are the record, so nothing on disk can disagree.

Every attached pod has a host route to its address (see `pod`); after a restart the pool is filled from those. An
address goes round the whole range before it is given again, so that a late packet for a dead pod finds nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


class PoolExhausted(OSError):
    """No address is free; the text names the range."""


class AddressPool:
    """The addresses of one pod CIDR: not its first (the network) nor, in IPv4, its last (the broadcast)."""

    def __init__(self, cidr: str, taken: Iterable[str] = ()) -> None:
        self.network = ipaddress.ip_network(cidr)
        self._base = int(self.network.network_address)
        last = self.network.num_addresses - (2 if self.network.version == 4 else 1)
        self._last = min(last, 1 << 20)
        self._taken = {offset for address in taken if (offset := self._offset(address)) is not None}
        self._next = max(self._taken, default=0) + 1

    def _offset(self, address: str) -> int | None:
        ip = ipaddress.ip_address(address)
        return int(ip) - self._base if ip in self.network else None

    def __contains__(self, address: str) -> bool:
        """Whether the address is taken."""
        return self._offset(address) in self._taken

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._taken)

    def take(self, wanted: str = "") -> str:
        """A free address, or `wanted` (a sandbox that had it before). Raises PoolExhausted."""
        if wanted:
            offset = self._offset(wanted)
            if offset is not None:
                self._taken.add(offset)
            return wanted
        for step in range(self._last):
            offset = (self._next - 1 + step) % self._last + 1
            if offset not in self._taken:
                self._taken.add(offset)
                self._next = offset + 1
                return str(self.network.network_address + offset)
        raise PoolExhausted(f"no free address in {self.network}: all {self._last} are taken")

    def release(self, address: str) -> None:
        """Gives it back; one that is not ours or is free already is ignored."""
        offset = self._offset(address)
        if offset is not None:
            self._taken.discard(offset)
