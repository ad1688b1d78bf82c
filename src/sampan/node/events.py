"""The kubelet's events: adds the container's field path, then counts and combines as `client.events` does."""

from __future__ import annotations

from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.events import EventRecorder, reference_to
from sampan.client.plan import Event
from sampan.node.pods.podspec import field_path


class NodeEvents:
    """`record` never waits and never fails; events that are switched off cost nothing."""

    def __init__(self, client: Client, clock: Clock, ids: Ids, node: str, enabled: bool = True) -> None:
        self._recorder = EventRecorder(client, clock=clock, ids=ids, component="kubelet", host=node)
        self._enabled = enabled

    def record(self, regarding: Object, type: str, reason: str, message: str, container: str = "") -> None:
        """`regarding` is a pod or the node; `container` names the one concerned."""
        if not self._enabled:
            return
        kind = "Pod" if "namespace" in regarding["metadata"] else "Node"
        reference = reference_to({"kind": kind, "apiVersion": "v1", **regarding})
        if container:
            reference["fieldPath"] = field_path(regarding, container)
        self._recorder.record(Event(reference, type, reason, message))

    async def close(self) -> None:
        await self._recorder.stop()
