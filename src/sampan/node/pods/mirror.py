"""Static pods: run from a file on the node, shown in the API by a mirror that only reports.

Source: "Create static Pods". The pod's uid is made of its file's content, so that a changed file is another pod; the
mirror has a uid of its own and is made anew whenever somebody deletes it.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import logging
from collections.abc import Callable

import orjson

from sampan.api.defaults import apply_defaults
from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.node.pods.driver import PodDriver
from sampan.node.pods.kit import Kit

log = logging.getLogger(__name__)
MIRROR = "kubernetes.io/config.mirror"
SOURCE, HASH, SEEN = "kubernetes.io/config.source", "kubernetes.io/config.hash", "kubernetes.io/config.seen"
_PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def is_mirror(pod: Object) -> bool:
    return MIRROR in (pod["metadata"].get("annotations") or {})


def static_pod(manifest: Object, origin: str, node: str, now: float) -> Object:
    """The pod a manifest means on this node. Raises ValueError when it is none."""
    if not isinstance(manifest, dict) or manifest.get("kind") != "Pod" or manifest.get("apiVersion") != "v1":
        raise ValueError("it is not a v1 Pod")
    pod = copy.deepcopy(manifest)
    meta, spec = pod.setdefault("metadata", {}), pod.get("spec")
    if not isinstance(spec, dict) or not spec.get("containers") or not meta.get("name"):
        raise ValueError("a pod needs a name and containers")
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        raise ValueError("a static pod may not reference service accounts")
    digest = hashlib.md5(orjson.dumps([node, origin, manifest]), usedforsecurity=False).hexdigest()
    meta["name"] = f"{meta['name']}-{node}"
    meta.setdefault("namespace", "default")
    meta["uid"] = digest
    meta["creationTimestamp"] = rfc3339(now)
    meta["annotations"] = {
        **(meta.get("annotations") or {}),
        HASH: digest,
        SEEN: rfc3339(now),
        SOURCE: "file",
    }
    spec["nodeName"] = node
    spec["tolerations"] = [*(spec.get("tolerations") or ()), {"operator": "Exists", "effect": "NoExecute"}]
    if spec.get("priorityClassName") in _PRIORITIES:
        spec["priority"] = _PRIORITIES[spec["priorityClassName"]]
    row = BUILTIN.get("pods")
    assert row is not None
    apply_defaults(row, pod)
    pod["status"] = {"phase": "Pending"}
    return pod


class StaticDriver(PodDriver):
    """Runs one static pod; its status goes to the mirror."""

    def __init__(self, kit: Kit, pod: Object, on_done: Callable[[str], None] = lambda uid: None) -> None:
        super().__init__(kit, pod, on_done)
        self.mirror: Object | None = None
        self.retired = False
        self._making: asyncio.Task[None] | None = None

    def show(self, mirror: Object | None) -> None:
        """The API's newest version of the mirror, None when it was deleted: another is made."""
        if mirror is not None and not self._is_mine(mirror):
            self._spawn("mirror:remove", remove_mirror(self.kit, mirror))
            return
        known = self.mirror
        self.mirror = mirror
        if mirror is None:
            if not self.retired and (self._making is None or self._making.done()):
                self._making = asyncio.get_running_loop().create_task(self._make())
            return
        if known is None or known["metadata"]["uid"] != mirror["metadata"]["uid"]:
            self.kit.statuses.know(mirror)
            if self._status:
                self.kit.statuses.put(mirror, self._status)

    def retire(self) -> None:
        """The file is gone: end with the grace the pod's spec gives."""
        if self.retired:
            return
        self.retired = True
        grace = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        stamp = rfc3339(self.kit.clock.now())
        changed = {"deletionTimestamp": stamp, "deletionGracePeriodSeconds": grace}
        self.pod = {**self.pod, "metadata": {**self.pod["metadata"], **changed}}
        self._begin_end()
        self.kick()

    async def close(self) -> None:
        if self._making is not None:
            self._making.cancel()
        await super().close()

    def _is_mine(self, mirror: Object) -> bool:
        deleted = "deletionTimestamp" in mirror["metadata"]
        return not deleted and mirror["metadata"]["annotations"].get(MIRROR) == self.uid and not self.retired

    def _report(self, status: Object) -> None:
        if status and status != self._status:
            self._status = status
            self.pod = {**self.pod, "status": {**self.pod.get("status", {}), **status}}
            if self.mirror is not None:
                self.kit.statuses.put(self.mirror, status)

    async def _delete(self) -> None:
        if self.mirror is not None:
            await remove_mirror(self.kit, self.mirror)
            self.kit.statuses.forget(self.mirror["metadata"]["uid"])

    async def _make(self) -> None:
        """Until the API has a mirror; what is there under its name is somebody else's or tells us of itself."""
        delay = 0.5
        while not self.retired and self.mirror is None:
            try:
                self.show(await self.kit.client.create("pods", self._mirror_object()))
                return
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    return
                log.warning("mirror of static pod %s: %s", self.pod["metadata"]["name"], error.message)
            except (OSError, EOFError) as error:
                log.info("mirror of static pod %s: %s", self.pod["metadata"]["name"], error)
            await self.kit.clock.sleep(delay)
            delay = min(delay * 2, 30.0)

    def _mirror_object(self) -> Object:
        meta = {k: v for k, v in self.pod["metadata"].items() if k in ("name", "namespace", "labels")}
        meta["annotations"] = {**self.pod["metadata"]["annotations"], MIRROR: self.uid}
        node = self.kit.node().get("metadata", {})
        if node.get("uid"):
            owner = {"apiVersion": "v1", "kind": "Node", "name": node["name"], "uid": node["uid"]}
            meta["ownerReferences"] = [{**owner, "controller": True}]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": self.pod["spec"]}


async def remove_mirror(kit: Kit, mirror: Object) -> None:
    """Take a mirror out of the API, without grace since it is only a record. A failure is no matter: it is seen again."""
    meta = mirror["metadata"]
    try:
        await kit.client.delete("pods", meta["name"], meta["namespace"], uid=meta["uid"], grace=0)
    except (ApiError, OSError, EOFError) as error:
        log.info("deleting mirror pod %s: %s", meta["name"], error)
