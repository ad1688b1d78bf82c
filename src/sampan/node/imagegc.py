"""Which images a node gives up when its disk fills: unused ones, those unused for longest first.

Source: "Garbage collection of unused containers and images". An image that was loaded by hand and not pulled stays:
nothing could bring it back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sampan.node.runtime import Image, ImagesOnDisk


class ImageGarbage:
    """Remembers when each image was last seen in use.

    `high`, `low`: percent of the file system; `age`: seconds that any image stays after it was first seen.
    """

    def __init__(self, high: float, low: float, age: float) -> None:
        self._high, self._low, self._age = high, low, age
        self._first: dict[str, float] = {}
        self._used: dict[str, float] = {}

    def choose(self, images: Sequence[Image], in_use: Collection[str], now: float) -> list[Image]:
        """What may go, in that order."""
        present = {image.ref for image in images}
        self._first = {ref: self._first.get(ref, now) for ref in present}
        for image in images:
            if image.ref in in_use or image.id in in_use or image.digest in in_use:
                self._used[image.ref] = now
        self._used = {ref: when for ref, when in self._used.items() if ref in present}
        free = [
            image
            for image in images
            if image.digest and self._used.get(image.ref) != now and now - self._first[image.ref] >= self._age
        ]
        return sorted(free, key=lambda i: (self._used.get(i.ref, 0.0), self._first[i.ref], i.ref))

    async def collect(
        self, service: ImagesOnDisk, in_use: Collection[str], now: float, reclaim: int = 0
    ) -> int:
        """Free `reclaim` bytes, or enough to reach the lower mark when the upper is passed. Returns what was freed."""
        images = await service.list()
        chosen = self.choose(images, in_use, now)
        used, capacity = await service.usage()
        if not reclaim and capacity and used * 100 / capacity >= self._high:
            reclaim = int(used - capacity * self._low / 100)
        freed = 0
        for image in chosen:
            if freed >= reclaim:
                break
            if await service.in_use(image):
                continue  # by another node of this machine
            await service.remove(image.ref)
            left, _ = await service.usage()
            freed, used = freed + max(used - left, 0), left
        return freed
