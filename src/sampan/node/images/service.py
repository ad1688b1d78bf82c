"""The node's image service: one place that knows the built-in image, the local store and the registries.

Implements `node.runtime.ImagesOnDisk`. Blocking work runs in threads; the store is shared by all nodes of the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sampan.node.images import configured, host, reference, registry
from sampan.node.images.store import Store
from sampan.node.runtime import Image, ImageError


class ImageService:
    """`directory` is the machine's image directory, the same for every node on it. Without `settings` the operator's
    file about registries holds (see `configured`)."""

    def __init__(self, directory: str, settings: registry.Settings | None = None) -> None:
        self.store = Store(directory)
        self._settings = settings
        self._pulls: dict[str, asyncio.Task[Image]] = {}

    @property
    def directory(self) -> str:
        return self.store.directory

    async def find(self, ref: str) -> Image | None:
        """The image if it is present, by name or by id. Raises ImageError for a name that is none."""
        name = ref if ref.startswith("sha256:") else canonical(ref)
        if host.is_host(name):
            return await asyncio.to_thread(self._host, name)
        return await asyncio.to_thread(self.store.find, name)

    def _host(self, name: str) -> Image:
        try:
            return host.build(f"{self.store.directory}/host", name)
        except OSError as error:
            raise ImageError("ErrImagePull", f"cannot make {name} of this machine: {error}") from None

    async def pull(self, ref: str, credentials: Sequence[Mapping[str, Any]] = ()) -> Image:
        """Pods that want the same image with the same credentials wait for one pull. Raises ImageError."""
        name = canonical(ref)
        if host.is_host(name):
            return await asyncio.to_thread(self._host, name)
        key = f"{name} {credentials!r}"
        task = self._pulls.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._pull(name, credentials))
            self._pulls[key] = task
            task.add_done_callback(lambda _: self._pulls.pop(key, None))
        return await asyncio.shield(task)

    async def _pull(self, name: str, credentials: Sequence[Mapping[str, Any]]) -> Image:
        parsed = reference.parse(name)
        if parsed.host == "localhost":
            raise ImageError(
                "ErrImagePull", f'failed to pull "{name}": it is local to this machine and not loaded here'
            )
        try:
            settings = self._settings or await asyncio.to_thread(configured.read, parsed.host)
            await asyncio.to_thread(registry.pull, self.store, parsed, credentials, settings, guarded=True)
        except (registry.PullError, ValueError) as error:
            aside = " (that is the node, not the machine)" if registry.is_loopback(parsed.host) else ""
            raise ImageError("ErrImagePull", f"{error}{aside}") from None
        except OSError as error:
            raise ImageError("ErrImagePull", f'failed to pull and unpack image "{name}": {error}') from None
        image = await asyncio.to_thread(self.store.find, name)
        if image is None:
            raise ImageError("ErrImagePull", f'image "{name}" was removed while it was pulled')
        return image

    async def allows(self, image: Image, ref: str, credentials: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Whether a pod with these credentials may use an image that is present, named as it names it."""
        if ref.startswith("sha256:") or host.is_host(canonical(ref)):
            return True
        parsed = reference.parse(ref)
        logins = registry.logins(credentials, parsed.host)
        return await asyncio.to_thread(self.store.allows, image.id, parsed.name, logins)

    async def list(self) -> list[Image]:
        """What is in the store, and the built-in image."""
        built_in = await asyncio.to_thread(self._host, f"{host.REPOSITORY}:latest")
        return [built_in, *await asyncio.to_thread(self.store.list)]

    async def remove(self, ref: str) -> None:
        """Forget a name or an id; layers that containers still use go when those have ended (`collect`)."""
        name = ref if ref.startswith("sha256:") else canonical(ref)
        await asyncio.to_thread(self.store.remove, name)

    async def in_use(self, image: Image) -> bool:
        """Whether a container of any node of this machine runs from it."""
        return await asyncio.to_thread(self.store.in_use, image)

    async def collect(self) -> int:
        """Remove layers nothing needs; returns how many."""
        return await asyncio.to_thread(self.store.collect)

    async def usage(self) -> tuple[int, int]:
        """(used, capacity) in bytes of the images' file system."""
        return await asyncio.to_thread(self.store.usage)


def canonical(ref: str) -> str:
    """Raises ImageError InvalidImageName."""
    try:
        return str(reference.parse(ref))
    except ValueError as error:
        raise ImageError("InvalidImageName", str(error)) from None
