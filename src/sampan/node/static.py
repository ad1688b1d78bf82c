"""The directory of static pods: which manifests are in it, told whenever one changes (inotify, no polling)."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from sampan.base.objects import Object
from sampan.node.api.inotify import DirectoryWatch
from sampan.node.pods.manager import PodManager
from sampan.node.pods.mirror import static_pod

log = logging.getLogger(__name__)


class StaticPods:
    """Keeps the manager's static pods what the files of `directory` say. `load` reads them, `run` follows for ever."""

    def __init__(self, directory: str, manager: PodManager, node: str, now: Callable[[], float]) -> None:
        self._directory, self._manager, self._node, self._now = directory, manager, node, now
        self._told: dict[str, str] = {}  # file -> the last complaint about it

    async def load(self) -> None:
        pods = await asyncio.to_thread(self._read)
        self._manager.static({pod["metadata"]["uid"]: pod for pod in pods})

    async def run(self) -> None:
        """Reads the directory, and again after each change in it. Never returns."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        watch = DirectoryWatch(self._directory)
        try:
            while True:
                await self.load()
                await watch.changed()
        finally:
            watch.close()

    def _read(self) -> list[Object]:
        """One pod a file, YAML or JSON; hidden files are left out, as editors make them."""
        found: dict[tuple[str, str], Object] = {}
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return []
        for name in names:
            path = f"{self._directory}/{name}"
            if name.startswith(".") or not os.path.isfile(path):
                continue
            try:
                pod = static_pod(_parse(path), path, self._node, self._now())
            except (OSError, ValueError) as error:
                if self._told.get(path) != str(error):
                    log.warning("static pod %s: %s", path, error)
                    self._told[path] = str(error)
                continue
            self._told.pop(path, None)
            found.setdefault((pod["metadata"]["namespace"], pod["metadata"]["name"]), pod)
        return list(found.values())


def _parse(path: str) -> Object:
    import yaml

    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is neither YAML nor JSON: {error}") from None
