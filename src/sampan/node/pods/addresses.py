"""Pod addresses of one node, from its podCIDR: the smallest free one, never given twice.

Good for simulated nodes and for a single agent; what exists already is marked with `take` after a restart.
"""

from __future__ import annotations

import heapq
import ipaddress
from typing import Any


class AddressPool:
    """Host addresses of a CIDR; the first (.0) and the last of an IPv4 range are never given."""

    def __init__(self, cidr: str = "10.244.0.0/24") -> None:
        self.use(cidr)

    def use(self, cidr: str) -> None:
        """Start over with another range."""
        network = ipaddress.ip_network(cidr)
        self.cidr = cidr
        self._base = int(network.network_address)
        self._size = network.num_addresses
        self._next = 1
        self._free: list[int] = []
        self._taken: dict[str, str] = {}
        self._used: set[int] = set()

    def take(self, pod_uid: str, address: str) -> None:
        """Mark an address that a running pod already has."""
        self._taken[pod_uid] = address
        self._used.add(int(ipaddress.ip_address(address)) - self._base)

    async def allocate(self, pod: dict[str, Any]) -> str:
        """The pod's address. Raises OSError when the range is exhausted."""
        uid = pod["metadata"]["uid"]
        if uid in self._taken:
            return self._taken[uid]
        offset = self._offset()
        self._used.add(offset)
        address = str(ipaddress.ip_address(self._base + offset))
        self._taken[uid] = address
        return address

    def _offset(self) -> int:
        while self._free:
            offset = heapq.heappop(self._free)
            if offset not in self._used:
                return offset
        while self._next < self._size - 1:
            self._next += 1
            if self._next - 1 not in self._used:
                return self._next - 1
        raise OSError(f"no free address is left in {self.cidr}")

    async def release(self, pod_uid: str) -> None:
        address = self._taken.pop(pod_uid, None)
        if address is not None:
            offset = int(ipaddress.ip_address(address)) - self._base
            self._used.discard(offset)
            heapq.heappush(self._free, offset)
