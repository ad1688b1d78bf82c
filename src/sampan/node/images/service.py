"""The node's image service: one place that knows the built-in image, the local store and the registries.

Implements `node.runtime.Images`. Blocking work runs in threads; the store is shared by all nodes of the machine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sampan.node.images import host, reference
from sampan.node.runtime import Image, ImageError


class ImageService:
    """`directory` is the machine's image directory, the same for every node on it."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.abspath(directory)

    async def find(self, ref: str) -> Image | None:
        """The image if it is present. Raises ImageError for a name that is none."""
        name = canonical(ref)
        if host.is_host(name):
            return await asyncio.to_thread(host.build, f"{self._directory}/host", name)
        return None

    async def pull(self, ref: str, credentials: Sequence[Mapping[str, Any]] = ()) -> Image:
        image = await self.find(ref)
        if image is not None:
            return image
        raise ImageError("ErrImagePull", f"failed to pull {ref}: registries are not supported yet")

    async def list(self) -> list[Image]:
        return [await asyncio.to_thread(host.build, f"{self._directory}/host", f"{host.REPOSITORY}:latest")]

    async def remove(self, ref: str) -> None:
        canonical(ref)


def canonical(ref: str) -> str:
    """Raises ImageError InvalidImageName."""
    try:
        return str(reference.parse(ref))
    except ValueError as error:
        raise ImageError("InvalidImageName", str(error)) from None
